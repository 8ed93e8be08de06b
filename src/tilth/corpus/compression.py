"""Byte streams that are decompressed as they are read, told by their first bytes, in bounded memory.

A stream is an iterator of chunks. What breaks while reading (`Broken`) is raised only after every byte before the break
has been handed on, so that a reader of lines keeps the complete ones.
"""

import bz2
import lzma
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

CHUNK = 256 * 1024
HEAD = 64 * 1024
PIECE = 1024
"""Compressed bytes given to a decoder at once. The worst format, zstd, makes at most 33 MB of them."""

MAX_RATIO = 1000
RATIO_FROM = 16_000_000
"""Decompressed bytes below which the ratio does not matter: a small file of blanks is no bomb."""

MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
# zstd's frames that a reader skips, as pzstd puts before others.
MAGIC |= {bytes([number]) + b"\x2a\x4d\x18": "zst" for number in range(0x50, 0x60)}
SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".tgz", ".tbz2", ".txz", ".tzst")

BZ2_BLOCK = 1_000_000
"""Compressed bytes of the largest block of bz2, and some more: damage is found at the end of its block."""

_BZ2_START = re.compile(rb"BZh[1-9]1AY&SY")
_BZ2_START_SIZE = 10

DECODING_ERRORS = (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError)

_DECODERS: dict[str, Callable[[], Any]] = {
    "gz": lambda: zlib.decompressobj(wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=512_000_000),
    "zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


CRAWL_START = re.compile(rb"WARC/\d|filedesc:|https?:[^\s]{1,2000} [\d.]{7,15} \d{14} ")
"""How a web crawl file, or a record in one, begins."""

MEMBER_MAGIC = {"gz": b"\x1f\x8b\x08", "zst": b"\x28\xb5\x2f\xfd"}
"""Compressions of which a crawl file holds one member for each record."""

_SNIFFED = 4096
"""Compressed bytes of a member that tell whether a record starts in it."""


class Broken(Exception):
    """A stream that cannot be read further. `reason` is truncated, corrupt, bomb or unreadable.

    rest: what can be read again behind a damage, with a part missing between; it may turn out to be nothing.
    """

    def __init__(self, reason: str, detail: str, rest: Iterator[bytes] | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.rest = rest


class Stream:
    """A stream whose first bytes can be looked at before it is read.

    head: up to 64 KB from the start. path: the file that holds exactly these bytes, where there is one.
    packed: for a web crawl file gz or zst, if it is compressed; then `head` is decompressed and `chunks` are not, since
    a damaged member is to cost its own record and not all that follow.
    """

    def __init__(self, chunks: Iterator[bytes], path: Path | None = None) -> None:
        self.path = path
        self.packed: str | None = None
        self._chunks = chunks
        self._broken: Broken | None = None
        self._whole = True
        head = bytearray()
        try:
            for chunk in chunks:
                head += chunk
                if len(head) > HEAD:
                    self._whole = False
                    break
        except Broken as broken:
            self._broken = broken
        self._start = bytes(head)
        self.head = self._start[:HEAD]

    def chunks(self) -> Iterator[bytes]:
        """All bytes from the start; can be read once. Raises: Broken after the last byte that could be read."""
        if self._start:
            yield self._start
        if self._broken:
            raise self._broken
        if not self._whole:
            yield from self._chunks

    def spool(self) -> BinaryIO:
        """The whole content as a file to seek in, for formats that are read from their end. Raises: Broken."""
        if self.path:
            return open(self.path, "rb")
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        try:
            for chunk in self.chunks():
                file.write(chunk)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file


def file_chunks(file: BinaryIO, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The bytes of an open file, in chunks; `advance` is told the size of each. Raises: Broken if the device fails."""
    try:
        while chunk := file.read(CHUNK):
            advance(len(chunk))
            yield chunk
    except OSError as error:
        raise Broken("unreadable", f"reading failed: {error.strerror or error}") from None


def compression_of(head: bytes) -> str | None:
    """gz, bz2, xz or zst by the first bytes, or None."""
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)


def open_stream(chunks: Iterator[bytes], size: int, path: Path | None = None) -> Stream:
    """Decompress `chunks` if they are compressed. size: how many bytes they are, which bounds what may come out."""
    stream = Stream(chunks, path)
    for packed in MEMBER_MAGIC:
        if start := _crawl_start(stream.head, packed):
            stream.packed, stream.head = packed, start
            return stream
    kind = compression_of(stream.head)
    return stream if kind is None else Stream(_bounded(_decompress(stream.chunks(), kind), size))


def _crawl_start(head: bytes, kind: str) -> bytes | None:
    """The first decompressed bytes of a crawl file; of a later member when the first is damaged, its magic included."""
    magic = MEMBER_MAGIC[kind]
    if sum(a == b for a, b in zip(head, magic, strict=False)) < len(magic) - 1:
        return None
    at = 0
    while at >= 0:
        if start := starts_record(head[at : at + _SNIFFED], kind):
            return start
        at = head.find(magic, at + 1)
    return None


def starts_record(data: bytes, kind: str) -> bytes | None:
    """What the member that begins with `data` begins with, if that is a record of a web crawl."""
    try:
        start = _DECODERS[kind]().decompress(data[:_SNIFFED])
    except (zlib.error, zstandard.ZstdError):
        return None
    return start if CRAWL_START.match(start) else None


def new_decoder(kind: str) -> Any:
    """A decompressor of one member, with `decompress`, `eof` and `unused_data`."""
    return _DECODERS[kind]()


def check_ratio(total: int, size: int) -> None:
    """total: what has come out of `size` bytes. Raises: Broken when that is no honest compression."""
    if total > max(RATIO_FROM, MAX_RATIO * size):
        raise Broken("bomb", f"decompresses to over {MAX_RATIO} times its {size:,} bytes")


def _bounded(chunks: Iterator[bytes], compressed_size: int, total: int = 0) -> Iterator[bytes]:
    try:
        for chunk in chunks:
            total += len(chunk)
            check_ratio(total, compressed_size)
            yield chunk
    except Broken as broken:
        broken.rest = broken.rest and _bounded(broken.rest, compressed_size, total)
        raise


def _decompress(chunks: Iterator[bytes], kind: str) -> Iterator[bytes]:
    """Decompressed chunks; members that follow one another, and zero padding between them, are one stream."""
    decoder = _DECODERS[kind]()
    gathered = bytearray()
    member = bytearray()  # of bz2: the compressed bytes since its start, where the next may hide after a damage
    chunk, start = b"", 0
    broken: Broken | None = None
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), PIECE):
                data = chunk[start : start + PIECE]
                while data:
                    if decoder.eof:
                        data = data.lstrip(b"\0")
                        if not data:
                            break
                        decoder = _DECODERS[kind]()
                        member.clear()
                    if kind == "bz2":
                        member += data
                        del member[: -2 * BZ2_BLOCK]
                    gathered += decoder.decompress(data)
                    data = decoder.unused_data if decoder.eof else b""
                if len(gathered) >= CHUNK:
                    yield bytes(gathered)
                    gathered.clear()
        if not decoder.eof:
            broken = Broken("truncated", f"the {kind} data ends before its end mark")
    except Broken as error:
        broken = error
    except DECODING_ERRORS as error:
        rest = _next_bz2(bytes(member[1:]), chain([chunk[start + PIECE :]], chunks)) if kind == "bz2" else None
        broken = Broken("corrupt", f"the {kind} data is damaged: {error}", rest)
    if gathered:
        yield bytes(gathered)
    if broken:
        raise broken


def _next_bz2(member: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompressed chunks from the next bz2 stream on; a dump of Wikipedia has one for every hundred pages.

    member: the start of the damaged stream, without its own first byte.
    """
    buffer = member
    for chunk in chain([b""], chunks):
        buffer += chunk
        if found := _BZ2_START.search(buffer):
            yield from _decompress(chain([buffer[found.start() :]], chunks), "bz2")
            return
        buffer = buffer[-_BZ2_START_SIZE:]
