"""PDF: the text of a document, as PDFium finds it, in paragraphs, without what repeats in the margins of its pages."""

import contextlib
import ctypes
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilth.corpus.compression import Stream
from tilth.corpus.formats.pages import Line, join_lines, without_margins
from tilth.corpus.formats.text import MAX_CHARACTERS, read_long
from tilth.corpus.libraries import use_library
from tilth.corpus.mark import Deadly, guarded
from tilth.corpus.reading import Reading
from tilth.corpus.records import Dropped, Item, Rejected
from tilth.corpus.rejections import WHOLE_FILE

MAX_BYTES = 256_000_000
MAX_PAGES = 50_000
MAX_MEMORY = 2 * 2**30
"""Bytes that parsing may take: contents of a page may decompress to any size."""

_TAIL = 4096
"""Bytes at the end in which a whole file says where its parts are."""

_BAD_PASSWORD = 4
_LIGATURES = dict(zip("\x1b\x1c\x1d\x1e\x1f", ("ff", "fi", "fl", "ffi", "ffl"), strict=True))
"""Of fonts in TeX's encoding T1 that do not say which characters they show."""
_LIGATURES |= {
    chr(0xFB00 + place): letters for place, letters in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))
}
_SPELLED_OUT = str.maketrans(_LIGATURES)
_LINE_ENDS = re.compile("\r\n|\ufffe")
"""U+FFFE is what PDFium gives for a hyphen at the end of a line, and for the line's end."""


def read_pdf(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """One record, or parts of a very long text. Metadata: `title`, `author`, `pages`, `pages_without_text`.

    Pages that cannot be read are rejected, each on its own. Raises: Broken, TilthError.
    """
    content = bytearray()
    for chunk in stream.chunks():
        content += chunk
        if len(content) > MAX_BYTES:
            detail = f"a PDF above {MAX_BYTES // 1_000_000} MB is not parsed"
            yield Rejected(source, WHOLE_FILE, "too_large", detail)
            return
    tail = content.rstrip(b"\0 \t\r\n")[-_TAIL:]
    if b"%%EOF" not in tail and b"startxref" not in tail:
        yield Rejected(source, WHOLE_FILE, "truncated", "the PDF ends before its table of parts")
        return
    try:
        with guarded(bytes(content)), _bounded_memory():
            items = _read(bytes(content), source, reading)
    except Deadly as deadly:
        items = [Rejected(source, WHOLE_FILE, deadly.reason, str(deadly))]
    yield from items


def _read(content: bytes, source: str, reading: Reading) -> list[Item]:
    pdfium = use_library("pypdfium2", "pdf")
    try:
        with contextlib.closing(pdfium.PdfDocument(content)) as document:
            return _read_pages(document, source, reading)
    except pdfium.PdfiumError as error:
        if error.err_code == _BAD_PASSWORD:
            return [Rejected(source, WHOLE_FILE, "encrypted", "the PDF opens with a password only")]
        return [Rejected(source, WHOLE_FILE, "corrupt", f"the PDF is damaged: {error}")]


def _read_pages(document: Any, source: str, reading: Reading) -> list[Item]:
    pdfium = use_library("pypdfium2", "pdf")
    if len(document) > MAX_PAGES:
        detail = f"{len(document):,} pages; at most {MAX_PAGES:,} are read"
        return [Rejected(source, WHOLE_FILE, "too_large", detail)]
    items: list[Item] = []
    pages: list[list[Line]] = []
    characters = 0
    pictures = False
    for number in range(len(document)):
        try:
            with contextlib.closing(document[number]) as page:
                lines = list(_lines(page))
                pictures = pictures or not lines and _has_picture(page)
        except pdfium.PdfiumError as error:
            items.append(Rejected(source, f"page {number + 1}", "corrupt", f"the page cannot be read: {error}"))
            continue
        characters += sum(len(line.text) for line in lines)
        if characters > MAX_CHARACTERS:
            detail = f"its pages give over {MAX_CHARACTERS:,} characters"
            return [Rejected(source, WHOLE_FILE, "bomb", detail)]
        pages.append(lines)
    if not any(pages):
        if pictures:
            count = "1 page" if len(document) == 1 else f"{len(document):,} pages"
            detail = f"{count}, with pictures and no text, as of a scanner; recognise the text first (OCR)"
            return [*items, Rejected(source, WHOLE_FILE, "no_text", detail)]
        return items or [Dropped("empty")]
    said = {name.lower(): value for name in ("Title", "Author") if (value := document.get_metadata_value(name).strip())}
    blank = sum(not page for page in pages)
    metadata = {**said, "pages": len(document)} | ({"pages_without_text": blank} if blank else {})
    return [*read_long(join_lines(without_margins(pages)), source, metadata), *items]


def _lines(page: Any) -> Iterator[Line]:
    """The lines of a page, in the order of its content. Raises: PdfiumError."""
    raw = use_library("pypdfium2.raw", "pdf")
    with contextlib.closing(page.get_textpage()) as texts:
        x, y = ctypes.c_double(), ctypes.c_double()
        text = texts.get_text_range()
        wide = not text.isascii() and max(text) > "\uffff"
        start = 0
        for match in [*_LINE_ENDS.finditer(text), None]:
            end = match.start() if match else len(text)
            line = text[start:end]
            first, last = start + len(line) - len(line.lstrip()), end - len(line) + len(line.rstrip()) - 1
            if first <= last:
                first, last = (
                    (len(text[:at].encode("utf-16-le", "replace")) // 2 if wide else at) for at in (first, last)
                )
                first, last = (raw.FPDFText_GetCharIndexFromTextIndex(texts, at) for at in (first, last))
                raw.FPDFText_GetCharOrigin(texts, first, x, y)
                _, _, right, _ = texts.get_charbox(last)
                size = raw.FPDFText_GetFontSize(texts, first)
                hyphen = match is not None and match[0] == "\ufffe"
                yield Line(line.strip().translate(_SPELLED_OUT), x.value, right, y.value, size, hyphen)
            start = match.end() if match else end


def _has_picture(page: Any) -> bool:
    raw = use_library("pypdfium2.raw", "pdf")
    return next(iter(page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE])), None) is not None


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let this process have at most so much more memory; PDFium ends it when there is no more."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(statm.read_text().split()[0]) * resource.getpagesize() + MAX_MEMORY
    known = [each for each in (before, hard, limit) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
