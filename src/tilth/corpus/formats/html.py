"""HTML: the main content of a page as plain text."""

import re
from collections.abc import Iterator

from tilth.corpus.compression import Stream
from tilth.corpus.records import Item, Record, Rejected
from tilth.errors import import_extra

MAX_BYTES = 2_000_000
MAX_DEPTH = 500
"""Nesting past which the whole page's text is taken: finding the main content is quadratic in it (20,000 take 10 s)."""

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_NESTING = re.compile(
    rb"<(/?)(?:div|span|section|article|table|ul|ol|dl|blockquote|font|center|b|i|a)\b", re.IGNORECASE
)


def read_html(stream: Stream, source: str, text_column: str) -> Iterator[Item]:
    """One record: the text of the page without navigation, comments and image texts. Raises: Broken, TilthError."""
    content = bytearray()
    for chunk in stream.chunks():
        content += chunk
        if len(content) > MAX_BYTES:
            detail = f"a page above {MAX_BYTES // 1_000_000} MB is not parsed"
            yield Rejected(source, "whole file", "too_large", detail)
            return
    page = bytes(content)
    try:
        html = _decode(page)
    except (UnicodeDecodeError, LookupError) as error:
        yield Rejected(source, "whole file", "invalid_utf8", f"neither UTF-8 nor the encoding it declares: {error}")
        return
    extract = import_extra("resiliparse.extract.html2text", "html").extract_plain_text
    text = extract(
        html,
        main_content=_depth(page) <= MAX_DEPTH,
        alt_texts=False,
        comments=False,
        post_meta=False,
        list_bullets=True,
    )
    yield Record(source, text, source)


def _decode(page: bytes) -> str:
    try:
        return page.decode("utf-8")
    except UnicodeDecodeError:
        declared = _CHARSET.search(page[:4096])
        if declared is None:
            raise
        return page.decode(declared[1].decode("ascii"))


def _depth(page: bytes) -> int:
    depth = deepest = 0
    for match in _NESTING.finditer(page):
        depth += -1 if match[1] else 1
        deepest = max(deepest, depth)
    return deepest
