"""Files of web servers: read in one go where that succeeds, and from the break on where it does not (RFC 9110, 14)."""

import email.utils
import functools
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tilth.corpus.compression import CHUNK, Broken
from tilth.corpus.mark import advance
from tilth.corpus.remote.manners import Manners, turn
from tilth.corpus.remote.patience import Passing, Patience
from tilth.errors import import_extra
from tilth.version import __version__

if TYPE_CHECKING:
    from requests import Response

TIMEOUTS = (10.0, 40.0)
"""Seconds to wait for a connection, and for the next bytes."""

SLOW_SECONDS, SLOW_BYTES = 60.0, 60_000
"""A connection that gives fewer bytes in so many seconds of waiting is taken for dead."""

_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Status of answers that another attempt may better."""

_NO_HEAD = (403, 405, 501)
"""Status of servers that do not answer HEAD, signed addresses among them."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def name_of(url: str) -> str:
    """The file name in a URL, without a query that may hold a secret."""
    parts = urlsplit(url)
    return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.netloc.rpartition("@")[2]


def describe(url: str, manners: Manners) -> tuple[int, str]:
    """Bytes of a file, and the version of it that the server names ('' if none). Raises: Broken."""
    patience = Patience()
    method = "HEAD"
    while True:
        try:
            with _answer(method, url, manners) as answer:
                if method == "HEAD" and answer.status_code in _NO_HEAD:
                    method = "GET"
                    continue
                _check_status(answer)
                return _size(answer), _version(answer)
        except Passing as failure:
            patience.wait_after(failure)


def read(url: str, size: int, version: str, manners: Manners) -> Generator[bytes, None, None]:
    """The bytes of the file that `describe` found. Raises: Broken when it cannot be read, or is another by now."""
    patience = Patience()
    done = 0
    while done < size:
        try:
            with _answer("GET", url, manners, done) as answer:
                for data in _body(answer, done, size, version):
                    done += len(data)
                    patience.note_read(len(data))
                    advance(len(data))
                    yield data
                if done < size:
                    raise Passing(f"the connection ends at byte {done:,} of {size:,}")
        except Passing as failure:
            if done and not version:
                detail = f"{failure}; the server names no version (ETag, Last-Modified) by which to go on safely"
                raise Broken("unreadable", detail) from None
            patience.wait_after(failure)


def _body(answer: "Response", start: int, size: int, version: str) -> Iterator[bytes]:
    """The bytes of an answer from `start` of the file on. Raises: Broken, Passing."""
    if start and answer.status_code == 416:
        raise Broken("unreadable", f"changed on the server while it was read: it ends before byte {start:,}")
    _check_status(answer)
    if (_size(answer), _version(answer)) != (size, version):
        when = "while it was read" if start else "since the build began"
        raise Broken("unreadable", f"changed on the server {when}; build again")
    begins = 0
    if answer.status_code == 206:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        begins = int(found[1]) if found else 0
        if found is None or begins > start:
            raise Broken("unreadable", f"the server gave another range than the one from byte {start:,} on")
    skip = start - begins  # of a server that gives whole files only
    left = size - begins
    waited, came = 0.0, 0
    while left:
        asked = time.monotonic()
        data = _next(answer, min(left, CHUNK))
        if not data:
            return
        waited, came = waited + time.monotonic() - asked, came + len(data)
        if waited >= SLOW_SECONDS:
            if came < SLOW_BYTES:
                raise Passing(f"{came:,} bytes came in {waited:.0f} seconds")
            waited, came = 0.0, 0
        left -= len(data)
        if wanted := data[skip:]:
            yield wanted
        skip = max(0, skip - len(data))


def _next(answer: "Response", most: int) -> bytes:
    """The next bytes of an answer, as many as are there; none at its end. Raises: Passing."""
    urllib3 = import_extra("urllib3", "remote")
    try:
        return answer.raw.read1(most, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Passing(f"the connection broke: {error}") from None


@functools.cache
def _session() -> Any:
    """One for each process, which keeps connections open."""
    session = import_extra("requests", "remote").Session()
    # A file is wanted as it lies there: compressed on the way, it could not be resumed or compared with its length.
    session.headers.update({"User-Agent": f"tilth/{__version__}", "Accept-Encoding": "identity"})
    return session


@contextmanager
def _answer(method: str, url: str, manners: Manners, start: int = 0) -> Iterator["Response"]:
    """The answer to a request, whatever its status. Raises: Passing, Broken."""
    requests = import_extra("requests", "remote")
    headers = {"Range": f"bytes={start}-"} if start else {}
    with turn(url, manners):
        try:
            answer = _session().request(
                method, url, headers=headers, stream=True, timeout=TIMEOUTS, allow_redirects=True
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Passing(f"no connection: {_cause(error)}") from None
        except requests.RequestException as error:
            raise Broken("unreadable", f"no connection: {_cause(error)}") from None
        with answer:
            yield answer


def _cause(error: BaseException) -> str:
    """What a library says, without the address, which may hold a secret."""
    first = error.args[0] if error.args else type(error).__name__
    return re.sub(r"\S*://\S+|\S*\?\S+", "...", str(getattr(first, "reason", None) or first))


def _check_status(answer: "Response") -> None:
    """Raises: Passing, Broken."""
    status = answer.status_code
    if status in (200, 206):
        return
    problem = f"the server answers {status} {answer.reason or ''}".rstrip()
    if status in _AGAIN:
        raise Passing(problem, _asked_wait(answer.headers.get("Retry-After")))
    raise Broken("unreadable", problem)


def _asked_wait(value: str | None) -> float | None:
    """Seconds, from a number of them or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _size(answer: "Response") -> int:
    """Bytes of the whole file. Raises: Broken where the answer does not tell, as a cut could not be told then."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    size = found[2] if found and answer.status_code == 206 else answer.headers.get("Content-Length", "")
    if not size.isdecimal():
        raise Broken("unreadable", "the server does not say how long the file is, so that a cut could not be told")
    return int(size)


def _version(answer: "Response") -> str:
    """What the server names this version of the file by; some call one ETag weak and not weak from answer to answer."""
    return answer.headers.get("ETag", "").removeprefix("W/") or answer.headers.get("Last-Modified") or ""
