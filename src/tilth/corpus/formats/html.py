"""HTML: the main content of a page as plain text, and what the page says of itself."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tilth.corpus.compression import Stream
from tilth.corpus.formats.encoding import Undecodable, decode
from tilth.corpus.libraries import use_library
from tilth.corpus.mark import Deadly, guarded
from tilth.corpus.reading import PLAIN, Reading
from tilth.corpus.records import Item, Record, Rejected
from tilth.corpus.rejections import WHOLE_FILE

MAX_BYTES = 16_000_000
MAX_MAIN_BYTES = 2_000_000
"""Size above which the whole page's text is taken: such pages are lists and tables without a main content."""

MAX_DEPTH = 500
"""Nesting past which the whole page's text is taken: finding the main content is quadratic in it (20,000 take 10 s)."""

MAX_PARSED_DEPTH = 30_000
"""Nesting past which a page is not parsed: links and formatting that are never closed take quadratic time."""

MAX_ATTRIBUTES = 1000
"""Attributes past which a tag loses all of them: parsing is quadratic in their number (200,000 take two minutes)."""

MAX_QUALITY_TAGS = 20_000
"""Tags past which the fast extraction is used in any case: trafilatura takes up to 5 s for so many."""

MAX_TITLE = 1000

SURE = 0.9
"""Confidence from which the fast pass's text is taken to tell the language of the better one."""

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_LONG_TAG = re.compile(rb"<([A-Za-z][\w:-]{0,40})[^>]{%d,}" % (2 * MAX_ATTRIBUTES))
_NESTING = re.compile(
    rb"<(/?)(?:div|span|section|article|table|ul|ol|dl|blockquote|font|center|b|i|a|nobr)\b", re.IGNORECASE
)
_STEPS = {b"": 1, b"/": -1}
_CREATIVE_COMMONS = ("creativecommons.org/licenses/", "creativecommons.org/publicdomain/")
_LICENCES = ", ".join(['[rel~="license"]', *(f'[href*="{place}"]' for place in _CREATIVE_COMMONS)])


class PageProblem(Exception):
    """A page that gives no text. `reason` is too_large, too_deep, invalid_utf8, timed_out or worker_died."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Page:
    """text: without navigation, comments and image texts. metadata: what of the keys of `page_text` is known."""

    text: str
    metadata: dict[str, Any]


def read_html(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """One record: the text of the page. Raises: Broken, TilthError."""
    content = bytearray()
    for chunk in stream.chunks():
        content += chunk
        if len(content) > MAX_BYTES:
            break
    try:
        page = page_text(bytes(content), reading=reading)
    except PageProblem as problem:
        yield Rejected(source, WHOLE_FILE, problem.reason, str(problem))
        return
    yield Record(source, page.text, source, page.metadata)


def page_text(content: bytes, charset: str | None = None, reading: Reading = PLAIN, *, whole: bool = False) -> Page:
    """The main content of a page, in time and memory bounded by its size, which is at most 16 MB.

    charset: what the HTTP header said. whole: all of its text, as of a page that is nothing but content.
    Metadata: `charset`, `charset_declared`, `undecodable` (see `decode`), `title`,
    `language` (the page's attribute), `licence` (the address of a Creative Commons licence, or of another that is
    marked as the page's), `extraction` as `fast` where `quality` was asked for and the page is too large, gives
    nothing, or is surely in a language that will be dropped.
    Raises: PageProblem, TilthError.
    """
    if len(content) > MAX_BYTES:
        raise PageProblem("too_large", f"a page above {MAX_BYTES // 1_000_000} MB is not parsed")
    if _may_have_many_attributes(content):
        content = _LONG_TAG.sub(_bound_attributes, content)
    depth = _depth(content)
    if depth > MAX_PARSED_DEPTH:
        raise PageProblem(
            "too_deep", f"{depth:,} elements lie within one another; at most {MAX_PARSED_DEPTH:,} are parsed"
        )
    declared = _CHARSET.search(content[:4096])
    labels = [label for label in (charset, declared and declared[1].decode("ascii")) if label]
    try:
        html, metadata = decode(content, labels)
    except Undecodable as error:
        raise PageProblem("invalid_utf8", str(error)) from None
    try:
        with guarded(content):
            small = len(content) <= MAX_MAIN_BYTES and not whole
            return _parsed(html, metadata, reading, small, depth <= MAX_DEPTH)
    except Deadly as deadly:
        raise PageProblem(deadly.reason, str(deadly)) from None


def _parsed(html: str, metadata: dict[str, Any], reading: Reading, small: bool, shallow: bool) -> Page:
    tree = use_library("resiliparse.parse.html", "html").HTMLTree.parse(html)
    metadata |= _about(tree)
    fast = functools.partial(_by_resiliparse, tree, small and shallow)
    if reading.extraction == "fast":
        return Page(fast(), metadata)
    first = fast() if reading.languages else ""
    able = small and html.count("<") <= MAX_QUALITY_TAGS and not _is_foreign(first, reading.languages)
    if better := able and _by_trafilatura(html):
        return Page(better, metadata)
    return Page(first or fast(), {**metadata, "extraction": "fast"})


def _by_resiliparse(tree: Any, main_content: bool) -> str:
    return use_library("resiliparse.extract.html2text", "html").extract_plain_text(
        tree, main_content=main_content, alt_texts=False, comments=False, post_meta=False, list_bullets=True
    )


def _is_foreign(text: str, languages: tuple[str, ...]) -> bool:
    """Whether a text is surely in none of the languages; no text is when there are none."""
    if not languages:
        return False
    from tilth.corpus.filters.language import identify

    language, confidence = identify(text)
    return confidence >= SURE and language not in languages


def _by_trafilatura(html: str) -> str | None:
    # Not `deduplicate`: it remembers what earlier pages held, so that a text would depend on what was read before.
    return use_library("trafilatura", "web").extract(html, fast=True, include_comments=False, deduplicate=False)


def _about(tree: Any) -> dict[str, Any]:
    title = " ".join((tree.title or "").split())
    root = tree.document.first_element_child
    said = {
        "title": title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 3] + "...",
        "language": ((root and root.getattr("lang")) or "").strip()[:40],
        "licence": _licence(tree)[:MAX_TITLE],
    }
    return {name: value for name, value in said.items() if value}


def _licence(tree: Any) -> str:
    """The best marked licence: Creative Commons before others, marked as the page's before only linked to."""
    found = []
    for link in tree.document.query_selector_all(_LICENCES):
        address, marked = link.getattr("href") or "", "license" in (link.getattr("rel") or "").lower().split()
        found.append((any(place in address for place in _CREATIVE_COMMONS), marked, -len(found), address))
    return max(found)[3] if found else ""


def _may_have_many_attributes(content: bytes) -> bool:
    """Whether so many words as a tag above the limit has follow one another without a `>`."""
    start, least = 0, 2 * MAX_ATTRIBUTES
    while start + least < len(content):
        end = content.rfind(b">", start, start + least)
        if end < 0:
            end = content.find(b">", start + least)
            end = len(content) if end < 0 else end
            if len(content[start:end].split()) > MAX_ATTRIBUTES:
                return True
        start = end + 1
    return False


def _bound_attributes(tag: re.Match[bytes]) -> bytes:
    return b"<" + tag[1] if len(tag[0].split()) > MAX_ATTRIBUTES else tag[0]


def _depth(page: bytes) -> int:
    return max(accumulate(map(_STEPS.__getitem__, _NESTING.findall(page))), default=0)
