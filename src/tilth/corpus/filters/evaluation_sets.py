"""The texts of test sets, to be kept out of a corpus: files of JSON lines, tables or plain lines."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tilth.corpus.compression import SUFFIXES, Broken, file_chunks, open_stream
from tilth.corpus.formats.lines import read_lines
from tilth.errors import UsageError

MAX_LINE = 64_000_000


def read_items(path: Path, fields: Sequence[str] | None = None) -> Iterator[list[str]]:
    """The texts of each item of a test set. A file may be compressed.

    `.jsonl` (or `.json` with an object on each line): the strings of an object, also those in its lists and objects.
    `.csv`, `.tsv`: the cells of a row. `.txt`: a line that is not blank. fields: of objects, and of tables with a
    header, only these; without it the first row of a table is an item too.
    Raises: UsageError for a file that cannot be read to its end, another format, or a field that is not there: what was
    not read could not be kept out.
    """
    name = path.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    kind = name.rpartition(".")[2]
    lines = _lines(path)
    if kind in ("jsonl", "json", "ndjson"):
        yield from _objects(path, lines, fields)
    elif kind in ("csv", "tsv"):
        yield from _rows(path, lines, "\t" if kind == "tsv" else ",", fields)
    elif kind == "txt":
        yield from ([line] for _, line in lines if line.strip())
    else:
        raise UsageError(f"test set {path}: not a .jsonl, .csv, .tsv or .txt file (also .gz, .bz2, .xz, .zst)")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, "rb") as file:
            stream = open_stream(file_chunks(file, lambda size: None), path.stat().st_size, path)
            for number, _, line in read_lines(stream.chunks(), MAX_LINE):
                if line is None:
                    raise UsageError(f"test set {path}: line {number} is longer than {MAX_LINE // 1_000_000} MB")
                yield number, line.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"test set {path} cannot be read: {error}") from None
    except Broken as broken:
        raise UsageError(f"test set {path} cannot be read: {broken}") from None


def _objects(path: Path, lines: Iterator[tuple[int, str]], fields: Sequence[str] | None) -> Iterator[list[str]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"test set {path}, line {number}: not JSON ({error})") from None
        if fields is not None:
            if not isinstance(value, dict) or not all(name in value for name in fields):
                raise UsageError(f"test set {path}, line {number}: not an object with {', '.join(fields)}")
            value = [value[name] for name in fields]
        yield list(_strings(value))


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            waiting += reversed(value.values() if isinstance(value, dict) else value)


def _rows(
    path: Path, lines: Iterator[tuple[int, str]], delimiter: str, fields: Sequence[str] | None
) -> Iterator[list[str]]:
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    rows = csv.reader((line for _, line in lines), delimiter=delimiter, quoting=quoting)
    try:
        columns = None
        if fields is not None:
            header = next(rows, [])
            if missing := [name for name in fields if name not in header]:
                raise UsageError(f"test set {path} has no column {', '.join(missing)}; it has {', '.join(header)}")
            columns = [header.index(name) for name in fields]
        for row in rows:
            if row:
                yield row if columns is None else [row[column] for column in columns if column < len(row)]
    except csv.Error as error:
        raise UsageError(f"test set {path}, line {rows.line_num}: {error}") from None
