"""Datasets of the Hugging Face hub: which files hold a split. They are read in place, as those of any store are."""

import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from tilth.errors import TilthError, UsageError, import_extra

_PREFIX = "hf://datasets/"
_DATASET = re.compile(
    re.escape(_PREFIX) + r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^/#]+))?"
    r"(?:#(?P<configuration>[^/#]*)(?:/(?P<split>[^/#]+))?)?"
)
_PINNED = re.compile(re.escape(_PREFIX) + r"[^@]+@(?P<revision>[^/]+)/(?P<path>.+)")

_TOLD_BY_CONTENT = ("name", "version", "data_dir", "data_files", "description", "features", "sep", "delimiter")
"""Options of a configuration that change nothing in how its files are read here."""

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
"""What keeps Hugging Face's libraries from telling who uses them for what."""


def is_dataset(text: str) -> bool:
    """Whether a source is `hf://datasets/OWNER/NAME[@REVISION][#CONFIGURATION[/SPLIT]]`, not a file of one."""
    return _DATASET.fullmatch(text) is not None


def find_dataset(text: str) -> tuple[str, list[tuple[str, str]], str]:
    """Name, (url, path below the name) of each file of a split, and a sentence on the revision they are of.

    The configuration is the dataset's default unless told, and the split `train`. The URLs name the revision by its
    hash, so that a build that goes on reads the same files.
    Raises: TilthError when there is no such dataset, configuration or split, it cannot be reached, or its files are to
    be read in a way that is not known here.
    """
    match = _DATASET.fullmatch(text)
    assert match is not None
    name, split = match["name"], match["split"] or "train"
    config = _builder(text, name, match["configuration"] or None, match["revision"]).config
    if odd := ", ".join(_odd_options(config)):
        raise UsageError(
            f"{text}: its files are to be read with {odd}, which is not known here; name files that hold it"
        )
    found = config.data_files or {}
    if split not in found:
        splits = ", ".join(found) or "none"
        raise UsageError(
            f"{text}: there is no split {split!r}; its splits are {splits}: choose one with #CONFIGURATION/SPLIT"
        )
    pinned = [_PINNED.fullmatch(url) for url in found[split]]
    files = [(each[0], f"{name}/{each['path']}") for each in pinned if each]
    if len(files) < len(pinned) or not files:
        raise UsageError(f"{text}: its files are not on the hub")
    (revision, *others) = {each["revision"] for each in pinned if each}
    if others:
        raise UsageError(f"{text}: its files are of several revisions or repositories; name each by itself")
    told = f"revision {revision}, configuration {config.name}, split {split}"
    return text.removeprefix(_PREFIX).replace(f"@{match['revision']}", ""), files, told


def _builder(text: str, name: str, configuration: str | None, revision: str | None) -> Any:
    os.environ.update(QUIET)
    datasets = import_extra("datasets", "datasets")
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # where it was imported before
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset_builder(name, configuration, revision=revision and unquote(revision))
    except (OSError, ValueError, RuntimeError) as error:  # its own and the hub's errors are among these
        said = " ".join(str(error).split())
        raise TilthError(f"{text}: {said or type(error).__name__}") from None


def _odd_options(config: Any) -> Iterator[str]:
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        if (
            option.name not in _TOLD_BY_CONTENT
            and option.default is not dataclasses.MISSING
            and value != option.default
        ):
            yield f"{option.name}={value!r}"
