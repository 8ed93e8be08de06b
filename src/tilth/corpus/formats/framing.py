"""Where the records of a web crawl file begin and end, whatever is broken between them.

A record is a header that says how long its content is, and the content. A record whose length is wrong is left out, and
reading goes on at the next place that looks like the start of a record.
"""

import base64
import hashlib
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from tilth.corpus.compression import Broken, Stream
from tilth.corpus.formats.members import Span, read_spans
from tilth.corpus.records import Rejected

MAX_RECORD = 16_000_000
"""Bytes of the longest record that is held; a longer one is passed over."""

MAX_HEADER = 64 * 1024

_AFTER = 16 * 1024
"""Bytes looked at behind a record, and where spans meet: the start of any next record is shorter."""

_BLANK = b"\r\n\0"


@dataclass(frozen=True)
class Layout:
    """How records of a kind of file are laid out.

    start: what a record starts with. next_start: the same after a line end. header_end: what ends its header.
    length: the length of the content in the header, as the only group. after: what follows the content, if the length
    is right.
    """

    start: re.Pattern[bytes]
    next_start: re.Pattern[bytes]
    header_end: re.Pattern[bytes]
    length: re.Pattern[bytes]
    after: re.Pattern[bytes]


_WARC_START = rb"WARC/[01]\.\d{1,2}\r?\n[A-Za-z][\w-]*:"
_ARC_START = (
    rb"[a-z][a-z0-9+.-]{0,20}:[^\n]{1,8000}? \S{1,64} \d{14} \S{1,200}(?: [^\s]{1,1000}){0,5} \d{1,18}\r?\n"  # v1, v2
)

WARC = Layout(
    start=re.compile(_WARC_START),
    next_start=re.compile(rb"\n(?=" + _WARC_START + rb")"),
    header_end=re.compile(rb"\r?\n\r?\n"),
    length=re.compile(rb"\nContent-Length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?\n", re.IGNORECASE),
    after=re.compile(rb"\r?\n\r?\n|[\r\n\0]*(?:\Z|" + _WARC_START + rb")"),
)
"""ISO 28500."""

ARC = Layout(
    start=re.compile(_ARC_START),
    next_start=re.compile(rb"\n(?=" + _ARC_START + rb")"),
    header_end=re.compile(rb"\n"),
    length=re.compile(rb" (\d{1,18})\r?\n"),
    after=re.compile(rb"\r?\n|\0*\Z|" + _ARC_START),
)
"""The Internet Archive's format before WARC, versions 1 and 2."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A record as it lies in the file. place: where, in words. at: the same as short as can be, for an id."""

    header: bytes
    content: bytes
    place: str
    at: str


def read_frames(stream: Stream, source: str, layout: Layout) -> Iterator[Frame | Rejected]:
    """Every whole record, in order; each damaged place is rejected, with the byte it starts at. Raises nothing."""
    window = _Window(stream)
    first = True
    while True:
        window.skip_blank()
        if window.data:
            place, at = window.place, window.at
            try:
                yield Frame(*_next_frame(window, layout), place, at)
            except Broken as broken:
                nothing = first and not (window.data or window.more() or window.broken)
                yield Rejected(source, place, "wrong_format" if nothing else broken.reason, broken.detail)
            first = False
        elif window.broken:
            if not window.reported:
                yield Rejected(source, window.place, window.broken.reason, window.broken.detail)
            window.pass_break()
        else:
            return


def _next_frame(window: "_Window", layout: Layout) -> tuple[bytes, bytes]:
    """Take a record's header and content. Raises: Broken, with the window moved on to where the next may start."""
    end = None
    while (end := layout.header_end.search(window.data, 0, MAX_HEADER)) is None and len(window.data) < MAX_HEADER:
        if not window.more():
            break
    if not layout.start.match(window.data):
        size, at_record = window.skip(layout)
        raise (None if at_record else window.broken) or Broken(
            "corrupt", f"no record starts here; {size:,} bytes were passed over"
        )
    length = layout.length.search(window.data, 0, end.end()) if end else None
    if end is None or length is None:
        what = "has no end" if end is None else "does not say how long the record is"
        cut = end is None and len(window.data) < MAX_HEADER
        _, at_record = window.skip(layout)
        if cut and not at_record:
            raise window.broken or Broken("truncated", "the file ends within the header of the record")
        raise Broken("malformed_header", f"the header {what}")
    start, size = end.end(), int(length[1])
    if size > MAX_RECORD:
        window.drop(start)
        skipped, at_record = window.skip(layout, size)
        if skipped == size:
            raise Broken("too_large", f"the record has {size:,} bytes; at most {MAX_RECORD:,} are read")
        if at_record:
            raise Broken("wrong_length", f"{size:,} bytes are said; the next record starts after {skipped:,}")
        raise window.broken or Broken("truncated", f"{size:,} bytes are said; the file ends after {skipped:,}")
    whole = start + size
    while len(window.data) < whole + _AFTER and window.more():
        pass
    if len(window.data) < whole or not layout.after.match(window.data, whole, whole + _AFTER):
        _end_wrongly(window, layout, start, size)
    header, content = bytes(window.data[:start]), bytes(window.data[start:whole])
    doubtful = window.is_doubtful(whole)
    window.drop(whole)
    if doubtful:
        window.reported = True
        if window.broken and not _is_proven(header, content):
            raise window.broken
    return header, content


def _end_wrongly(window: "_Window", layout: Layout, start: int, size: int) -> NoReturn:
    """Pass over a record that does not end where it says. Raises: Broken, always."""
    ends_within = len(window.data) - start < size
    passed, at_record = window.skip(layout)
    if at_record:
        raise Broken("wrong_length", f"{size:,} bytes are said; the next record starts after {passed - start:,}")
    if ends_within:
        raise window.broken or Broken("truncated", f"{size:,} bytes are said; the file ends after {passed - start:,}")
    raise window.broken or Broken("wrong_length", f"{size:,} bytes are said; what follows them is no record")


def _is_proven(header: bytes, content: bytes) -> bool:
    """Whether the record's own digest matches its content."""
    said = re.search(rb"\nWARC-Block-Digest:\s*sha1:([A-Z2-7]{32})\s", header)
    return bool(said) and base64.b32encode(hashlib.sha1(content).digest()) == said[1]


class _Window:
    """The bytes from a record's start on, up to a break or as far as they were asked for.

    broken: what breaks the bytes after `data`, once it is reached. reported: a rejection has told of it.
    """

    def __init__(self, stream: Stream) -> None:
        self._spans = read_spans(stream)
        self._marks: deque[tuple[int, int, bool]] = deque()
        self._position = 0
        self._packed = stream.packed is not None
        self.data = bytearray()
        self.broken: Broken | None = None
        self.reported = False

    def more(self) -> bool:
        """Get more data; False at a break and at the end."""
        while self.broken is None and (span := next(self._spans, None)) is not None:
            self._add(span)
            if span.data:
                return True
        return False

    def _add(self, span: Span) -> None:
        doubtful = span.broken is not None and span.broken.reason != "truncated"
        if not self._marks or self._marks[-1][1:] != (span.offset, doubtful):
            self._marks.append((self._position + len(self.data), span.offset, doubtful))
        self.data += span.data
        self.drop(0)
        self.broken, self.reported = span.broken, False

    def pass_break(self) -> None:
        """Go on behind the break."""
        self.broken = None
        self.reported = False

    def drop(self, size: int) -> None:
        """Let go of the first bytes."""
        del self.data[:size]
        self._position += size
        while len(self._marks) > 1 and self._marks[1][0] <= self._position:
            self._marks.popleft()

    def skip_blank(self) -> None:
        """Pass over line ends and NUL bytes."""
        while True:
            self.drop(len(self.data) - len(self.data.lstrip(_BLANK)))
            if self.data or not self.more():
                return

    def skip(self, layout: Layout, size: int | None = None) -> tuple[int, bool]:
        """Pass over `size` bytes, but not past the next start of a record, a break or the end.

        Returns how many bytes were passed over, and whether a record starts behind them.
        """
        skipped = 0
        while True:
            found = layout.next_start.search(self.data)
            limit = len(self.data) if size is None else size - skipped
            if found and found.end() <= limit:
                self.drop(found.end())
                return skipped + found.end(), True
            if limit < len(self.data) or (size is not None and limit == 0):
                self.drop(limit)
                return skipped + limit, False
            passed = max(0, len(self.data) - _AFTER)
            self.drop(passed)
            skipped += passed
            if not self.more():
                passed = len(self.data)
                self.drop(passed)
                self.reported = self.broken is not None
                return skipped + passed, False

    def is_doubtful(self, size: int) -> bool:
        """Whether some of the first `size` bytes are from a damaged member."""
        return any(doubtful for position, _, doubtful in self._marks if position < self._position + size)

    def _locate(self) -> tuple[int, int]:
        """The offset in the file of what the data begin in, and how far into that they begin."""
        start, offset, _ = self._marks[0] if self._marks else (0, 0, False)
        inside = self._position - start
        return (offset, inside) if self._packed else (offset + inside, 0)

    @property
    def place(self) -> str:
        """Where the data begin, in words."""
        offset, inside = self._locate()
        return f"byte {offset:,}" + (f", {inside:,} bytes into what is compressed there" if inside else "")

    @property
    def at(self) -> str:
        """Where the data begin, as `offset` or `offset+bytes inside`."""
        offset, inside = self._locate()
        return f"{offset}+{inside}" if inside else str(offset)
