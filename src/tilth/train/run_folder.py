"""The folder of a run: who may work in it, and whether there is a run in it."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tilth.errors import UsageError
from tilth.files import output_folder
from tilth.train.checkpoint import holds_checkpoints


@contextlib.contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keep other processes from working on the run in `out`; the lock of a killed process is gone with it.

    Where the file system has no locks, that is said, and the block goes on.
    Raises: TilthError when `out` cannot be written to; UsageError when another process works on it.
    """
    output_folder(out)
    path = out / ".lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another process is working on this run, {out}; wait for it or end it, or choose another --out"
        ) from None
    except (OSError, NotImplementedError) as error:
        print(f"cannot lock {out} ({error}): let no other process work on this run", file=sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if lock.is_locked:  # so that whoever has opened the file to wait for it finds it gone, and makes another
                path.unlink(missing_ok=True)
            lock.release()


def check_run(out: Path, resume: bool, accept_changes: bool) -> None:
    """Whether `out` is as a start or a resume needs it. Raises: UsageError when it is not."""
    if accept_changes and not resume:
        raise UsageError("changes can be accepted in a run that goes on: give --accept-changes with --resume")
    if not resume and holds_checkpoints(out / "checkpoints"):
        raise UsageError(f"{out} already holds a run; go on with --resume, or choose another --out")
    if resume and not (out / "recipe.yaml").exists():
        raise UsageError(f"{out} holds no run to resume; start one without --resume")
