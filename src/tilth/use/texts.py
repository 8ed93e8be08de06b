"""The texts of a file: those of a table, or one a line."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tilth.corpus.formats.columns import TEXT_COLUMNS
from tilth.errors import TilthError
from tilth.progress import announce
from tilth.tasks.data import (
    LABEL_COLUMNS,
    Rejected,
    check_headerless,
    check_rejected,
    choose_column,
    is_utf8,
    rejected_message,
    usable_text,
)
from tilth.tasks.formats import numbered_lines, opened, read_rows

_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}


def read_texts(path: str | Path, text_column: str | None = None) -> list[str]:
    """The texts of a file in its order, compressed or not.

    A csv, tsv, jsonl or parquet file is a table with a text column, as for `read_examples`; so is a file of another
    name that is Parquet, starts with a JSON object or with a header that names a text column, or whose text column is
    named. Any other file holds one text a line. What is no text (a blank line, a row without text) is left out, and
    standard error says so with its line.
    Raises: UsageError when the file is missing, TilthError when it is unreadable, not UTF-8 or without a text, when the
    text column is missing or could be several, and when too many rows of a table are broken.
    """
    path = Path(path)
    if path.is_dir():
        raise TilthError(f"{path} is a folder; give one file of texts")
    names = (text_column,) if text_column else TEXT_COLUMNS
    with opened(path) as stream:
        is_table = text_column is not None or _is_table(path, stream.head, names)
        if not is_table:
            lines = [line.removesuffix("\n") for _, line in numbered_lines(path, stream.chunks())]
    return _texts_of_table(path, names, text_column is not None) if is_table else texts_of_lines(str(path), lines)


def texts_of_lines(source: str, lines: Sequence[str]) -> list[str]:
    """The lines that are texts; how many are blank is said on standard error.

    Raises: TilthError when none is left, or one is not UTF-8.
    """
    texts = [line.removesuffix("\r") for line in lines if line.strip()]
    if not texts:
        raise TilthError(f"{source} holds no text")
    for number, line in enumerate(lines, 1):
        if not is_utf8(line):
            raise TilthError(f"{source} is not UTF-8 text (line {number})")
    if blank := len(lines) - len(texts):
        announce(f"{blank} blank {'line was' if blank == 1 else 'lines were'} left out.")
    return texts


def _is_table(path: Path, head: bytes, names: Iterable[str]) -> bool:
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0].decode("utf-8", "replace").strip()
    headers = [[cell.strip(' "') for cell in first.split(delimiter)] for delimiter in "\t,"]
    return (
        _suffix(path) in _TABLES
        or head.startswith(b"PAR1")
        or first.startswith('{"')
        or any(len(header) > 1 and set(names) & set(header) for header in headers)
    )


def _suffix(path: Path) -> str:
    """The end of a file's name, that of its compression aside."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    return suffixes[-1] if suffixes else ""


def _texts_of_table(path: Path, names: tuple[str, ...], is_named: bool) -> list[str]:
    has_header = True

    def is_header(cells: list[str]) -> bool:
        nonlocal has_header
        has_header = is_named or bool(set(cells) & set(names))
        return has_header

    column = ""
    texts: list[str] = []
    others: list[str] = []
    broken: list[Rejected] = []
    for line, row in read_rows(
        path, is_header, (names[0], LABEL_COLUMNS[0]), one_column="\t" if _suffix(path) == ".tsv" else ","
    ):
        if isinstance(row, str):
            broken.append(Rejected(line, row))
            continue
        column = column or choose_column(list(row), names, "text", path)
        text, reason = usable_text(row.get(column))
        if reason:
            broken.append(Rejected(line, reason))
        else:
            texts.append(text)
            others.append(str(row.get(LABEL_COLUMNS[0])))
    check_rejected(path, len(texts) + len(broken), broken)
    if not texts:
        raise TilthError(f"{path} holds no text")
    if not has_header:
        check_headerless(path, texts, others)
    if broken:
        announce(rejected_message(str(path), len(texts), broken))
    return texts
