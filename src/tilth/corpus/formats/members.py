"""The decompressed bytes of a web crawl file, member by member, past members that are damaged.

A crawl file is a row of gzip members or zstd frames, one for each record. After damage reading goes on at the next
member that starts with a record; one decompressor over the whole file would stop there.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from tilth.corpus.compression import (
    DECODING_ERRORS,
    MAX_RATIO,
    MEMBER_MAGIC,
    RATIO_FROM,
    Broken,
    Stream,
    new_decoder,
    starts_record,
)

HELD = 16_000_000
"""Bytes of a member that are held until its checksum is known; those of a longer one are handed on before."""

_KEPT = 1_000_000
"""Compressed bytes of a longer member that are searched for the next one, if it proves to be damaged."""

_PIECE = {"gz": 16 * 1024, "zst": 1024}
"""Compressed bytes given to a decoder at once: at most 17 MB (gzip) or 33 MB (zstd) come out."""

_SNIFFED = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a crawl file.

    offset: in the file, of the member they are from, or of the bytes themselves where the file is not compressed.
    broken: what is wrong with the member; the bytes are those before the damage was noticed.
    """

    data: bytes
    offset: int
    broken: Broken | None = None


def read_spans(stream: Stream) -> Iterator[Span]:
    """All that can be read of the file, in order, with a `broken` span at each damaged place. Raises nothing."""
    if stream.packed:
        yield from _read_members(_Raw(stream.chunks()), stream.packed)
        return
    offset = 0
    try:
        for chunk in stream.chunks():
            yield Span(chunk, offset)
            offset += len(chunk)
    except Broken as broken:
        yield Span(b"", offset, broken)


class _Raw:
    """A window on compressed bytes, addressed by their offset in the file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._data = bytearray()
        self.base = 0
        self.broken: Broken | None = None

    def peek(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on: `size` of them unless the file ends before."""
        while self.base + len(self._data) < offset + size and self._more():
            pass
        return bytes(self._data[offset - self.base : offset - self.base + size])

    def forget(self, offset: int) -> None:
        """Let go of what lies before `offset`."""
        del self._data[: max(0, offset - self.base)]
        self.base = max(self.base, offset)

    def find(self, magic: bytes, offset: int) -> int | None:
        """Where `magic` is next, from `offset` on."""
        while True:
            found = self._data.find(magic, offset - self.base)
            if found >= 0:
                return self.base + found
            offset = max(offset, self.base + len(self._data) - len(magic) + 1)
            self.forget(offset)
            if not self._more():
                return None

    def _more(self) -> bool:
        try:
            chunk = next(self._chunks, None)
        except Broken as broken:
            self.broken, chunk = broken, None
        self._data += chunk or b""
        return chunk is not None


def _read_members(raw: _Raw, kind: str) -> Iterator[Span]:
    start = 0
    while True:
        while (padding := raw.peek(start, _SNIFFED)) and not padding.strip(b"\0"):
            start += len(padding)
            raw.forget(start)
        if not padding:
            break
        start += len(padding) - len(padding.lstrip(b"\0"))
        end, last = yield from _read_member(raw, kind, start)
        if last.broken is None:
            yield last
            start = end
            raw.forget(start)
            continue
        following = _find_member(raw, kind, max(start + 1, raw.base))
        if following is not None and last.broken.reason == "truncated":
            last = Span(last.data, start, Broken("corrupt", f"the {kind} data does not end where the next record is"))
        yield last
        if following is None:
            return
        start = following
    if raw.broken:
        yield Span(b"", start, raw.broken)


def _read_member(raw: _Raw, kind: str, start: int) -> Generator[Span, None, tuple[int, Span]]:
    """Yields what cannot be held of the member at `start`; returns where it ends, and the rest of it as a span."""
    decoder = new_decoder(kind)
    held = bytearray()
    at, size = start, 0
    while not decoder.eof:
        piece = raw.peek(at, _PIECE[kind])
        if not piece:
            cut = Broken("truncated", f"the {kind} data ends before its end mark")
            return at, Span(bytes(held), start, raw.broken or cut)
        try:
            data = decoder.decompress(piece)
        except DECODING_ERRORS as error:
            return at, Span(bytes(held), start, Broken("corrupt", f"the {kind} data is damaged: {error}"))
        at += len(piece)
        held += data
        size += len(data)
        if size > max(RATIO_FROM, MAX_RATIO * (at - start)):
            return at, Span(b"", start, Broken("bomb", f"decompresses to over {MAX_RATIO} times its size"))
        if max(len(held), at - max(start, raw.base)) > HELD:
            yield Span(bytes(held), start)
            held.clear()
            raw.forget(at - _KEPT)
    return at - len(decoder.unused_data), Span(bytes(held), start)


def _find_member(raw: _Raw, kind: str, offset: int) -> int | None:
    """Where the next member is that starts with a record."""
    at = raw.find(MEMBER_MAGIC[kind], offset)
    while at is not None and starts_record(raw.peek(at, _SNIFFED), kind) is None:
        at = raw.find(MEMBER_MAGIC[kind], at + 1)
    return at
