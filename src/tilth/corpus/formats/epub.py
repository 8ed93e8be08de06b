"""EPUB (2 and 3, as the W3C has them): a book as one text, in the order of its spine."""

import posixpath
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tilth.corpus.compression import Stream
from tilth.corpus.formats.html import MAX_BYTES, PageProblem, page_text
from tilth.corpus.formats.text import MAX_CHARACTERS, read_long
from tilth.corpus.reading import Reading
from tilth.corpus.records import Dropped, Item, Rejected, printable
from tilth.corpus.rejections import WHOLE_FILE

MAX_MEMBERS = 100_000
MAX_TITLE = 1000

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_OF_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Algorithms that disguise fonts and leave the text open."""

_TEXTS = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_FURNITURE = ("cover", "toc")
"""What the guide of EPUB 2 calls documents that are no part of the text."""

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, OverflowError)


class _Unreadable(Exception):
    """A member, or the book, that cannot be read. `reason` is as in `Rejected`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class _Package:
    """Chapters: names of members, in order. metadata: `title`, `author`, `language`, where the book says them."""

    chapters: list[str]
    metadata: dict[str, Any]


def read_epub(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """One record, or parts of a very long text; covers and tables of contents are left out.

    Metadata: `title`, `author`, `language`, `chapters`. A chapter that cannot be read is rejected on its own.
    Raises: Broken, TilthError.
    """
    with stream.spool() as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield from _read(archive, source)
        except _Unreadable as problem:
            yield Rejected(source, WHOLE_FILE, problem.reason, str(problem))
        except _DAMAGE as error:
            reason = "truncated" if "not a zip file" in str(error) else "corrupt"
            yield Rejected(source, WHOLE_FILE, reason, f"the archive of the book cannot be read: {error}")


def _read(archive: zipfile.ZipFile, source: str) -> Iterator[Item]:
    names = set(archive.namelist())
    if len(names) > MAX_MEMBERS:
        raise _Unreadable("too_many_members", f"{len(names):,} members; at most {MAX_MEMBERS:,} are read")
    if _ENCRYPTION in names and _is_encrypted(_xml(archive, _ENCRYPTION)):
        raise _Unreadable("encrypted", "the book is protected (DRM)")
    package = _package(archive, names)
    texts: list[str] = []
    total = 0
    for name in package.chapters:
        try:
            text = page_text(_content(archive, name), whole=True).text.strip()
        except (_Unreadable, PageProblem) as problem:
            yield Rejected(source, printable(name), problem.reason, str(problem))
            continue
        total += len(text)
        if total > MAX_CHARACTERS:
            raise _Unreadable("bomb", f"its chapters give over {MAX_CHARACTERS:,} characters")
        texts += [text] if text else []
    if texts:
        yield from read_long("\n\n".join(texts), source, package.metadata | {"chapters": len(texts)})
    elif not package.chapters:
        raise _Unreadable("no_text", "the book names no chapters with text")
    else:
        yield Dropped("empty")


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    """Raises: _Unreadable."""
    try:
        info = archive.getinfo(name)
        if info.file_size > MAX_BYTES:
            raise _Unreadable("too_large", f"{info.file_size:,} bytes; at most {MAX_BYTES:,} are read")
        if info.flag_bits & 1:
            raise _Unreadable("encrypted", "it opens with a password only")
        with archive.open(info) as member:
            return member.read(MAX_BYTES)
    except KeyError:
        raise _Unreadable("missing_member", "the book names it and does not hold it") from None
    except _DAMAGE as error:
        raise _Unreadable("corrupt", f"its data is damaged: {error}") from None


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """Raises: _Unreadable. Expat bounds what entities may grow to."""
    try:
        return ElementTree.fromstring(_content(archive, name))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise _Unreadable("corrupt", f"{name} is no sound XML: {error}") from None


def _is_encrypted(encryption: ElementTree.Element) -> bool:
    methods = [method.get("Algorithm") for method in encryption.iterfind(".//{*}EncryptedData/{*}EncryptionMethod")]
    return any(method not in _OF_FONTS for method in methods)


def _package(archive: zipfile.ZipFile, names: set[str]) -> _Package:
    """Raises: _Unreadable."""
    root = _xml(archive, _CONTAINER).find(".//{*}rootfile")
    place = "" if root is None else root.get("full-path", "")
    if place not in names:
        raise _Unreadable("corrupt", f"{_CONTAINER} names no package document that is there")
    package = _xml(archive, place)
    items = {item.get("id"): item for item in package.iterfind("{*}manifest/{*}item")}
    guide = package.iterfind("{*}guide/{*}reference")
    furniture = {_member(place, each) for each in guide if each.get("type", "").lower() in _FURNITURE}
    chapters = []
    for reference in package.iterfind("{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type", "").lower() not in _TEXTS:
            continue
        if "nav" not in item.get("properties", "").split() and (name := _member(place, item)) not in furniture:
            chapters.append(name)
    said = {
        "title": _values(package, "title")[:1],
        "author": _values(package, "creator"),
        "language": _values(package, "language")[:1],
    }
    return _Package(
        list(dict.fromkeys(chapters)),
        {name: ", ".join(values)[:MAX_TITLE] for name, values in said.items() if values},
    )


def _member(package: str, element: ElementTree.Element) -> str:
    """The member that an `href` names. A name that leads out of the archive is a name in it that is not there."""
    path = unquote(element.get("href", "").partition("#")[0])
    return posixpath.normpath(posixpath.join(posixpath.dirname(package), path))


def _values(package: ElementTree.Element, name: str) -> list[str]:
    elements = package.iterfind(f"{{*}}metadata//{{http://purl.org/dc/elements/1.1/}}{name}")
    return [value for element in elements if (value := " ".join("".join(element.itertext()).split()))]
