"""Checkpoints: written aside, flushed, hashed, renamed, read back, only then made the latest, and at last pruned.

A folder of checkpoints holds `step-<step>` folders and `latest`, which names the newest that was read back whole. A
resume verifies every checkpoint it considers, newest first, and takes the first that is whole; `latest` is what other
tools read, and tells a resume of a checkpoint that has gone.
"""

import contextlib
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tilth.errors import TilthError
from tilth.files import read_json, recover_folder, sha256_file, whole_folder, write_json, write_text
from tilth.train.identity import measured_otherwise
from tilth.train.mending import unwritable

FORMAT_VERSION = 3
_TENSOR_FILES = ("weights.safetensors", "optimizer.safetensors")
_FILES = (*_TENSOR_FILES, "state.json")
_NAME = re.compile(r"step-([0-9]{8,})")
_UNREADABLE = (TilthError, OSError, KeyError, TypeError)
"""What reading the `state.json` of a damaged checkpoint raises."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    weights and optimizer: whole tensors by name, whatever the number of processes. state: the step, and what the loop
    and the monitor remember. identity: what would change the result if it changed (see `tilth.train.identity`).
    held_out_loss: of the newest evaluation; the checkpoint with the lowest stays. milestone: stays whatever comes.
    protected: a step whose checkpoint stays, too, while this is the newest.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    identity: dict[str, Any]
    held_out_loss: float | None = None
    milestone: bool = False
    protected: int | None = None


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder/step-<step>`, verify it, point `folder/latest` at it, then prune.

    What stays: the newest `keep`, the milestones, the protected one, and the one with the lowest of the
    `held_out_losses`. Checkpoints of later steps, which only a resume that found them damaged leaves behind, go.

    Raises: TilthError when it cannot be written or `folder` is not there; older checkpoints are then untouched.
    """
    path = folder / f"step-{step:08d}"
    try:
        # Not made anew: where the run's folder has gone, a folder in its place would be a run without a beginning.
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no longer there")
        with whole_folder(path) as aside:
            for name, tensors in zip(_TENSOR_FILES, (checkpoint.weights, checkpoint.optimizer), strict=True):
                save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, aside / name)
            record = {"step": step, "held_out_loss": checkpoint.held_out_loss, "milestone": checkpoint.milestone}
            write_json(aside / "state.json", record | {"state": checkpoint.state, "identity": checkpoint.identity})
            # Nothing but hashes, so that a change of any byte shows: either in its form or in what it stands for.
            (aside / "manifest.json").write_bytes(_manifest({name: sha256_file(aside / name) for name in _FILES}))
        verify_checkpoint(path)
        write_text(folder / "latest", path.name + "\n")
    except (OSError, SafetensorError) as error:
        raise unwritable("the checkpoint", path, folder.parent, error) from None
    _prune(folder, path, keep, checkpoint.protected)
    return path


def verify_checkpoint(path: Path) -> None:
    """Compare every file with the manifest, and the manifest with the form it is written in.

    Raises: TilthError that names the first that is missing or differs.
    """
    manifest = read_json(path / "manifest.json")
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise TilthError(f"{path} has format {version}; this version of Tilth reads {FORMAT_VERSION}")
    hashes = manifest.get("sha256")
    if (
        not isinstance(hashes, dict)
        or hashes.keys() != set(_FILES)
        or _manifest(hashes) != (path / "manifest.json").read_bytes()
    ):
        raise TilthError(f"the checkpoint {path} is damaged: manifest.json is not as it was written")
    for name in _FILES:
        file = path / name
        if not file.is_file():
            raise TilthError(f"the checkpoint {path} lacks {name}")
        if sha256_file(file) != hashes[name]:
            raise TilthError(f"the checkpoint {path} is damaged: {name} does not match its hash")
    if (step := read_json(path / "state.json")["step"]) != step_of(path):
        raise TilthError(f"the checkpoint {path} is that of step {step}: its folder was renamed")


def recorded_threads(folder: Path) -> int | None:
    """The number of threads that the newest readable checkpoint was computed with; None where none says."""
    for path in reversed(checkpoint_paths(folder)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return json.loads((path / "state.json").read_text(encoding="utf-8"))["identity"]["threads"]
    return None


def go_back(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of a step, once those of later steps, which are then of another past, are removed.

    Raises: TilthError when it is not whole; nothing is removed then.
    """
    path = folder / f"step-{step:08d}"
    checkpoint = read_checkpoint(path)
    for other in checkpoint_paths(folder):
        if step_of(other) > step:
            shutil.rmtree(other, ignore_errors=True)
    write_text(folder / "latest", path.name + "\n")
    return checkpoint


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint, compared with its hashes. Raises: TilthError when the checkpoint is not whole."""
    try:
        verify_checkpoint(path)
        record = json.loads((path / "state.json").read_text(encoding="utf-8"))
        weights, optimizer = (load_file(path / name) for name in _TENSOR_FILES)
        return Checkpoint(weights, optimizer, record["state"], record["identity"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise TilthError(f"{path} is damaged: {error!r}") from None


def load_latest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint that is whole, and what was wrong with newer ones.

    Raises: TilthError when none is whole.
    """
    for replaced in folder.glob(".step-*.replaced"):  # a crash came between the two renames that replace a checkpoint
        recover_folder(folder / replaced.name.removeprefix(".").removesuffix(".replaced"))
    paths = checkpoint_paths(folder)
    problems = _latest_gone(folder, paths)
    for path in reversed(paths):
        try:
            return read_checkpoint(path), problems
        except TilthError as error:
            problems.append(str(error))
    detail = "; ".join(problems) or "there is none"
    raise TilthError(f"no checkpoint to resume from in {folder}: {detail}; start another run in another --out")


def holds_checkpoints(folder: Path) -> bool:
    """Whether there is any checkpoint, whole or not, one that was being replaced when the machine stopped included."""
    return bool(checkpoint_paths(folder)) or any(folder.glob(".step-*.replaced"))


def checkpoint_paths(folder: Path) -> list[Path]:
    """The checkpoints of a folder, damaged ones too, oldest first. Nothing else in the folder is ever removed."""
    return sorted((path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)), key=step_of)


def held_out_losses(paths: Sequence[Path]) -> dict[Path, float]:
    """The held-out losses that checkpoints tell of, oldest first: those that can be compared with the newest of them,
    which losses before an accepted change of the text, or of what is predicted in it, cannot.
    """
    losses: dict[Path, float] = {}
    newest = None
    for path in reversed(paths):
        with contextlib.suppress(*_UNREADABLE):
            record = read_json(path / "state.json")
            loss, identity = record["held_out_loss"], record["identity"]
            if not isinstance(loss, float) or not math.isfinite(loss):
                continue
            if "held_out" not in measured_otherwise(identity, newest or identity):
                losses[path] = loss
            newest = newest or identity
    return dict(reversed(losses.items()))


def step_of(path: Path) -> int:
    """The step that a checkpoint's folder names; -1 for another folder."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def _latest_gone(folder: Path, paths: list[Path]) -> list[str]:
    """What is wrong when `latest` names no checkpoint. Without the file nothing is: a crash may precede its first."""
    try:
        named = (folder / "latest").read_bytes().decode(errors="replace").removesuffix("\n")
    except OSError:
        return []
    if named in [path.name for path in paths]:
        return []
    return [f"{folder / 'latest'} names {named[:80]!r}, and there is no such checkpoint: one or the other was damaged"]


def _manifest(hashes: dict[str, str]) -> bytes:
    return (json.dumps({"format_version": FORMAT_VERSION, "sha256": hashes}, indent=2) + "\n").encode()


def _prune(folder: Path, newest: Path, keep: int, protected: int | None) -> None:
    paths = checkpoint_paths(folder)
    past = [path for path in paths if step_of(path) <= step_of(newest)]
    kept = {*past[-keep:], *(path for path in past if step_of(path) == protected)}
    for path in past:
        with contextlib.suppress(*_UNREADABLE):  # a damaged one is no one's choice
            if read_json(path / "state.json")["milestone"]:
                kept.add(path)
    if losses := held_out_losses(past):
        kept.add(min(losses, key=lambda path: (losses[path], -step_of(path))))
    # What a kill left half-written goes too: one save is written at a time, and this one is done.
    for path in (*paths, *folder.glob(".step-*.partial"), *folder.glob(".step-*.replaced")):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
