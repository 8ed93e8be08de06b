"""Lines of a byte stream, numbered, in memory bounded by the longest line that is allowed."""

from collections.abc import Iterable, Iterator

BOM = b"\xef\xbb\xbf"


def read_lines(chunks: Iterable[bytes], limit: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Each line as (number from 1, byte offset, bytes with the line end), a BOM at the start taken off.

    The bytes of a line longer than `limit` are None; they were never held. When `chunks` breaks, the incomplete last
    line is not yielded.
    """
    number, offset, start, too_long = 1, 0, bytearray(), False
    length = 0
    for chunk in chunks:
        for piece in _split(chunk):
            length += len(piece)
            too_long = too_long or length > limit
            if too_long:
                start.clear()
            else:
                start += piece
            if piece.endswith(b"\n"):
                yield number, offset, None if too_long else _line(start, offset)
                number, offset, length, too_long = number + 1, offset + length, 0, False
                start.clear()
    if length:
        yield number, offset, None if too_long else _line(start, offset)


def _split(chunk: bytes) -> Iterator[bytes]:
    """The chunk cut after each newline; a lone carriage return ends no line."""
    *lines, last = chunk.split(b"\n")
    yield from (line + b"\n" for line in lines)
    if last:
        yield last


def _line(start: bytearray, offset: int) -> bytes:
    return bytes(start).removeprefix(BOM) if offset == 0 else bytes(start)


def excerpt(line: bytes | str) -> str:
    """The start of an offending line, for people."""
    text = line.decode("utf-8", "backslashreplace") if isinstance(line, bytes) else line
    text = text.strip()
    return text if len(text) <= 120 else text[:117] + "..."
