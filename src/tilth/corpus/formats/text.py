"""Plain text and Markdown: a file is a document; a large one is cut into parts as it is read."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tilth.corpus.compression import Stream
from tilth.corpus.reading import PLAIN, Reading
from tilth.corpus.records import Item, Record, Rejected
from tilth.corpus.rejections import WHOLE_FILE

LARGE = 4_000_000
"""Bytes past which a file is cut."""

PART = 256 * 1024
"""Bytes of a part, at most: small against 5 % of a large file, so that validation can take whole parts."""

MAX_CHARACTERS = 64_000_000
"""Of a document in pages or chapters; what gives more repeats itself."""

_BOUNDARIES = (re.compile(rb".*\n\r?\n", re.DOTALL), re.compile(rb".*\n", re.DOTALL), re.compile(rb".*\s", re.DOTALL))


def read_text(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """One record, or parts `source#1`, `source#2`, ... of a file above 4 MB, in memory bounded by that.

    Raises: Broken after the complete parts.
    """
    buffer = bytearray()
    part = offset = 0
    for chunk in stream.chunks():
        buffer += chunk
        while len(buffer) > (LARGE if part == 0 else PART):
            size = _cut(bytes(buffer[:PART]))
            part += 1
            yield _record(bytes(buffer[:size]), source, part, offset)
            del buffer[:size]
            offset += size
    yield _record(bytes(buffer), source, part + 1 if part else 0, offset)


def read_long(text: str, source: str, metadata: dict[str, Any]) -> Iterator[Item]:
    """A text of another format as `read_text` would give it: one record, or parts; each with the metadata."""
    for item in read_text(Stream(iter([text.encode("utf-8", "surrogatepass")])), source, PLAIN):
        yield replace(item, metadata=metadata | item.metadata) if isinstance(item, Record) else item


def is_part(record: Record) -> bool:
    """Whether a record is a part of a text that was cut."""
    return record.id == f"{record.source}#{record.metadata.get('part')}"


def _cut(window: bytes) -> int:
    """Where to cut: after the last blank line of the second half, or newline, or space; else between characters."""
    half = len(window) // 2
    for boundary in _BOUNDARIES:
        if match := boundary.match(window, half):
            return match.end()
    size = len(window)
    while size > half and window[size - 1] & 0xC0 == 0x80:
        size -= 1
    return size - 1 if size > half and window[size - 1] >= 0xC0 else len(window)


def _record(content: bytes, source: str, part: int, offset: int) -> Item:
    name = f"{source}#{part}" if part else source
    try:
        return Record(name, content.decode("utf-8"), source, {"part": part} if part else {})
    except UnicodeDecodeError as error:
        where = f"byte {offset + error.start:,} is not UTF-8 ({error.reason}); convert the file to UTF-8"
        return Rejected(source, f"part {part}" if part else WHOLE_FILE, "invalid_utf8", where)
