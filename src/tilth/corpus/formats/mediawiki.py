"""Dumps of a MediaWiki wiki (`pages-articles.xml` and its parts): an article a record, its text made prose.

Each page is parsed alone, and so cannot see an entity that a document type would declare.
Format: https://www.mediawiki.org/wiki/Help:Export
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote
from xml.parsers import expat

from tilth.corpus.compression import Stream
from tilth.corpus.formats.lines import excerpt
from tilth.corpus.formats.mediawiki_pages import END, OPEN, cut_pages, read_pieces
from tilth.corpus.mark import read_alone
from tilth.corpus.reading import Reading
from tilth.corpus.records import Dropped, Item, Record, Rejected
from tilth.corpus.rejections import WHOLE_FILE
from tilth.corpus.wikitext import Names, to_prose
from tilth.corpus.wikitext.words import DISAMBIGUATION, DISAMBIGUATION_TITLES, ENGLISH

MAX_DEPTH = 10
_REDIRECT = re.compile(r"\s*#redirect\b", re.IGNORECASE)
_DISAMBIGUATION = re.compile(
    r"\{\{\s*+([^|{}\n]*disambig[^|{}\n]*|" + "|".join(map(re.escape, sorted(DISAMBIGUATION))) + r")\s*[|}]",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(rb"""\bxml:lang=["']([\w-]{1,40})["']""")
_PLAIN_IN_URL = "/:@!$*(),;'~"


@dataclass(frozen=True)
class _Site:
    """What the head of a dump says of its wiki. base: what the title is put behind to make an address."""

    name: str = ""
    base: str = ""
    language: str = ""
    namespaces: frozenset[str] = frozenset()
    wiki: Names = ENGLISH


class _Malformed(Exception):
    """XML that cannot be read; the message says why."""


def read_mediawiki(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """A record an article; the id is `<wiki>:<page id>`, or `<source>:<page id>` in a dump without its head.

    Dropped: redirects, disambiguations, pages outside the main namespace or not in wikitext, those without prose.
    metadata: title, url (where the head has the wiki's address), revision, timestamp, language, and sections as
    (level, heading, offset in the text). Of a page with its history the last revision in the file counts.
    Raises: Broken when the rest cannot be read.
    """
    site = _Site()
    empty = True
    for where, piece in cut_pages(read_pieces(stream), source):
        if isinstance(piece, Rejected):
            yield piece
        elif piece.startswith(OPEN):
            yield read_alone(piece, source, where, functools.partial(_read_page, piece, where, site, source))
        elif b"<!DOCTYPE" in piece or b"<!ENTITY" in piece:
            yield Rejected(source, WHOLE_FILE, "unsafe_xml", "a dump declares no document type and no entities")
            return
        elif b"<mediawiki" in piece:
            try:
                site = _read_site(piece)
            except _Malformed as error:
                yield Rejected(source, where, "malformed_xml", f"the head of the dump: {error}")
            continue
        elif piece.strip() in (b"", END):
            continue
        else:
            yield Rejected(source, where, "malformed_xml", f"between pages: {excerpt(piece)}")
        empty = False
    if empty:
        yield Dropped("empty")


def _elements(xml: bytes, final: bool) -> list[tuple[str, dict[str, str], str]]:
    """Every element that is closed: its path, attributes and own text. final: False where the end may be missing.

    Raises: _Malformed.
    """
    path: list[str] = []
    opened: list[tuple[dict[str, str], list[str]]] = []
    found: list[tuple[str, dict[str, str], str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) >= MAX_DEPTH:
            raise _Malformed(f"elements are nested deeper than {MAX_DEPTH}")
        path.append(name)
        opened.append((attributes, []))

    def end(name: str) -> None:
        attributes, text = opened.pop()
        found.append(("/".join(path), attributes, "".join(text)))
        path.pop()

    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.buffer_size = 64 * 1024
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda data: opened[-1][1].append(data)
    try:
        parser.Parse(xml, final)
    except expat.ExpatError as error:
        raise _Malformed(str(error)) from None
    return found


def _read_site(head: bytes) -> _Site:
    """Raises: _Malformed."""
    xml = head[head.rindex(b"<mediawiki") :]
    fields: dict[str, str] = {}
    spaces: dict[str, str] = {}
    for path, attributes, text in _elements(xml, final=False):
        if path == "mediawiki/siteinfo/namespaces/namespace":
            spaces[attributes.get("key", "")] = text.lower()
        else:
            fields[path.removeprefix("mediawiki/siteinfo/")] = text
    declared = _LANGUAGE.search(xml)
    language = declared[1].decode() if declared else ""
    return _Site(
        name=fields.get("dbname", ""),
        base=fields.get("base", "").rpartition("/")[0],
        language=language,
        namespaces=frozenset(name for name in spaces.values() if name),
        wiki=Names(
            language or "en",
            files=frozenset(spaces[key] for key in ("6", "-2") if spaces.get(key)),
            categories=frozenset(spaces[key] for key in ("14",) if spaces.get(key)),
        ),
    )


def _read_page(xml: bytes, where: str, site: _Site, source: str) -> Item:
    try:
        xml.decode()
        fields = {path.removeprefix("page/"): text for path, _, text in _elements(xml, final=True)}
    except UnicodeDecodeError as error:
        return Rejected(source, where, "invalid_utf8", f"byte {error.start:,} of the page is not UTF-8")
    except _Malformed as error:
        return Rejected(source, where, "malformed_xml", str(error))
    title, number = fields.get("title", "").strip(), fields.get("id", "").strip()
    if not title or not number:
        return Rejected(source, where, "malformed_xml", f"a page without {'an id' if title else 'a title'}")
    text = fields.get("revision/text", "")
    if reason := _unwanted(fields, title, text, site):
        return Dropped(reason)
    prose = to_prose(text, site.wiki)
    if not prose.text:
        return Dropped("empty")
    metadata = {
        "title": title,
        "url": f"{site.base}/{quote(title.replace(' ', '_'), safe=_PLAIN_IN_URL)}" if site.base else None,
        "revision": fields.get("revision/id"),
        "timestamp": fields.get("revision/timestamp"),
        "language": site.language or None,
        "sections": prose.sections,
    }
    kept = {name: value for name, value in metadata.items() if value is not None}
    return Record(f"{site.name or source}:{number}", prose.text, source, kept)


def _unwanted(fields: dict[str, str], title: str, text: str, site: _Site) -> str | None:
    """Why a page is no article, or None."""
    space = fields.get("ns", "").strip()
    prefix = title.partition(":")[0].lower() if ":" in title else ""
    if space != "0" and (space or prefix in site.namespaces):  # exports before version 0.6 have no `ns`
        return "not_an_article"
    if "redirect" in fields or _REDIRECT.match(text):
        return "redirect"
    if fields.get("revision/model", "wikitext") != "wikitext":
        return "not_wikitext"
    if is_disambiguation(title, text):
        return "disambiguation"
    return None


def is_disambiguation(title: str, text: str) -> bool:
    """Whether a page only says which page is meant, by its title or one of its templates."""
    if title.endswith(")") and title[:-1].rpartition("(")[2].lower() in DISAMBIGUATION_TITLES:
        return True
    names = (match[1].strip().lower() for match in _DISAMBIGUATION.finditer(text))
    return any("needed" not in name for name in names) or "__DISAMBIG__" in text
