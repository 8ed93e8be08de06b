"""Web crawls: WARC, WET and WAT (ISO 28500), and ARC, its predecessor.

Pages that were found become documents; requests, redirects, errors, pictures and the crawler's own notes are counted.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

from tilth.corpus.compression import Stream
from tilth.corpus.formats.encoding import Undecodable, decode
from tilth.corpus.formats.framing import ARC, WARC, Frame, Layout, read_frames
from tilth.corpus.formats.html import MAX_BYTES, PageProblem, page_text
from tilth.corpus.libraries import use_library
from tilth.corpus.reading import Reading
from tilth.corpus.records import Dropped, Item, Record, Rejected

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_ARC_HEADER = re.compile(rb"(.+?) (\S+) (\d{14}) (\S+)(?: .*)? \d+\r?\n", re.DOTALL)


def read_warc(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """A document for each page (an HTTP response of status 2xx with HTML or plain text) and each WET text.

    Raises: TilthError.
    """
    yield from _read(stream, source, reading, WARC)


def read_arc(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """The same for ARC files of version 1 and 2. Raises: TilthError."""
    yield from _read(stream, source, reading, ARC)


def _read(stream: Stream, source: str, reading: Reading, layout: Layout) -> Iterator[Item]:
    crawl = use_library("fastwarc.warc", "web")
    for found in read_frames(stream, source, layout):
        if isinstance(found, Rejected):
            yield found
            continue
        try:
            yield _item(crawl, found if layout is WARC else _as_warc(found), source, reading)
        except _Malformed as error:
            yield Rejected(source, found.place, error.reason, str(error))


class _Malformed(Exception):
    """A record that is whole but cannot be understood."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _as_warc(frame: Frame) -> Frame:
    """An ARC record with the header that it would have in a WARC file."""
    match = _ARC_HEADER.fullmatch(frame.header)
    if match is None:
        raise _Malformed("malformed_header", "the first line has not the five or ten fields of an ARC record")
    url, _, date, kind = match.groups()
    day = b"%b-%b-%bT%b:%b:%bZ" % (date[:4], date[4:6], date[6:8], date[8:10], date[10:12], date[12:])
    web = url.startswith((b"http:", b"https:"))
    kind = b"application/http; msgtype=response" if web else kind
    lines = [
        b"WARC/1.0",
        b"WARC-Type: " + (b"warcinfo" if url.startswith(b"filedesc:") else b"response"),
        b"WARC-Target-URI: " + url,
        b"WARC-Date: " + day,
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(frame.content),
    ]
    return Frame(b"\r\n".join(lines) + b"\r\n\r\n", frame.content, frame.place, frame.at)


def _item(crawl: Any, frame: Frame, source: str, reading: Reading) -> Item:
    record = _parse(crawl, frame)
    kinds, headers = crawl.WarcRecordType, record.headers
    kind = (headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if record.record_type == kinds.metadata and kind == "application/json":
        return Dropped("metadata_only")
    if record.record_type == kinds.conversion:
        if kind not in ("", "text/plain"):
            return Dropped("not_text")
        return _plain_text(frame, source, headers, frame.content, "utf-8", {"content_type": "text/plain"})
    if record.record_type != kinds.response or not record.is_http:
        return Dropped("not_a_response")
    _parse_http(record, "all")
    status = record.http_headers.status_code
    if status is None:
        raise _Malformed("malformed_http", "the response has no HTTP status line")
    if not 200 <= status < 300:
        return Dropped("http_status")
    kind = (record.http_content_type or "text/html").strip().lower()
    if kind not in (*_HTML_TYPES, "text/plain"):
        return Dropped("not_text")
    charset = (record.http_charset or "").strip("\"' ") or None
    body = _body(crawl, record, frame)
    if not body:
        return Dropped("empty")
    if len(body) > MAX_BYTES:
        raise _Malformed("too_large", f"the page has over {MAX_BYTES // 1_000_000} MB when decompressed")
    if kind == "text/plain":
        return _plain_text(frame, source, headers, body, charset, {"content_type": kind})
    try:
        page = page_text(body, charset, reading)
    except PageProblem as problem:
        raise _Malformed(problem.reason, str(problem)) from None
    metadata = _about(headers) | {"content_type": kind} | page.metadata
    return Record(_name(frame, source, headers), page.text, source, metadata)


def _parse(crawl: Any, frame: Frame) -> Any:
    whole = io.BytesIO(frame.header + frame.content + b"\r\n\r\n")
    try:
        return next(iter(crawl.ArchiveIterator(whole, parse_http=False, stream_detect=False)))
    except (OSError, ValueError, StopIteration) as error:
        raise _Malformed("malformed_header", f"the header of the record cannot be parsed: {error}") from None


def _parse_http(record: Any, decoding: str) -> None:
    try:
        record.parse_http(auto_decode=decoding)
    except (OSError, ValueError) as error:
        raise _Malformed("malformed_http", f"the HTTP header cannot be parsed: {error}") from None


def _body(crawl: Any, record: Any, frame: Frame) -> bytes:
    """The decoded body of a response, up to one byte more than a page may have.

    Some crawlers keep what they have decoded under the header it was sent with: such a body is taken as it is.
    """
    try:
        return record.reader.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = _Malformed("malformed_http", f"the body cannot be decoded: {error}")
    record = _parse(crawl, frame)
    _parse_http(record, "none")
    body = record.reader.read(MAX_BYTES + 1)
    if not body.lstrip().startswith(b"<"):
        raise problem
    return body


def _plain_text(
    frame: Frame, source: str, headers: Any, content: bytes, charset: str | None, metadata: dict[str, Any]
) -> Item:
    try:
        text, found = decode(content, [charset] if charset else [])
    except Undecodable as error:
        raise _Malformed("invalid_utf8", str(error)) from None
    return Record(_name(frame, source, headers), text, source, _about(headers) | metadata | found)


def _name(frame: Frame, source: str, headers: Any) -> str:
    """The record's own id, or where it is."""
    return (headers.get("WARC-Record-ID") or "").strip("<> ") or f"{source}:{frame.at}"


def _about(headers: Any) -> dict[str, Any]:
    """What the crawler says of a page. truncated: why it did not store all of it."""
    said = {
        "url": (headers.get("WARC-Target-URI") or "").strip("<> "),
        "date": headers.get("WARC-Date"),
        "truncated": headers.get("WARC-Truncated"),
        "languages": headers.get("WARC-Identified-Content-Language"),
    }
    return {name: value for name, value in said.items() if value}
