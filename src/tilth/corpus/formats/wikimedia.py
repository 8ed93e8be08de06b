"""JSON dumps of Wikimedia: the CirrusSearch index, and the HTML of Wikimedia Enterprise.

Cirrus (`*-cirrussearch-content.json`): a line with an index action, then a line with the page, whose `text` the wiki
has rendered to plain text without its headings: https://www.mediawiki.org/wiki/Help:CirrusSearch
Enterprise (`*-ENTERPRISE-HTML.json`): a line a page with `article_body.html`:
https://enterprise.wikimedia.com/docs/data-dictionary/
"""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from tilth.corpus.compression import Stream
from tilth.corpus.formats.html import MAX_BYTES
from tilth.corpus.formats.jsonl import MAX_RECORD
from tilth.corpus.formats.lines import excerpt, read_lines
from tilth.corpus.formats.mediawiki import is_disambiguation
from tilth.corpus.libraries import use_library
from tilth.corpus.mark import read_alone
from tilth.corpus.reading import Reading
from tilth.corpus.records import Dropped, Item, Record, Rejected

MAX_DEPTH = 400
"""Tags open at once past which a page is rejected: rendered articles are below 100."""

CIRRUS = re.compile(rb'\{\s*"index"\s*:\s*\{')
ENTERPRISE = re.compile(rb'"(?:article_body|in_language|is_part_of)"\s*:\s*\{')

_NO_PROSE = (
    "table, figure, style, script, sup.reference, sup.mw-ref, .mw-references-wrap, .reflist, .navbox, .infobox, "
    ".hatnote, .metadata, .mw-editsection, .noprint, .thumb, .gallery, .sistersitebox, .toc, math, .mwe-math-element"
)


class _Bad(Exception):
    """A line that is no page: the reason and the detail."""


def read_cirrus(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """A record a page, with the id of the action before it. Raises: Broken after the last whole line."""
    action: tuple[str, dict[str, Any]] | None = None
    for where, line in _lines(stream):
        try:
            value = _object(line)
        except _Bad as error:
            action = None
            yield Rejected(source, where, *error.args)
            continue
        if "index" in value and len(value) == 1:
            if action:
                yield Rejected(source, action[0], "no_document", "an index action without the page that belongs to it")
            action = (where, value["index"]) if isinstance(value["index"], dict) else (where, {})
            continue
        number = value.get("page_id") or (action[1].get("_id") if action else None)
        action = None
        if number is None:
            yield Rejected(source, where, "no_action", "a page without its index action, which holds its id")
            continue
        yield _cirrus_page(value, str(number), source, where)
    if action:
        yield Rejected(source, action[0], "truncated", "the file ends after an index action")


def _cirrus_page(page: dict[str, Any], number: str, source: str, where: str) -> Item:
    title, text, wiki = page.get("title"), page.get("text"), page.get("wiki")
    if not isinstance(title, str) or not isinstance(text, str):
        return Rejected(source, where, "malformed_page", "a page without a title and a text")
    if page.get("namespace", 0) != 0:
        return Dropped("not_an_article")
    templates = page.get("template")
    names = templates if isinstance(templates, list) else []
    if is_disambiguation(title, "".join(f"{{{{{str(name).partition(':')[2]}}}}}" for name in names)):
        return Dropped("disambiguation")
    if not text.strip():
        return Dropped("empty")
    metadata = {"title": title} | {key: page[key] for key in ("timestamp", "language", "version") if page.get(key)}
    if isinstance(page.get("heading"), list):
        metadata["sections"] = page["heading"]
    return Record(f"{wiki if isinstance(wiki, str) else source}:{number}", text, source, metadata)


def read_enterprise(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """A record a page, of its HTML. Raises: Broken after the last whole line, TilthError without resiliparse."""
    for where, line in _lines(stream):
        try:
            parse = functools.partial(_enterprise_page, _object(line), source, where)
            yield read_alone(line or b"", source, where, parse)
        except _Bad as error:
            yield Rejected(source, where, *error.args)


def _enterprise_page(page: dict[str, Any], source: str, where: str) -> Item:
    html, title, number = _at(page, "article_body", "html"), page.get("name"), page.get("identifier")
    if not isinstance(html, str) or not isinstance(title, str) or not isinstance(number, int | str):
        raise _Bad("malformed_page", "a page without name, identifier and article_body.html")
    if _at(page, "namespace", "identifier") not in (0, None):
        return Dropped("not_an_article")
    templates = page.get("templates")
    names = [str(_at(item, "name")).partition(":")[2] for item in templates] if isinstance(templates, list) else []
    if is_disambiguation(title, "".join(f"{{{{{name}}}}}" for name in names)):
        return Dropped("disambiguation")
    if len(html) > MAX_BYTES:
        raise _Bad("too_large", f"HTML above {MAX_BYTES // 1_000_000} MB is not parsed")
    text = _rendered(html)
    if not text.strip():
        return Dropped("empty")
    metadata = {
        "title": title,
        "url": page.get("url"),
        "timestamp": page.get("date_modified"),
        "revision": _at(page, "version", "identifier"),
        "language": _at(page, "in_language", "identifier"),
    }
    wiki = _at(page, "is_part_of", "identifier")
    kept = {name: value for name, value in metadata.items() if value is not None}
    return Record(f"{wiki if isinstance(wiki, str) else source}:{number}", text, source, kept)


_TAG = re.compile(r"<(/?)[a-zA-Z][^<>]*+>")


def _rendered(html: str) -> str:
    """The prose of a page that Parsoid rendered. Raises: _Bad when it is nested too deep for the extractor."""
    depth = 0
    for match in _TAG.finditer(html):
        depth = max(0, depth - 1) if match[1] else depth + (not match[0].endswith("/>"))
        if depth > MAX_DEPTH:
            raise _Bad("too_deep", f"tags are nested deeper than {MAX_DEPTH}")
    tree = use_library("resiliparse.parse.html", "html").HTMLTree.parse(html)
    for node in tree.document.query_selector_all(_NO_PROSE) if tree.document else ():
        if node.parent is not None:
            node.parent.remove_child(node)
    extract = use_library("resiliparse.extract.html2text", "html").extract_plain_text
    return extract(tree, main_content=False, alt_texts=False, list_bullets=False)


def _lines(stream: Stream) -> Iterator[tuple[str, bytes | None]]:
    for number, offset, line in read_lines(stream.chunks(), MAX_RECORD):
        if line is None or line.strip():
            yield f"line {number}, byte {offset}", line


def _object(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise _Bad("too_large", f"the line is longer than {MAX_RECORD // 1_000_000} MB")
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _Bad("invalid_utf8", f"byte {error.start:,} of the line is not UTF-8 ({error.reason})") from None
    except (ValueError, RecursionError) as error:
        raise _Bad("invalid_json", f"{error}: {excerpt(line)}") from None
    if not isinstance(value, dict):
        raise _Bad("not_an_object", f"a page is an object with fields, this is {excerpt(repr(value))}")
    return value


def _at(value: Any, *keys: str) -> Any:
    """The value under these keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
