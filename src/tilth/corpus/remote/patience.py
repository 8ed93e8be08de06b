"""Failures that pass: tried again after waits that double, as often as it helps."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tilth.corpus.compression import Broken
from tilth.corpus.mark import advance

TRIES = 6
"""Attempts in a row that may fail."""

FIRST_WAIT = 1.0
"""Seconds before the second attempt; each further wait is twice as long."""

LONGEST_WAIT = 900.0
"""Seconds past which a server that asks to wait is given up."""

FORGIVEN_AFTER = 1_000_000
"""Bytes after which earlier failures no longer count: so a poor line is read to its end, and a dead one is not."""

CALL_SECONDS = 300.0
"""How long one call of a file system's library may take."""

Result = TypeVar("Result")


class Passing(Exception):
    """A failure that may pass. wait: seconds that the server asked for."""

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait


class Patience:
    """How often the reading of one file has failed."""

    def __init__(self) -> None:
        self._failed = self._read = 0

    def note_read(self, size: int) -> None:
        """`size` more bytes came."""
        self._read += size
        if self._read >= FORGIVEN_AFTER:
            self._failed = self._read = 0

    def wait_after(self, failure: Passing) -> None:
        """Wait before the next attempt. Raises: Broken when it is not worth one."""
        self._failed += 1
        if self._failed >= TRIES:
            raise Broken("unreadable", f"{failure}, {self._failed} times in a row") from None
        if failure.wait is not None and failure.wait > LONGEST_WAIT:
            raise Broken("unreadable", f"{failure}, and asks to come back in {failure.wait:,.0f} seconds") from None
        pause(FIRST_WAIT * 2 ** (self._failed - 1) if failure.wait is None else failure.wait)


def pause(seconds: float) -> None:
    """Wait, and let the worker's parent know that it does not hang."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        advance(0)
        time.sleep(min(left, 1.0))


def within_time(call: Callable[[], Result]) -> Result:
    """What `call` returns or raises. It runs aside, where a hang of it can be left.

    Raises: Passing when it takes longer than five minutes.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    end = time.monotonic() + CALL_SECONDS
    while thread.is_alive() and time.monotonic() < end:
        advance(0)
        thread.join(1.0)
    if errors:
        raise errors[0]
    if not results:
        raise Passing(f"no answer within {CALL_SECONDS:.0f} seconds")
    return results[0]
