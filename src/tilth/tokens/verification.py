"""Comparing files with their SHA-256 when they are first used, each once, while work goes on."""

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

AT_ONCE_BYTES = 1 << 26
"""Files up to this size, some tens of milliseconds of hashing, are compared before they are used."""


def is_small(size: int) -> bool:
    """Whether a file of so many bytes is compared before it is used."""
    return size <= AT_ONCE_BYTES


class Verification:
    """Small files are compared before they are used, larger ones in a thread meanwhile.

    So whoever uses the files calls `poll` as work goes on, and `wait` before keeping what was made of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: set[Path] = set()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def begin(self, path: Path, size: int, compare: Callable[[], None]) -> None:
        """Compare a file, unless that was begun before. Any thread may call this.

        size: in bytes. compare: raises TilthError when the file is not what it should be.
        Raises: what `compare` raises, for a small file.
        """
        with self._lock:
            if path in self._begun:
                return
            if is_small(size):
                compare()
            else:
                self._waiting.append(compare)
                if self._thread is None:
                    # A daemon, so that a run that ends does not wait for hashes that nobody needs any more.
                    self._thread = threading.Thread(target=self._work, name="verification", daemon=True)
                    self._thread.start()
            self._begun.add(path)

    def poll(self) -> None:
        """Raises: TilthError when a file compared so far is not what it should be."""
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        """Compare whatever was begun to its end. Raises: as `poll`."""
        while (thread := self._thread) is not None:
            thread.join()
        self.poll()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._failure is not None:
                    self._thread = None
                    return
                compare = self._waiting.popleft()
            try:
                compare()
            except Exception as error:
                self._failure = error
