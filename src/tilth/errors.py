"""Failures that a person can act on. The command line prints them without a traceback and exits with `exit_status`."""

import importlib
import importlib.util
from typing import Any


class TilthError(Exception):
    """Something went wrong that the user can mend. The message says what, where, and what to do."""

    exit_status = 1


class UsageError(TilthError):
    """The command or the recipe is wrong: nothing was started."""

    exit_status = 2


class Interrupted(TilthError):
    """The work was stopped by a signal after saving what it had; `exit_status` is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class Terminated(Interrupted):
    """The work was stopped by a signal as it was; what is left of it depends on the verb."""


class AnotherProcessFailed(TilthError):
    """This process of several ends because another one failed, which has said why: there is nothing to tell."""

    def __init__(self, exit_status: int) -> None:
        super().__init__("another process failed")
        self.exit_status = exit_status


def import_extra(module: str, extra: str) -> Any:
    """Import an optional dependency, or say which extra brings it.

    Raises: TilthError naming the extra when the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _not_installed(module, extra) from error


def check_extra(module: str, extra: str) -> None:
    """Look whether an optional dependency is there, without importing it. Raises: as `import_extra`."""
    if importlib.util.find_spec(module) is None:
        raise _not_installed(module, extra)


def _not_installed(module: str, extra: str) -> TilthError:
    return TilthError(f"{module.partition('.')[0]} is not installed; run: pip install 'tilth[{extra}]'")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or PyTorch ran out of memory; PyTorch is told by name and words, because it may not be loaded."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)
        or "could not create a primitive" in str(error)  # oneDNN's words when its scratch memory is not there
    )
