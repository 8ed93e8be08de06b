"""Several processes on this machine, as `torchrun` starts them."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence

from tilth.errors import AnotherProcessFailed, TilthError, UsageError

SECONDS_TO_SAVE = 600
"""How long processes that are asked to stop have to save. torchrun's own 30 seconds are too few for a large model."""


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run the `tilth` command with these arguments in `processes` processes, and wait until it is done.

    Their result is left to the caller to print.
    Raises: UsageError under torchrun; AnotherProcessFailed, with the status
    to exit with, when a signal ended them or one failed, which they tell themselves; TilthError when one was killed.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError("torchrun has already started the processes: leave out --processes")
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_SAVE))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        with _without_output(), _without_logging(), _same_signal_handlers():
            run.main(["--standalone", f"--nproc-per-node={processes}", "-m", "tilth", *arguments])
    except SignalException as error:
        raise AnotherProcessFailed(128 + error.sigval) from None
    except ChildFailedError as error:
        failure = min(error.failures.values(), key=lambda failure: failure.timestamp)
        if failure.exitcode < 0:
            raise TilthError(
                f"process {failure.local_rank} was ended by signal {-failure.exitcode} "
                "(9 is often a lack of memory); the same command with --resume goes on from the last checkpoint"
            ) from None
        raise AnotherProcessFailed(failure.exitcode) from None


@contextlib.contextmanager
def _without_output() -> Iterator[None]:
    """Let the processes started here inherit no standard output."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _without_logging() -> Iterator[None]:
    """A failure is told once, in our own words, and not by torchrun too."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _same_signal_handlers() -> Iterator[None]:
    """torchrun sets its own handlers and leaves them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
