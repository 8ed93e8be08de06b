"""Where a worker is in its work: what its parent reads while it works, and after it died.

Some input makes a parser in C hang or crash, which no exception can tell of. So a worker writes down what it is about
to do; a time-out that needs no cooperation ends it; and the parent, which finds the mark, has the record set aside.
"""

import contextlib
import faulthandler
import hashlib
import math
import mmap
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tilth.corpus.records import Item, Rejected

_FORMAT = struct.Struct("<QQQ16sd")
_NOTHING = bytes(16)
_END = 8192


class Deadly(Exception):
    """The record about to be read has ended workers before. `reason`: timed_out or worker_died."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the process that read it {'hung' if reason == 'timed_out' else 'died'}, twice")
        self.reason = reason


class Unguarded(Exception):
    """A record that may hang or crash its parser is to be read by a worker: this process cannot be ended for it."""


class Mark:
    """The mark of one worker at one task, a small file. Inside `with mark:` the functions below write to it.

    deadly: digests of records that are not to be read again, each with its reason. timeout: end this process when no
    step is made for so many seconds; None for a process that has other things to do, where guarded records are refused.
    careful: a worker has died at the task before, so that every step is marked. told(bytes) is called with what was
    read so far.
    """

    def __init__(
        self,
        path: Path,
        deadly: Mapping[str, str],
        timeout: float | None = None,
        careful: bool = False,
        told: Callable[[int], None] | None = None,
    ) -> None:
        self._deadly = deadly
        self._timeout = timeout
        self.careful = careful
        self._told = told
        self._read = self._file = self._items = 0
        self._armed = -math.inf
        path.write_bytes(bytes(_FORMAT.size))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FORMAT.size)

    def __enter__(self) -> "Mark":
        global _current
        _current = self
        self._write(_NOTHING)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        global _current
        _current = None
        faulthandler.cancel_dump_traceback_later()
        self._map.close()

    def start_file(self, index: int) -> None:
        self._file, self._items = index, 0
        self._write(_NOTHING)

    def note_item(self) -> None:
        self._items += 1
        if self.careful:
            self._write(_NOTHING)

    def advance(self, size: int) -> None:
        self._read += size
        self._write(_NOTHING)
        if self._told:
            self._told(self._read)

    @contextlib.contextmanager
    def guard(self, content: bytes) -> Iterator[None]:
        if self._timeout is None:
            raise Unguarded
        digest = _digest(content)
        if reason := self._deadly.get(digest.hex()):
            raise Deadly(reason)
        self._write(digest)
        try:
            yield
        finally:  # a record that is refused is done with, too, and not to blame for what follows
            self._write(_NOTHING)

    def _write(self, digest: bytes) -> None:
        if self._timeout and time.monotonic() - self._armed > self._timeout / 100:  # it starts a thread each time
            self._armed = time.monotonic()
            faulthandler.dump_traceback_later(self._timeout, exit=True)
        _FORMAT.pack_into(self._map, 0, self._read, self._file, self._items, digest, time.time())


def _digest(content: bytes) -> bytes:
    """What a record is known by: its length and its two ends, so that a page of megabytes costs no time."""
    ends = content if len(content) <= 2 * _END else content[:_END] + content[-_END:]
    return hashlib.blake2b(b"%d:" % len(content) + ends, digest_size=16).digest()


_current: Mark | None = None


def start_file(index: int) -> None:
    """The task's file number `index` is read from here on."""
    if _current:
        _current.start_file(index)


def note_item() -> None:
    """What the file gave out last is dealt with; it is asked for the next."""
    if _current:
        _current.note_item()


def advance(size: int) -> None:
    """`size` more bytes were read."""
    if _current:
        _current.advance(size)


@contextlib.contextmanager
def guarded(content: bytes) -> Iterator[None]:
    """Work on one record that may hang or crash its parser.

    Raises: Deadly when it has done so twice; Unguarded where no worker does this.
    """
    with _current.guard(content) if _current else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def suspected(content: bytes) -> Iterator[None]:
    """As `guarded`, of a record that is cheap to read: only once a worker has died at the task."""
    with guarded(content) if _current and _current.careful else contextlib.nullcontext():
        yield


def read_alone(content: bytes, source: str, where: str, read: Callable[[], Item]) -> Item:
    """What `read` makes of one record of a source; a record that has ended workers twice is rejected unread."""
    try:
        with suspected(content):
            return read()
    except Deadly as deadly:
        return Rejected(source, where, deadly.reason, str(deadly))


@dataclass(frozen=True)
class Step:
    """What a mark says: bytes read so far, the number of the file, the digest of the record where one is guarded.

    items: how many things the file had given out. began: when the step did, in seconds since 1970.
    """

    read: int = 0
    file: int = 0
    items: int = 0
    digest: str | None = None
    began: float = 0.0


def read_mark(path: Path) -> Step:
    """The last step that a worker has begun; of none, where it has not begun."""
    try:
        read, file, items, digest, began = _FORMAT.unpack(path.read_bytes())
    except (OSError, struct.error):
        return Step()
    return Step(read, file, items, None if digest == _NOTHING else digest.hex(), began)
