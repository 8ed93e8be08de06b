"""A MediaWiki dump cut into its pages.

In an export every `<` of a text is escaped, so `<page>` starts a page wherever it stands. The dump is cut at these
tags: a page that is damaged costs only itself, memory is bounded by one page, and after a gap reading goes on at the
next one.
"""

import codecs
from collections.abc import Iterator

from tilth.corpus.compression import Broken, Stream
from tilth.corpus.records import Rejected

MAX_PAGE = 16_000_000
"""Bytes of XML of one page. MediaWiki stores texts up to 2 MB, which escaping makes longer."""

_TOO_LARGE = f"the page is above {MAX_PAGE // 1_000_000} MB"

MAX_BETWEEN = 4_000_000
"""Bytes of what is not in a page, such as the list of namespaces at the start."""

MAX_GAPS = 1000
"""Damages of one compressed file after which the rest is given up."""

OPEN, _CLOSE, _REVISION = b"<page>", b"</page>", b"<revision>"
END = b"</mediawiki>"
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def read_pieces(stream: Stream) -> Iterator[bytes | Broken]:
    """The file in UTF-8, and a `Broken` where a part of it is missing. Raises: Broken where the rest is missing."""
    encoding = _UTF16.get(stream.head[:2])
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass") if encoding else None
    chunks = stream.chunks()
    gap: Broken | None = None
    gaps = 0
    while True:
        try:
            for chunk in chunks:
                if gap is not None:
                    yield gap
                    gap = None
                # Half a pair of UTF-16 becomes bytes that are not UTF-8, for which its page is rejected.
                yield decoder.decode(chunk).encode("utf-8", "surrogatepass") if decoder else chunk
        except Broken as broken:
            gaps += 1
            if broken.rest is None or decoder or gaps > MAX_GAPS:
                raise
            gap, chunks = gap or broken, broken.rest
            continue
        if gap is not None:
            raise gap
        return


def cut_pages(pieces: Iterator[bytes | Broken], source: str) -> Iterator[tuple[str, bytes | Rejected]]:
    """Each page from `<page>` to `</page>`, and what is between them, with its place: `page 3, byte 4,096`.

    Byte offsets are those of the decompressed file, or of the same in UTF-8 where it is UTF-16.
    """
    buffer = bytearray()
    offset = pages = scanned = 0
    in_page = lost = False  # lost: what comes before the next page has been reported

    def place() -> str:
        return f"page {pages}, byte {offset:,}" if in_page else f"after page {pages}, byte {offset:,}"

    def take(size: int) -> bytes:
        nonlocal offset, scanned
        taken = bytes(buffer[:size])
        del buffer[:size]
        offset += size
        scanned = 0
        return taken

    def reject(reason: str, detail: str) -> tuple[str, Rejected]:
        return place(), Rejected(source, place(), reason, detail)

    for piece in pieces:
        if isinstance(piece, Broken):
            detail = f"{piece.detail}; pages are missing from here to the next part that could be read"
            yield reject(piece.reason, detail)
            take(len(buffer))
            in_page, lost = False, True
            continue
        buffer += piece
        while True:
            if not in_page:
                start = buffer.find(OPEN, scanned)
                if start < 0:
                    scanned = max(0, len(buffer) - len(OPEN) + 1)
                    if len(buffer) > MAX_BETWEEN or lost:
                        if not lost:
                            yield reject("too_large", f"above {MAX_BETWEEN // 1_000_000} MB without a page")
                        take(scanned)
                        lost = True
                    break
                at = place()
                between = take(start)
                if not lost:
                    yield at, between
                in_page, lost = True, False
                pages += 1
                scanned = len(OPEN)
            end = buffer.find(_CLOSE, scanned)
            again = buffer.find(OPEN, max(scanned - len(OPEN), len(OPEN)), end if end >= 0 else len(buffer))
            if again >= 0:
                yield reject("malformed_xml", "the page is not closed before the next one starts")
                take(again)
                pages += 1
                scanned = len(OPEN)
            elif end >= 0:
                at = place()
                page = take(end + len(_CLOSE))
                if len(page) > MAX_PAGE and len(page := _last_revision(page)) > MAX_PAGE:
                    yield at, Rejected(source, at, "too_large", _TOO_LARGE)
                else:
                    yield at, page
                in_page = False
            else:
                scanned = len(buffer) - len(_CLOSE) + 1
                if len(buffer) > MAX_PAGE:
                    shorter = _last_revision(bytes(buffer))
                    if len(shorter) > MAX_PAGE:
                        yield reject("too_large", _TOO_LARGE)
                        take(scanned)
                        in_page, lost = False, True
                        continue
                    offset += len(buffer) - len(shorter)
                    buffer[:] = shorter
                    scanned = len(buffer) - len(_CLOSE) + 1
                break
    if in_page:
        yield reject("truncated", "the file ends inside this page")
    elif not bytes(buffer).rstrip().endswith(END):
        yield reject("truncated", f"the file ends without {END.decode()}")
    elif not lost:
        yield place(), bytes(buffer)


def _last_revision(page: bytes) -> bytes:
    """The page, or its start, without all revisions but the last."""
    first = page.find(_REVISION)
    return page[: max(first, 0)] + page[page.rfind(_REVISION) :] if first >= 0 else page
