"""What to do about a run folder that cannot be written to."""

from pathlib import Path

from tilth.errors import TilthError
from tilth.files import reason


def unwritable(what: str, path: Path, run: Path, error: Exception) -> TilthError:
    """The failure to write something of a run, in words. what: such as "the log", whose `path` is named after it."""
    if not run.is_dir():
        why, remedy = f"{run} is no longer there", "put it back and go on with --resume, or start the run again"
    else:
        why, remedy = reason(error, path), "free some space or mend the folder, then go on with --resume"
    return TilthError(f"cannot write {what} {path}: {why}; {remedy}")
