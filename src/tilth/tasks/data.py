"""Labelled data: reading it, sampling it, and splitting it without leaks."""

import hashlib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilth.corpus.formats.columns import TEXT_COLUMNS
from tilth.corpus.rejections import allowed_rejections
from tilth.errors import TilthError
from tilth.key import Key
from tilth.progress import announce
from tilth.tasks.formats import Row, read_rows

LABEL_COLUMNS = ("label", "intent", "class", "category")
NOT_UTF8 = "not valid UTF-8"
MOST_REJECTED = 0.01
"""Share of the rows that may be broken; see `allowed_rejections`."""
_NAME = re.compile(r"[\w.-]+")
"""What a column may be called."""
_FEWEST_ROWS = 6
"""Of a table whose columns are told from what is in them."""
_ROWS_WITH_COLUMNS = 1000
"""Rows that are looked at for the columns there are: a JSON object may lack some of them."""


@dataclass(frozen=True)
class Rejected:
    """A row that is not an example, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Examples:
    """Texts with their labels, in file order; `rejected` holds the rows that were set aside while reading."""

    texts: list[str]
    labels: list[str]
    source: str = "the data"
    rejected: list[Rejected] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indexes: Sequence[int]) -> "Examples":
        """The examples at `indexes`, in that order."""
        return Examples([self.texts[i] for i in indexes], [self.labels[i] for i in indexes], self.source)

    def label_names(self) -> list[str]:
        """Every label once, in order: by value where all are whole numbers, else alphabetically."""
        names = set(self.labels)
        if all(name.removeprefix("-").isdecimal() for name in names):
            return sorted(names, key=lambda name: (int(name), name))
        return sorted(names)

    def label_indexes(self, names: Sequence[str]) -> list[int]:
        """The place of each example's label in `names`.

        Raises: TilthError naming the labels that are not there.
        """
        places = {name: index for index, name in enumerate(names)}
        unknown = Counter(label for label in self.labels if label not in places)
        if unknown:
            counts = [f"{label!r} ({count} examples)" for label, count in unknown.most_common()]
            raise TilthError(
                f"{self.source} has {len(unknown)} label(s) that were not learned: {listed(counts, quote=False)}; "
                f"the known labels are {listed(names)}. Use data with these labels, or fine-tune on the new ones"
            )
        return [places[label] for label in self.labels]


def read_examples(path: str | Path, text_column: str | None = None, label_column: str | None = None) -> Examples:
    """Read labelled examples from a jsonl, json, csv, tsv or parquet file, compressed or not.

    The text column is one of the corpus's `TEXT_COLUMNS`, by the corpus's rule; the label column is `label`, else
    `intent`, `class` or `category`; any other must be named. A TSV of two columns without such a header is text TAB
    label, unless a column is named.
    Labels become strings. Rows without text or label, ragged rows and broken records are set aside with their line.
    Raises: UsageError when the file is missing, TilthError when it is empty or unreadable, when a column is
    missing or could be several, and when too many rows are set aside: see `check_rejected`.
    """
    path = Path(path)
    text_names = (text_column,) if text_column else TEXT_COLUMNS
    label_names = (label_column,) if label_column else LABEL_COLUMNS
    headerless = (text_names[0], label_names[0])

    first_cells: list[list[str]] = []

    def is_header(cells: list[str]) -> bool:
        first_cells.append(cells)
        if text_column or label_column:
            return True
        return bool(set(cells) & set(text_names)) and bool(set(cells) & set(label_names))

    columns: tuple[str, str] | None = None
    texts: list[str] = []
    labels: list[str] = []
    rejected: list[Rejected] = []
    found, rows = columns_of(read_rows(path, is_header, headerless))
    for line, row in rows:
        if isinstance(row, str):
            rejected.append(Rejected(line, row))
            continue
        if columns is None:
            columns = (
                choose_column(found, text_names, "text", path),
                choose_column(found, label_names, "label", path),
            )
        text, label, reason = _example(row.get(columns[0]), row.get(columns[1]))
        if reason:
            rejected.append(Rejected(line, reason))
        else:
            texts.append(text)
            labels.append(label)
    _check(path, texts, labels, rejected)
    if first_cells and first_cells[0] == [texts[0].strip(), labels[0]]:
        check_headerless(path, texts, labels)
    return Examples(texts, labels, str(path), rejected)


def columns_of(rows: Iterator[Row]) -> tuple[list[str], Iterator[Row]]:
    """The names of the columns that the first rows have between them, in order, and all the rows."""
    first: list[Row] = []
    names: dict[str, None] = {}
    count = 0
    for number, row in rows:
        first.append((number, row))
        if isinstance(row, dict):
            names |= dict.fromkeys(row)
            count += 1
        if count == _ROWS_WITH_COLUMNS:
            break
    return list(names), itertools.chain(first, rows)


def choose_column(found: list[str], names: tuple[str, ...], role: str, path: Path) -> str:
    """The one column of `found` that plays a role: the first of `names` if there, else the only other one there.

    Raises: TilthError naming the columns there are when none is, or several are.
    """
    present = [name for name in names if name in found]
    if names[0] in present or len(present) == 1:
        return present[0]
    if present:
        raise TilthError(f"{path}: the {role} may be column {' or '.join(present)}; say which with --{role}-column")
    if len(names) == 1:
        raise TilthError(
            f"{path}: no column {names[0]!r}; the columns are {listed([name[:40] for name in found], quote=False)}"
        )
    raise TilthError(
        f"{path} has no {role} column ({', '.join(names)}); its columns are {listed(found)}. "
        f"Name the right one with --{role}-column"
    )


def _example(text: Any, label: Any) -> tuple[str, str, str | None]:
    """Text and label as strings, and why they are not an example (None when they are)."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # tables turn whole numbers into floats when a cell is missing
    text, reason = usable_text(text)
    if reason:
        return "", "", reason
    if isinstance(label, (list, dict, bytes)):
        return "", "", "the label is not one value"
    name = "" if label is None or label != label else str(label).strip()
    if not name:
        return "", "", "no label"
    return (text, name, None) if is_utf8(name) else ("", "", NOT_UTF8)


def usable_text(text: Any) -> tuple[str, str | None]:
    """A cell as a text, and why it is none (None when it is)."""
    if text is not None and not isinstance(text, str):
        return "", "the text is not a string"
    if not text or not text.strip():
        return "", "no text"
    return (text, None) if is_utf8(text) else ("", NOT_UTF8)


def is_utf8(text: str) -> bool:
    """Whether the text was decoded without bytes that are not UTF-8, which stand in it as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check(path: Path, texts: list[str], labels: list[str], rejected: list[Rejected]) -> None:
    check_rejected(path, len(texts) + len(rejected), rejected)
    if not texts:
        raise TilthError(f"{path} has no rows; it needs examples of text and label")


def check_rejected(path: str | Path, rows: int, rejected: Sequence[Rejected]) -> None:
    """Check that no more of the rows of a file were set aside than the corpus's rule allows.

    Raises: TilthError naming the first of them.
    """
    if len(rejected) > allowed_rejections(rows, MOST_REJECTED):
        reasons = [f"line {row.line}: {row.reason}" for row in rejected]
        what_to_do = "Mend the file"
        if any(row.reason == NOT_UTF8 for row in rejected):
            what_to_do = "Convert the file, for instance by iconv -f WINDOWS-1252 -t UTF-8"
        raise TilthError(
            f"{path}: {len(rejected)} of {rows} rows cannot be used ({listed(reasons, quote=False)}). {what_to_do}"
        )


def tell_rejected(examples: Examples, shown: bool = True) -> None:
    """Say on standard error how many rows were left out and why."""
    if message := rejected_message(examples.source, len(examples), examples.rejected):
        announce(message, shown)


def rejected_message(source: str, used: int, rejected: Sequence[Rejected]) -> str:
    """`FILE: 3 of 60 rows were left out: no text (lines 4, 9), no label (line 12)`; "" when none was."""
    if not rejected:
        return ""
    lines: dict[str, list[str]] = defaultdict(list)
    for row in rejected:
        lines[row.reason].append(str(row.line))
    reasons = [
        f"{reason} ({'line' if len(of) == 1 else 'lines'} {listed(of, quote=False)})" for reason, of in lines.items()
    ]
    were = "was" if len(rejected) == 1 else "were"
    rows = used + len(rejected)
    return f"{source}: {len(rejected)} of {rows} rows {were} left out: {listed(reasons, quote=False)}"


def check_headerless(path: Path, texts: Sequence[str], labels: Sequence[str]) -> None:
    """Check that the first row of a file that was read as one without a header is not one, and that its second column
    is the label.

    Raises: TilthError when that row has a label of its own among labels that come again and again (in a small file,
    beside a text that could be a name), and when the texts come again and again but the labels do not.
    """
    half = len(texts) // 2
    if len(texts) >= _FEWEST_ROWS and len(set(texts)) <= half < len(set(labels)):
        raise TilthError(
            f"{path}: of {len(texts)} rows, the first column has {len(set(texts))} values and the second "
            f"{len(set(labels))}: is the label first? Add a first line that names the columns, such as label<TAB>text"
        )
    may_be_name = len(texts) > 10 or _NAME.fullmatch(texts[0].strip()) is not None
    if may_be_name and labels.count(labels[0]) == 1 and len(set(labels)) <= half:
        raise TilthError(
            f"{path}: the first row ({texts[0][:40]!r}, {labels[0]!r}) is the only one with its label and looks like a "
            "header. Name its columns with --text-column and --label-column, or remove the row"
        )


def stratified_sample(examples: Examples, per_class: int, seed: int) -> Examples:
    """`per_class` examples of every label (all of a label that has fewer), in an order that mixes the labels.

    Samples nest: with one seed, a larger sample holds every example of a smaller one.
    """
    return examples.take(sample_indexes(examples, per_class, seed))


def sample_indexes(examples: Examples, per_class: int, seed: int) -> list[int]:
    """Which examples `stratified_sample` takes, in its order."""
    by_label = defaultdict(list)
    for index in Key(seed, 0, "stratified sample").generator().permutation(len(examples)):
        by_label[examples.labels[index]].append(int(index))
    ranks = [
        (rank, label, index) for label, indexes in by_label.items() for rank, index in enumerate(indexes[:per_class])
    ]
    return [index for _, _, index in sorted(ranks)]


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Split into (train, held out) with about `share` of every label held out.

    Equal texts (by `normal_text`) fall on the same side, chosen by a hash of the text: what is held out is not seen.
    A label keeps at least one distinct text in train, and gives at least one to the held-out side when it has two.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(examples.texts):
        groups[normal_text(text)].append(index)
    by_label = defaultdict(list)
    for text, indexes in groups.items():
        digest = hashlib.sha256(f"{seed}/{text}".encode()).digest()
        by_label[examples.labels[indexes[0]]].append((digest, indexes))
    held_out: list[int] = []
    for members in by_label.values():
        members.sort()
        wanted = share * sum(len(indexes) for _, indexes in members)
        taken = 0
        for _, indexes in members[:-1]:
            if taken > 0 and taken + len(indexes) / 2 > wanted:
                break
            held_out += indexes
            taken += len(indexes)
    chosen = set(held_out)
    return examples.take([i for i in range(len(examples)) if i not in chosen]), examples.take(sorted(chosen))


def without(examples: Examples, held_out: Examples) -> tuple[Examples, int]:
    """The examples whose text is not also a held-out text, and how many are.

    Raises: TilthError when none is left.
    """
    held_texts = {normal_text(text) for text in held_out.texts}
    kept = [index for index, text in enumerate(examples.texts) if normal_text(text) not in held_texts]
    if not kept:
        raise TilthError(f"every text of {examples.source} is also in the held-out data; give other data to measure on")
    return examples.take(kept), len(examples) - len(kept)


def normal_text(text: str) -> str:
    """The form in which two texts count as equal: letter case and spacing ignored."""
    return " ".join(text.casefold().split())


def listed(names: Sequence[str], most: int = 8, quote: bool = True) -> str:
    """The first `most` names for an error message, each cut to a readable length where it is quoted."""
    shown = [repr(name[:40]) if quote else name for name in names[:most]]
    return ", ".join(shown) + (f", ... ({len(names)} in all)" if len(names) > most else "")
