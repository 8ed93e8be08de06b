"""The folder of a run: who may work in it, and whether there is a run in it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tilth.errors import UsageError
from tilth.files import locked, output_folder
from tilth.train.checkpoint import holds_checkpoints


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keep other processes from working on the run in `out`; the lock of a killed process is gone with it.

    Raises: TilthError when `out` cannot be written to; UsageError when another process works on it.
    """
    output_folder(out)
    with locked(out / ".lock", f"another process is working on this run, {out}; wait for it or end it"):
        yield


def check_run(out: Path, resume: bool, accept_changes: bool) -> None:
    """Whether `out` is as a start or a resume needs it. Raises: UsageError when it is not."""
    if accept_changes and not resume:
        raise UsageError("changes can be accepted in a run that goes on: give --accept-changes with --resume")
    if not resume and holds_checkpoints(out / "checkpoints"):
        raise UsageError(f"{out} already holds a run; go on with --resume, or choose another --out")
    if resume and not (out / "recipe.yaml").exists():
        raise UsageError(f"{out} holds no run to resume; start one without --resume")
