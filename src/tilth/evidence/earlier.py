"""A comparison that is already there is not replaced by another one by accident."""

from pathlib import Path
from typing import Any

from tilth.errors import TilthError, UsageError
from tilth.files import read_json

_DECIDING = {
    "task": "task",
    "data": "--data",
    "texts_fingerprint": "the examples",
    "test": "--test",
    "systems": "the models",
    "weights_fingerprint": "the models' weights",
    "labels": "the labels",
    "budgets": "--labels",
    "seeds": "--seeds",
    "settings": "the settings",
}
"""What decides the outcome of a comparison, by its name in compare.json, in the user's words."""


def check_earlier(folder: Path, plan: dict[str, Any], overwrite: bool) -> None:
    """Check that writing the results of `plan` (what compare.json says before its results) loses no other report.

    Raises: UsageError when the folder holds a comparison of something else, or another report, unless `overwrite`.
    """
    if overwrite:
        return
    if not (folder / "compare.json").exists():
        if (folder / "report.html").exists():
            raise UsageError(
                f"{folder} holds a report of something else (report.html); choose another --out, or replace it with "
                "--overwrite"
            )
        return
    try:
        earlier = read_json(folder / "compare.json")
        # A comparison of an earlier version lacks the fingerprints: what it does say is compared.
        other = [words for name, words in _DECIDING.items() if name in earlier and earlier[name] != plan[name]]
    except (TilthError, TypeError):
        raise UsageError(
            f"{folder / 'compare.json'} cannot be read; choose another --out, or replace it with --overwrite"
        ) from None
    if other:
        raise UsageError(
            f"{folder} holds a finished comparison that differs in {', '.join(other)}; choose another --out, or "
            "replace it with --overwrite (trainings that both have are not repeated)"
        )
