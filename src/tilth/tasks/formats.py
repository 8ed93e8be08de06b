"""Rows of JSON lines, CSV, TSV and Parquet files, told by content; each row comes with its line, or with what is wrong.

TSV is read without quoting, because the tab-separated files of language tasks hold unbalanced quotes; CSV is read with the
usual quoting.
"""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

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
        with open(path, "rb") as raw:
            file = _decompressed(raw)
            head = file.peek(8)[:8]
            if head.startswith(b"PAR1"):
                yield from _parquet_rows(path, file)
            else:
                yield from _text_rows(path, file, is_header, headerless)
    except FileNotFoundError:
        raise TilthError(f"{path} does not exist") from None
    except (OSError, EOFError, _compression_errors()) as error:
        raise TilthError(f"{path} cannot be read: {error}; if it is compressed, it may be cut short") from None


def _decompressed(raw: IO[bytes]) -> io.BufferedReader:
    """The plain bytes of a file that may be compressed with gzip, bzip2, xz or zstandard."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        import gzip

        return io.BufferedReader(gzip.open(raw))  # type: ignore[arg-type]
    if magic.startswith(b"BZh"):
        import bz2

        return io.BufferedReader(bz2.open(raw))  # type: ignore[arg-type]
    if magic.startswith(b"\xfd7zXZ\x00"):
        import lzma

        return io.BufferedReader(lzma.open(raw))  # type: ignore[arg-type]
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return raw  # type: ignore[return-value]


def _compression_errors() -> tuple[type[Exception], ...]:
    import lzma
    import zlib

    import zstandard

    return (lzma.LZMAError, zlib.error, zstandard.ZstdError)


def _text_rows(
    path: Path, file: io.BufferedReader, is_header: Callable[[list[str]], bool], headerless: tuple[str, str]
) -> Iterator[Row]:
    if b"\0" in file.peek(4096)[:4096]:
        raise TilthError(f"{path} is binary, not jsonl, csv, tsv or parquet")
    # Bytes that are not UTF-8 become lone surrogates, so that only the row that holds them is set aside.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    lines = _lines(path, text)
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


def _lines(path: Path, text: io.TextIOWrapper) -> Lines:
    for number in itertools.count(1):
        line = text.readline(LONGEST_LINE)
        if not line:
            return
        if len(line) == LONGEST_LINE:
            raise TilthError(f"{path}: line {number} is longer than {LONGEST_LINE:,} characters; it is no labelled example")
        yield number, line


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
    reader = csv.reader((line for _, line in lines), strict=True)
    names: list[str] | None = None
    line_number = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TilthError(f"{path}, near line {line_number}: {error}; a quote may be open. Mend it or write jsonl") from None
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


def _parquet_rows(path: Path, file: io.BufferedReader) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    source = file if file.seekable() and isinstance(file, io.BufferedReader) else io.BytesIO(file.read())
    try:
        table = parquet.ParquetFile(source)
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowException as error:
        raise TilthError(f"{path} is not a whole Parquet file: {error}") from None
