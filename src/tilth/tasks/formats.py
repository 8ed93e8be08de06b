"""Rows of JSON lines, JSON arrays, CSV, TSV and Parquet files, told by content; each row comes with its line, or with
what is wrong.

CSV, divided by commas, semicolons or bars, is read with the usual quoting, its first line as the header. TSV is read
without, because the tab-separated files of language tasks hold unbalanced quotes, unless its beginning shows that a CSV
writer wrote it.
"""

import codecs
import contextlib
import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tilth.corpus.compression import Broken, Stream, file_chunks, open_stream
from tilth.corpus.formats.table import holds_rows
from tilth.errors import TilthError, UsageError

LONGEST_LINE = 16_000_000

Row = tuple[int, dict[str, Any] | str]
"""A line number, and the row's values by column, or the reason why the line is not a row."""

Lines = Iterator[tuple[int, str]]

_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*"')
_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|[^"\t\n]*)(?:\t|\r?\n|\Z)')
"""A cell as a CSV writer writes it, with what ends it; group 1 is what stands in its quotes."""

_OBJECTS = re.compile(r'\s*\[\s*\{\s*["}]')
"""How a JSON array of objects begins."""
_BETWEEN = re.compile(r"[\s,]*")


def read_rows(
    path: Path,
    is_header: Callable[[list[str]], bool],
    headerless: tuple[str, str],
    one_column: Literal["\t", ","] | None = None,
) -> Iterator[Row]:
    """The rows of a file, in order. Blank lines are passed over.

    is_header: whether the first line of a two-column TSV names its columns; where it does not, they are `headerless`.
    one_column: read a file without any delimiter in its first line as if it had this one.
    Raises: UsageError when the file is missing, TilthError when it is empty, damaged, in no known format, or has two
    columns of one name.
    """
    if path.is_dir():
        raise TilthError(f"{path} is a folder; give one file of labelled examples (jsonl, csv, tsv or parquet)")
    with opened(path) as stream:
        if stream.head.startswith(b"PAR1"):
            with stream.spool() as whole:
                yield from _parquet_rows(path, whole)
        elif stream.head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise TilthError(f"{path} is UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8")
        elif b"\0" in stream.head:
            raise TilthError(f"{path} is binary, not jsonl, csv, tsv or parquet")
        else:
            yield from _text_rows(path, stream, is_header, headerless, one_column)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Stream]:
    """A file's bytes, decompressed.

    Raises: UsageError when the file is missing, TilthError when it cannot be read or turns out to be damaged in the
    block.
    """
    try:
        with open(path, "rb") as file:
            yield open_stream(file_chunks(file, lambda size: None), path.stat().st_size)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except OSError as error:
        raise TilthError(f"{path} cannot be read: {error.strerror}") from None
    except Broken as error:
        raise TilthError(f"{path} is damaged: {error.detail}; copy or download it again") from None


def _text_rows(
    path: Path,
    stream: Stream,
    is_header: Callable[[list[str]], bool],
    headerless: tuple[str, str],
    one_column: str | None,
) -> Iterator[Row]:
    if b"\r" in stream.head and b"\n" not in stream.head:
        raise TilthError(f"{path} ends its lines by carriage returns alone; convert it first: tr '\\r' '\\n'")
    lines = numbered_lines(path, stream.chunks())
    first = next((line for line in lines if line[1].strip()), None)
    if first is None:
        raise TilthError(f"{path} is empty; it needs rows of text and label")
    lines = itertools.chain([first], lines)
    if is_json_array(stream.head):
        yield from _array_rows(path, first[0], "".join(line for _, line in lines))
    elif first[1].strip() == "{":
        raise TilthError(
            f"{path} starts with one JSON object over several lines; write one on each line, or a list of them alone"
        )
    elif first[1].lstrip().startswith("{"):
        yield from _json_rows(lines)
    elif "\t" in first[1] and is_quoted(stream.head.decode("utf-8", "replace")):
        yield from _quoted_rows(path, lines, "\t", is_header, headerless)
    elif "\t" in first[1] or one_column == "\t":
        yield from _tab_rows(path, lines, is_header, headerless)
    elif (delimiter := _delimiter(first[1])) or one_column == ",":
        yield from _quoted_rows(path, lines, delimiter or ",", lambda cells: True, headerless)
    else:
        raise TilthError(
            f"{path} is not jsonl, csv, tsv or parquet: it starts with {first[1].strip()[:60]!r}. "
            "Separate the cells of a table by commas, semicolons or tabs"
        )


def _delimiter(header: str) -> str | None:
    """What divides most cells of a CSV's header, outside of quotes; None where there is one cell."""
    outside = _QUOTED_CELL.sub("", header)
    delimiter = max(",;|", key=outside.count)
    return delimiter if delimiter in outside else None


def is_json_array(head: bytes) -> bool:
    """Whether a file that starts with `head` is a JSON array of objects."""
    return _OBJECTS.match(head.decode("utf-8-sig", "replace")) is not None


def is_quoted(head: str) -> bool:
    """Whether a TSV that starts with `head` was written with quoting, as Python's csv module does it.

    It was when all cells of its first row are in quotes; or when quotes stand around whole cells only, and some of them
    are there because the cell holds a quote, or a tab or line break without which rows have unequal numbers of cells.
    """
    head = head.removeprefix("\ufeff").lstrip("\r\n")
    first, *others = (line.rstrip("\r").split("\t") for line in head.split("\n"))
    if all(_QUOTED_CELL.fullmatch(cell) for cell in first):
        return True
    is_ragged = any(len(cells) != len(first) for cells in others[:-1] if cells != [""])
    place, is_needed = 0, False
    while place < len(head):
        match = _CELL.match(head, place)
        if match is None:
            goes_on_after_the_sample = head[place] == '"' and '"' not in head[place + 1 :].replace('""', "")
            return is_needed and goes_on_after_the_sample
        inside = match[1] or ""
        is_needed = is_needed or '"' in inside or (is_ragged and ("\t" in inside or "\n" in inside))
        place = match.end()
    return is_needed


def numbered_lines(path: Path, chunks: Iterable[bytes]) -> Lines:
    """Numbered lines, ends included. Bytes that are not UTF-8 become lone surrogates: only their row is set aside."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    number, rest = 1, ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            yield number, line + "\n"
            number += 1
        if len(rest) > LONGEST_LINE:
            raise TilthError(
                f"{path}: line {number} is longer than {LONGEST_LINE:,} characters, too long for an example"
            )
    rest += decoder.decode(b"", final=True)
    if rest:
        yield number, rest


def _json_rows(lines: Lines) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else "not a JSON object"


def _array_rows(path: Path, number: int, content: str) -> Iterator[Row]:
    """The items of a JSON array that starts on line `number`, each with the line on which it starts."""
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TilthError(f"{path} is not a whole JSON array: {error}. Mend it or write jsonl") from None
    decoder = json.JSONDecoder()
    place = content.index("[") + 1
    while True:
        start = _BETWEEN.match(content, place).end()  # pyright: ignore[reportOptionalMemberAccess] (it matches "" too)
        number += content.count("\n", place, start)
        if content[start] == "]":
            return
        row, place = decoder.raw_decode(content, start)
        yield number, row if isinstance(row, dict) else "not a JSON object"
        number += content.count("\n", start, place)


def _tab_rows(
    path: Path, lines: Lines, is_header: Callable[[list[str]], bool], headerless: tuple[str, str]
) -> Iterator[Row]:
    number, first = next(lines)
    names = [cell.strip() for cell in first.split("\t")]
    if len(names) <= 2 and not is_header(names):
        names = list(headerless[: len(names)])
        lines = itertools.chain([(number, first)], lines)
    _check_names(path, names)
    for number, line in lines:
        if line.strip():
            yield number, _row(names, line.rstrip("\r\n").split("\t"))


def _quoted_rows(
    path: Path, lines: Lines, delimiter: str, is_header: Callable[[list[str]], bool], headerless: tuple[str, str]
) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)
    first_number, first = next(lines)
    reader = csv.reader(itertools.chain([first], (line for _, line in lines)), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    line_number = first_number
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TilthError(
                f"{path}, near line {line_number}: {error}; a quote may be open, or one within a cell not doubled. "
                "Mend it or write jsonl"
            ) from None
        if cells is None:
            return
        is_row = names is not None
        if names is None:
            names = [cell.strip() for cell in cells]
            if len(names) <= 2 and not is_header(names):
                names, is_row = list(headerless[: len(names)]), True
            _check_names(path, names)
        if is_row and cells and holds_rows(cells, delimiter):
            yield line_number, "a cell of many lines that look like rows, as when a quote is open"
        elif is_row and cells:
            yield line_number, _row(names, cells)
        line_number = first_number + reader.line_num


def _check_names(path: Path, names: list[str]) -> None:
    """Check that no two columns have one name, which would hide the first of them; spreadsheets leave empty ones."""
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise TilthError(f"{path}: its header names the column {twice[:40]!r} more than once; rename all but one")


def _row(names: list[str], cells: list[str]) -> dict[str, Any] | str:
    if len(cells) != len(names):
        return f"{len(cells)} cells in {len(names)} columns"
    return dict(zip(names, cells, strict=True))


def _parquet_rows(path: Path, file: BinaryIO) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        table = parquet.ParquetFile(file)
        _check_names(path, table.schema_arrow.names)
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise TilthError(f"{path} is not a whole Parquet file: {error}") from None
