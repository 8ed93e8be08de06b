"""Lists of the files of a crawl: `warc.paths.gz`, as Common Crawl publishes one for each of its crawls."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tilth.corpus import remote
from tilth.corpus.compression import Broken, file_chunks, open_stream
from tilth.corpus.formats.lines import read_lines
from tilth.corpus.remote.manners import Manners
from tilth.errors import UsageError
from tilth.urls import is_url

_LIST = re.compile(r"(?P<where>.+\.paths(?:\.gz)?)(?:#(?P<first>\d+)(?:-(?P<last>\d+))?)?")

LONGEST = 4096
"""Bytes of a line that can be an address."""


def is_path_list(text: str) -> bool:
    """Whether a source is a list of paths: `PLACE.paths` or `PLACE.paths.gz`, with `#FIRST-LAST` for a part of it."""
    return _LIST.fullmatch(text) is not None


def name_of_list(text: str) -> str:
    """The source's name on a card: with its folder's, which names the crawl."""
    return "/".join(PurePosixPath(text).parts[-2:])


def read_path_list(text: str, base_url: str, manners: Manners) -> list[tuple[str, str]]:
    """(url, path as listed) of each file, from line FIRST to LAST, counted from 0.

    base_url: what the paths are below; '' for the root of the server that has the list.
    Raises: UsageError when the list cannot be read, is shorter, or names a place that is not below the base.
    """
    match = _LIST.fullmatch(text)
    assert match is not None
    where = match["where"]
    if not base_url and not is_url(where):
        raise UsageError(f"{text}: say what its paths are below, such as base_url=https://data.commoncrawl.org")
    base = base_url or "{0.scheme}://{0.netloc}".format(urlsplit(where))
    lines = _lines(where, manners)
    first = int(match["first"] or 0)
    last = int(match["last"] or match["first"] or len(lines) - 1)
    if not first <= last < len(lines):
        raise UsageError(f"{text}: the list has {len(lines):,} paths; choose some from 0 to {len(lines) - 1}")
    return [(_below(base, line, where), line) for line in lines[first : last + 1]]


def _lines(where: str, manners: Manners) -> list[str]:
    try:
        if is_url(where):
            size, version = remote.describe(where, manners)
            return _parse(where, remote.read(where, size, version, manners), size)
        with open(where, "rb") as file:
            return _parse(where, file_chunks(file, lambda size: None), Path(where).stat().st_size)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from None
    except Broken as broken:
        raise UsageError(f"{where} cannot be read: {broken.detail}") from None


def _parse(where: str, chunks, size: int) -> list[str]:
    lines = []
    for number, _, line in read_lines(open_stream(chunks, size).chunks(), LONGEST):
        if line is None:
            raise UsageError(f"{where}, line {number}: longer than {LONGEST:,} bytes; this is no list of paths")
        if path := line.decode("utf-8", "backslashreplace").strip():
            lines.append(path)
    return lines


def _below(base: str, line: str, where: str) -> str:
    """The address of a listed path. Raises: UsageError: a list is not to make us read other places."""
    if is_url(line) or line.startswith("/") or ".." in line.split("/"):
        raise UsageError(f"{where}: {line[:200]!r} is not a path below {base}")
    return f"{base.rstrip('/')}/{line}"
