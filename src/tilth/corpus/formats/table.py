"""CSV and TSV with a header row."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from tilth.corpus.compression import HEAD, Stream
from tilth.corpus.formats.columns import NoTextColumn, find_text_column
from tilth.corpus.formats.jsonl import own_id
from tilth.corpus.formats.lines import excerpt, read_lines
from tilth.corpus.reading import Reading
from tilth.corpus.records import Item, Record, Rejected
from tilth.corpus.rejections import WHOLE_FILE

MAX_LINE = 64_000_000
FEWEST_LINES = 10
"""Of a cell that may be rows."""
_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read_table(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """A record a row; the other columns are metadata. Rows with more or fewer fields than the header are rejected.

    Raises: Broken after the last whole row.
    """
    feed, dialect = _Feed(stream, source), _dialect(stream.head, source)
    csv.field_size_limit(MAX_LINE)
    rows = csv.reader(feed, **dialect, strict=True)
    columns: list[str] | None = None
    column = ""
    ended = False
    while not ended:
        feed.first = 0
        row: list[str] = []
        problem = None
        try:
            row = next(rows)
        except StopIteration:
            ended = True
        except csv.Error as error:
            problem = f"{error}: {excerpt(feed.line)}"
        yield from feed.take_rejected()
        where = f"line {feed.number}" if feed.first == feed.number else f"lines {feed.first}-{feed.number}"
        if problem:
            yield Rejected(source, where, "malformed_row", problem)
        elif row and columns is None:
            columns = [name.strip() for name in row]
            try:
                column = find_text_column(columns, reading.text_column)
            except NoTextColumn as error:
                yield Rejected(source, WHOLE_FILE, "no_text_column", f"{error}; {where} is read as the header")
                return
        elif row and columns and len(row) != len(columns):
            detail = f"{len(row)} fields where the header has {len(columns)}: {excerpt(feed.line)}"
            yield Rejected(source, where, "ragged_row", detail)
        elif row and columns and holds_rows(row, dialect["delimiter"]):
            detail = "a cell of many lines that look like rows, as when a quote is open"
            yield Rejected(source, where, "malformed_row", f"{detail}: {excerpt(feed.line)}")
        elif row and columns:
            metadata = dict(zip(columns, row, strict=True))
            text = metadata.pop(column)
            yield Record(own_id(metadata) or f"{source}:{feed.first}", text, source, metadata)


def holds_rows(row: Sequence[str], delimiter: str) -> bool:
    """Whether a cell is of many lines that nearly all have as many cells as the row: a quote that opens in one row and
    closes in another makes one cell of all between.
    """
    for cell in row if len(row) > 1 else ():
        lines = cell.split("\n")[1:-1]
        like_rows = sum(line.count(delimiter) == len(row) - 1 for line in lines)
        if len(lines) >= FEWEST_LINES and like_rows >= 0.9 * len(lines):
            return True
    return False


class _Feed:
    """The decoded lines that a `csv.reader` asks for; those that cannot be decoded are set aside instead.

    number: of the last line taken, from 1. line: its text. first: number of the first line taken since it was set to 0.
    """

    def __init__(self, stream: Stream, source: str) -> None:
        self._lines = read_lines(stream.chunks(), MAX_LINE)
        self._source = source
        self._rejected: list[Rejected] = []
        self.number = self.first = 0
        self.line = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for number, offset, line in self._lines:
            self.number = number
            if line is None:
                self._reject(offset, "too_large", f"the line is longer than {MAX_LINE // 1_000_000} MB")
                continue
            try:
                self.line = line.decode("utf-8")
                self.first = self.first or number
                return self.line
            except UnicodeDecodeError as error:
                detail = f"byte {error.start:,} of the line is not UTF-8 ({error.reason})"
                self._reject(offset, "invalid_utf8", detail)
        raise StopIteration

    def _reject(self, offset: int, reason: str, detail: str) -> None:
        self._rejected.append(Rejected(self._source, f"line {self.number}, byte {offset}", reason, detail))

    def take_rejected(self) -> list[Rejected]:
        taken, self._rejected = self._rejected, []
        return taken


def _dialect(head: bytes, source: str) -> dict:
    """Delimiter by the header line; a tab in a file of that name, unless the line has others alone. Quotes count,
    except in tab-separated tables whose beginning does not use them to quote: they may be plain characters later."""
    sample = head.decode("utf-8", "replace").removeprefix("\ufeff")
    header = _QUOTED.sub("", sample.partition("\n")[0])
    delimiter = max(_DELIMITERS, key=header.count)
    if ".tsv" in PurePosixPath(source.lower()).suffixes[-2:] and ("\t" in header or not header.count(delimiter)):
        delimiter = "\t"
    if delimiter != "\t":
        return {"delimiter": delimiter}
    lines = sample.splitlines()
    whole = lines if len(head) < HEAD else lines[:-1]
    fields = [field for line in whole for field in line.split("\t") if field.startswith('"')]
    quoted = bool(fields) and all(_QUOTED.fullmatch(field) for field in fields)
    return {"delimiter": "\t", "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE}
