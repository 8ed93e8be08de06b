"""Rows of JSON lines, CSV, TSV and Parquet files, told by content; each row comes with its line, or with what is wrong.

TSV is read without quoting, because the tab-separated files of language tasks hold unbalanced quotes; CSV is read with
the usual quoting.
"""

import codecs
import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tilth.corpus.compression import Broken, Stream, file_chunks, open_stream
from tilth.errors import TilthError

LONGEST_LINE = 16_000_000

Row = tuple[int, dict[str, Any] | str]
"""A line number, and the row's values by column, or the reason why the line is not a row."""

Lines = Iterator[tuple[int, str]]


def read_rows(path: Path, is_header: Callable[[list[str]], bool], headerless: tuple[str, str]) -> Iterator[Row]:
    """The rows of a file, in order. Blank lines are passed over.

    is_header: whether the first line of a two-column TSV names its columns; where it does not, they are `headerless`.
    Raises: TilthError when the file is missing, empty, damaged, or in no known format.
    """
    if path.is_dir():
        raise TilthError(f"{path} is a folder; give one file of labelled examples (jsonl, csv, tsv or parquet)")
    try:
        with open(path, "rb") as file:
            stream = open_stream(file_chunks(file, lambda size: None), path.stat().st_size)
            if stream.head.startswith(b"PAR1"):
                with stream.spool() as whole:
                    yield from _parquet_rows(path, whole)
            elif b"\0" in stream.head:
                raise TilthError(f"{path} is binary, not jsonl, csv, tsv or parquet")
            else:
                yield from _text_rows(path, stream, is_header, headerless)
    except FileNotFoundError:
        raise TilthError(f"{path} does not exist") from None
    except OSError as error:
        raise TilthError(f"{path} cannot be read: {error.strerror}") from None
    except Broken as error:
        raise TilthError(f"{path} is damaged: {error.detail}; copy or download it again") from None


def _text_rows(
    path: Path, stream: Stream, is_header: Callable[[list[str]], bool], headerless: tuple[str, str]
) -> Iterator[Row]:
    lines = _lines(path, stream.chunks())
    first = next((line for line in lines if line[1].strip()), None)
    if first is None:
        raise TilthError(f"{path} is empty; it needs rows of text and label")
    lines = itertools.chain([first], lines)
    if first[1].lstrip().startswith("{"):
        yield from _json_rows(lines)
    elif "\t" in first[1]:
        yield from _tab_rows(lines, is_header, headerless)
    elif "," in first[1]:
        yield from _comma_rows(path, lines)
    else:
        raise TilthError(f"{path} is not jsonl, csv, tsv or parquet: it starts with {first[1].strip()[:60]!r}")


def _lines(path: Path, chunks: Iterable[bytes]) -> Lines:
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


def _tab_rows(lines: Lines, is_header: Callable[[list[str]], bool], headerless: tuple[str, str]) -> Iterator[Row]:
    number, first = next(lines)
    names = [cell.strip() for cell in first.split("\t")]
    if len(names) == 2 and not is_header(names):
        names = list(headerless)
        lines = itertools.chain([(number, first)], lines)
    for number, line in lines:
        if line.strip():
            yield number, _row(names, line.rstrip("\r\n").split("\t"))


def _comma_rows(path: Path, lines: Lines) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader((line for _, line in lines), strict=True)
    names: list[str] | None = None
    line_number = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TilthError(
                f"{path}, near line {line_number}: {error}; a quote may be open. Mend it or write jsonl"
            ) from None
        if cells is None:
            return
        if names is None:
            names = [cell.strip() for cell in cells]
        elif cells:
            yield line_number, _row(names, cells)
        line_number = reader.line_num + 1


def _row(names: list[str], cells: list[str]) -> dict[str, Any] | str:
    if len(cells) != len(names):
        return f"{len(cells)} cells in {len(names)} columns"
    return dict(zip(names, cells, strict=True))


def _parquet_rows(path: Path, file: BinaryIO) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise TilthError(f"{path} is not a whole Parquet file: {error}") from None
