"""The formats of raw data: told by their content, with the file's name as a hint, and one reader each."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from tilth.corpus.compression import HEAD, SUFFIXES, Stream, compression_of
from tilth.corpus.formats.arrow import read_arrow, read_parquet
from tilth.corpus.formats.epub import read_epub
from tilth.corpus.formats.html import read_html
from tilth.corpus.formats.jsonl import read_json, read_jsonl
from tilth.corpus.formats.mediawiki import read_mediawiki
from tilth.corpus.formats.pdf import read_pdf
from tilth.corpus.formats.table import read_table
from tilth.corpus.formats.text import read_text
from tilth.corpus.formats.warc import read_arc, read_warc
from tilth.corpus.formats.wikimedia import CIRRUS, ENTERPRISE, read_cirrus, read_enterprise
from tilth.corpus.reading import Reading
from tilth.corpus.records import Dropped, Item, Rejected
from tilth.corpus.rejections import WHOLE_FILE

Reader = Callable[[Stream, str, Reading], Iterator[Item]]
"""reader(stream, source, reading) yields what it finds, in order. It may raise `Broken` at the end."""

READERS: dict[str, Reader] = {
    "text": read_text,
    "html": read_html,
    "table": read_table,
    "jsonl": read_jsonl,
    "json": read_json,
    "mediawiki": read_mediawiki,
    "cirrus": read_cirrus,
    "enterprise": read_enterprise,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "warc": read_warc,
    "arc": read_arc,
    "pdf": read_pdf,
    "epub": read_epub,
}

HINTS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".csv": "table",
    ".tsv": "table",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".warc": "warc",
    ".wet": "warc",
    ".wat": "warc",
    ".arc": "arc",
    ".pdf": "pdf",
    ".epub": "epub",
}

_MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
    b"%PDF": "pdf",
    b"PK\x03\x04": "zip",
    b"WARC/": "warc",
    b"filedesc:": "arc",
    b"{\\rtf": "rtf",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_EPUB = b"mimetypeapplication/epub+zip"
"""Name and content of the first member of an EPUB file, behind the 30 bytes of a header."""

_CRAWLS = ("warc", "arc")
"""Downloads of these are at times an error page, which is not to pass as a document."""

_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b"))
_MAX_CONTROL_SHARE = 0.05
# Possessive, so that a file of comments takes no time that doubles with each of them.
_HTML = re.compile(rb"(?:<\?xml[^>]*+>|<!--(?:[^-]|-(?!->))*+-->|\s)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_XML = re.compile(rb"<\?xml\s|<mediawiki\s")


def hint_of(name: str) -> str | None:
    """The format that a file's name claims, below any compression suffix."""
    path = PurePosixPath(name.lower())
    return HINTS.get(PurePosixPath(path.stem).suffix if path.suffix in SUFFIXES else path.suffix)


def tell_format(head: bytes, name: str) -> str:
    """The format of a file that starts with `head`: a key of `READERS`, or the name of one that is not read."""
    hint = hint_of(name)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            wide = kind == "utf-16" and any("<mediawiki ".encode(name) in head for name in ("utf-16-le", "utf-16-be"))
            if kind == "zip" and (head[30:].startswith(_EPUB) or hint == "epub"):
                return "epub"
            return "mediawiki" if wide else kind
    if kind := compression_of(head):
        return f"{kind} inside a compressed file"
    if len(head.translate(None, _CONTROLS)) < (1 - _MAX_CONTROL_SHARE) * len(head) or hint in ("parquet", "arrow"):
        return "binary"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _HTML.match(start):
        return "html"
    if _XML.match(start):
        return "mediawiki" if b"<mediawiki" in start else "xml"
    if CIRRUS.match(start):
        return "cirrus"
    if start.startswith(b'{"name":') and ENTERPRISE.search(start):
        return "enterprise"
    if start.startswith(b"{") and (hint == "jsonl" or _lines_are_objects(start)):
        return "jsonl"
    return hint or "text"


def _lines_are_objects(start: bytes) -> bool:
    """Whether the first lines, up to three of those that the head holds whole, are JSON objects."""
    lines = start.split(b"\n")
    whole = lines if len(start) < HEAD // 2 else lines[:-1]
    if not whole:
        return start.startswith(b'{"')
    try:
        return all(isinstance(json.loads(line), dict) for line in whole[:3] if line.strip())
    except (ValueError, RecursionError):
        return False


def read_stream(stream: Stream, source: str, name: str, reading: Reading) -> Iterator[Item]:
    """Every record of one file. name: its file name, a hint to the format. Raises: Broken (see `Stream`)."""
    if not stream.head:
        for _ in stream.chunks():
            pass  # raises what broke before the first byte
        yield Dropped("empty")
        return
    kind = tell_format(stream.head, name)
    if stream.packed and kind not in _CRAWLS:
        kind = "arc"  # it starts with a record, and its first member, which names the format, is damaged
    if hint_of(name) in _CRAWLS and kind not in _CRAWLS and kind in READERS:
        yield Rejected(source, WHOLE_FILE, "wrong_format", f"the name says {hint_of(name)}, the content is {kind}")
    elif kind in READERS:
        yield from READERS[kind](stream, source, reading)
    elif kind == "utf-16":
        detail = "UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8"
        yield Rejected(source, WHOLE_FILE, "invalid_utf8", detail)
    elif hint := hint_of(name):
        detail = f"the name says {hint}, the content is " + ("not" if kind == "binary" else kind)
        yield Rejected(source, WHOLE_FILE, "binary" if kind == "binary" else "wrong_format", detail)
    else:
        # A zip may be a document of an office suite, which its name alone tells.
        suffix = PurePosixPath(name).suffix if kind in ("binary", "zip") else ""
        yield Dropped("unsupported", detail=suffix or kind)
