"""The texts of a file: those of a table, or one a line."""

import json
import re
from collections.abc import Sequence
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
    columns_of,
    is_utf8,
    rejected_message,
    usable_text,
)
from tilth.tasks.formats import is_json_array, numbered_lines, opened, read_rows

_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"}
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
_HEADER = re.compile(r'"?[\w.-]+"?(?:[,;\t]"?[\w.-]+"?)+')
"""Words with a comma, semicolon or tab between them and no blank, as no sentence has them."""


def read_texts(path: str | Path, text_column: str | None = None) -> list[tuple[int, str]]:
    """The texts of a file in its order, compressed or not, each with its line (of a Parquet file, its row), from 1.

    A csv, tsv, jsonl, json or parquet file is a table with a text column, as for `read_examples`; so is a file of
    another name that is Parquet, whose first line is a JSON object, that is a JSON array of objects, or whose text
    column is named. Any other file holds one text a line. What is no text (a blank line, a row without text) is left
    out, and standard error says so with its line.
    Raises: UsageError when the file is missing, TilthError when it is unreadable, not UTF-8 or without a text, when the
    text column is missing or could be several, when a file of another name starts with what may be a table's header,
    and when too many rows of a table are broken.
    """
    path = Path(path)
    if path.is_dir():
        raise TilthError(f"{path} is a folder; give one file of texts")
    names = (text_column,) if text_column else TEXT_COLUMNS
    is_table = text_column is not None or _suffix(path) in _TABLES
    lines: list[str] = []
    with opened(path) as stream:
        is_table = is_table or stream.head.startswith(b"PAR1") or is_json_array(stream.head)
        if not is_table:
            lines = [line.removesuffix("\n") for _, line in numbered_lines(path, stream.chunks())]
    first = next((line.strip() for line in lines if line.strip()), "")
    if is_table or _is_json_object(first):
        return _texts_of_table(path, names, text_column is not None)
    _check_is_no_header(path, first)
    return texts_of_lines(str(path), lines)


def texts_of_lines(source: str, lines: Sequence[str]) -> list[tuple[int, str]]:
    """The lines that are texts, each with its number; how many are blank is said on standard error.

    Raises: TilthError when none is left, or one is not UTF-8.
    """
    texts = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1) if line.strip()]
    if not texts:
        raise TilthError(f"{source} holds no text")
    for number, line in enumerate(lines, 1):
        if not is_utf8(line):
            raise TilthError(f"{source} is not UTF-8 text (line {number})")
    if blank := len(lines) - len(texts):
        announce(f"{blank} blank {'line was' if blank == 1 else 'lines were'} left out.")
    return texts


def _is_json_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _check_is_no_header(path: Path, first: str) -> None:
    """Check that a file that is to be read line by line does not start as a table does, whose rows are no texts."""
    header = [cell.strip('"') for cell in re.split("[,;\t]", first)] if _HEADER.fullmatch(first) else []
    if column := next((name for name in TEXT_COLUMNS if name in header), None):
        raise TilthError(
            f"{path} may be a table, because it starts with {first[:60]!r}: read it with --text-column {column}. "
            "If it holds one text a line, give it on standard input"
        )


def _suffix(path: Path) -> str:
    """The end of a file's name, that of its compression aside."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    return suffixes[-1] if suffixes else ""


def _texts_of_table(path: Path, names: tuple[str, ...], is_named: bool) -> list[tuple[int, str]]:
    has_header = True

    def is_header(cells: list[str]) -> bool:
        nonlocal has_header
        has_header = is_named or bool(set(cells) & set(names))
        return has_header

    one_column = "\t" if _suffix(path) == ".tsv" else "," if is_named or _suffix(path) == ".csv" else None
    found, rows = columns_of(read_rows(path, is_header, (names[0], LABEL_COLUMNS[0]), one_column))
    column = ""
    texts: list[tuple[int, str]] = []
    others: list[str] = []
    broken: list[Rejected] = []
    for line, row in rows:
        if isinstance(row, str):
            broken.append(Rejected(line, row))
            continue
        column = column or _text_column(path, found, names)
        text, reason = usable_text(row.get(column))
        if reason:
            broken.append(Rejected(line, reason))
        else:
            texts.append((line, text))
            others.append(str(row.get(LABEL_COLUMNS[0])))
    check_rejected(path, len(texts) + len(broken), broken)
    if not texts:
        raise TilthError(f"{path} holds no text")
    if not has_header:
        check_headerless(path, [text for _, text in texts], others)
    if broken:
        announce(rejected_message(str(path), len(texts), broken))
    return texts


def _text_column(path: Path, found: list[str], names: tuple[str, ...]) -> str:
    if _suffix(path) == ".csv" and len(found) == 1 and len(names) > 1 and found[0] not in names:
        raise TilthError(
            f"{path}: the first line of a csv file is its header, and {found[0][:40]!r} is no usual name of a text "
            f"column ({', '.join(names)}). Give the name with --text-column; if the line is a text, call the file .txt"
        )
    return choose_column(found, names, "text", path)
