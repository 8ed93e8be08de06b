"""The folder of a run: who may work in it, and whether there is a run in it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tilth.errors import UsageError
from tilth.files import locked, output_folder
from tilth.train.checkpoint import holds_checkpoints
from tilth.train.prepare import RECIPE
from tilth.train.trackers import has_saved

_REPLACED = ("checkpoints", "log.jsonl", "model", "shards", "tensorboard", "tokenizer.json")
"""What a start writes after the recipe, whatever was there."""


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keep other processes from working on the run in `out`; the lock of a killed process is gone with it.

    Raises: TilthError when `out` cannot be written to; UsageError when another process works on it.
    """
    output_folder(out)
    with locked(out / ".lock", f"another process is working on this run, {out}; wait for it or end it"):
        yield


def holds_run(out: Path) -> bool:
    """Whether a start in `out` would overwrite the result of a run, whose checkpoints may have gone.

    A run that was killed before its first checkpoint has none yet, although its best model may be there already.
    """
    if holds_checkpoints(out / "checkpoints") or (out / "summary.json").exists():
        return True
    # Without the log nothing tells how far the run had come.
    return has_saved(out) if (out / "log.jsonl").exists() else (out / "model" / "model.safetensors").exists()


def check_run(out: Path, resume: bool, accept_changes: bool) -> None:
    """Whether `out` is as a start or a resume needs it. Raises: UsageError when it is not."""
    if accept_changes and not resume:
        raise UsageError("changes can be accepted in a run that goes on: give --accept-changes with --resume")
    if not resume and holds_checkpoints(out / "checkpoints"):
        raise UsageError(f"{out} already holds a run; go on with --resume, or choose another --out")
    if not resume and holds_run(out):
        raise UsageError(
            f"{out} already holds a run, whose checkpoints have gone; choose another --out, or remove that folder first"
        )
    others = [name for name in _REPLACED if (out / name).exists()]
    if not resume and others and not (out / RECIPE).exists():
        raise UsageError(
            f"{out} holds {', '.join(others)}, which a run would replace, but no {RECIPE}, so they are of no run: "
            "choose another --out"
        )
    if resume and not (out / RECIPE).exists():
        raise UsageError(f"{out} holds no run to resume; start one without --resume")
