"""Lines and paragraphs that many documents have are taken out: of all but the first of these, or of all.

CCNet (Wenzek et al. 2020, 3.1) and Dolma (Soldaini et al. 2024, 4.3) do so with paragraphs; what they find is mostly
menus, notices and calls to subscribe. They look at a shard of a crawl or into a Bloom filter; here counts are of the
whole corpus and exact, but for collisions of 63-bit hashes. Documents that are dropped as duplicates or near-duplicates
do not count: a page and its mirrors are one.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tilth.corpus.dedupe import add_digests
from tilth.corpus.file_task import KEYS, SAMPLE_CHARACTERS, SAMPLES, TEXTS, UNITS, PartWriter, read_batches
from tilth.corpus.filters import BatchFunction
from tilth.corpus.filters.columns import merge_metadata, replace_texts
from tilth.corpus.filters.hashes import HashSet
from tilth.corpus.measure import measure
from tilth.corpus.normalise import normalise
from tilth.corpus.settings import CorpusSettings, Repeated
from tilth.corpus.sketch import sketcher
from tilth.corpus.stages import SHINGLE
from tilth.corpus.units import KINDS, kind_of, units_of, without_lines

MOST_HASHES = 2**22
"""Hashes that are counted at a time, about: 100 MB of memory."""

MOST_SHOWN, SHOWN_CHARACTERS = 10, 200
"""Units of each kind on the card, those that most documents have, and how much of each."""


@dataclass(frozen=True)
class Frequent:
    """Units that more documents have than are allowed, by their hashes.

    hashes: uint64, ascending. first: the first document with each, -1 where that is to lose it too. documents: how many
    have it. losing: bool (documents of all parts,), which lose some. All int64 but for the first and the last.
    """

    hashes: np.ndarray
    first: np.ndarray
    documents: np.ndarray
    losing: np.ndarray


@dataclass
class _Edits:
    """What was taken out. units: of each kind. shown: the text of the most frequent, by hash."""

    documents: int = 0
    characters: int = 0
    units: Counter[str] = field(default_factory=Counter)
    shown: dict[int, str] = field(default_factory=dict)
    samples: list[list[str]] = field(default_factory=list)


def count_units(folders: Sequence[Path], kept: np.ndarray, repeated: Repeated) -> Frequent:
    """Find the units that too many documents have.

    folders: of the parts, whose units are sorted in batches, so that a range of hashes is read without the others.
    kept: bool (documents of all parts,), those that count.
    """
    limits = np.array([getattr(repeated, kind) or np.iinfo(np.int64).max for kind in KINDS])
    batches = list(_sorted_batches(folders))
    ranges = max(1, sum(len(hashes) for _, hashes, _ in batches) // MOST_HASHES)
    edges = (np.arange(1, ranges) * (2**64 / ranges)).astype(np.uint64)
    cuts = [np.concatenate([[0], np.searchsorted(hashes, edges), [len(hashes)]]) for _, hashes, _ in batches]
    losing = np.zeros(len(kept), bool)
    found = []
    for number in range(ranges):
        slices = [slice(cut[number], cut[number + 1]) for cut in cuts]
        hashes = _joined([each[1][part] for each, part in zip(batches, slices, strict=True)], np.uint64)
        rows = _joined([each[0] + each[2][part] for each, part in zip(batches, slices, strict=True)], np.int64)
        hashes, rows = hashes[kept[rows]], rows[kept[rows]]
        order = np.argsort(hashes, kind="stable")  # documents with the same unit stay in their order
        hashes, rows = hashes[order], rows[order]
        starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else order
        counts = np.diff(starts, append=len(hashes))
        many = counts > limits[kind_of(hashes[starts])]
        having = np.repeat(many, counts)
        if repeated.keep == "first":
            having[starts] = False
        losing[rows[having]] = True
        first = rows[starts[many]] if repeated.keep == "first" else np.full(many.sum(), -1)
        found.append((hashes[starts[many]], first, counts[many]))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    return Frequent(columns[0], columns[1], columns[2], losing)


def take_out_repeated(
    folders: Sequence[Path], kept: np.ndarray, settings: CorpusSettings, out: Path
) -> tuple[list[Path], np.ndarray, dict[str, Any], list[list[str]]]:
    """Write parts of the kept documents, without their repeated units, into the new folder `out`.

    Returns the folders of these parts, in the same order; which of the kept documents are in them, as too little is
    left of the others: bool (kept documents,); what the card says of it; and samples of documents that are not.
    """
    repeated = settings.repeated
    frequent = count_units(folders, kept, repeated)
    shown = {
        int(frequent.hashes[place]): int(frequent.documents[place])
        for kind in range(len(KINDS))
        for place in _most(frequent, kind)
    }
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    edits = _Edits()
    cut = _Cutter(frequent, repeated, set(shown), edits)
    again = _keys_of(settings)
    written, left = [], []
    row = 0
    for number, folder in enumerate(folders):
        written.append(out / f"{number:06}")
        written[-1].mkdir()
        with PartWriter(written[-1]) as writer:
            for texts, keys in zip(read_batches(folder / TEXTS), read_batches(folder / KEYS), strict=True):
                rows = np.arange(row, row + texts.num_rows)
                row += texts.num_rows
                batch, long = _edited(texts, keys, rows[kept[rows]], rows[0], frequent.losing, cut, again)
                left.append(long)
                if batch.num_rows:
                    writer.add(batch)
    kinds = {
        kind: {
            "limit": getattr(repeated, kind),
            "different": int((kind_of(frequent.hashes) == place).sum()),
            "taken_out": edits.units[kind],
            "most": [
                [edits.shown.get(value, "")[:SHOWN_CHARACTERS], count]
                for value, count in shown.items()
                if value & 1 == place
            ],
        }
        for place, kind in enumerate(KINDS)
        if getattr(repeated, kind)
    }
    facts = {"kept_in": repeated.keep, "documents": edits.documents, "characters": edits.characters, **kinds}
    return written, np.concatenate([np.zeros(0, bool), *left]), facts, edits.samples


class _Cutter:
    """Takes repeated units out of one document after another."""

    def __init__(self, frequent: Frequent, repeated: Repeated, shown: set[int], edits: _Edits) -> None:
        self._frequent, self._repeated, self._shown, self.edits = frequent, repeated, shown, edits
        self._set = HashSet(frequent.hashes)

    def __call__(self, row: int, name: str, text: str) -> tuple[str, bool]:
        """The text of document `row` without them, and whether enough is left."""
        units = units_of(text, self._repeated.kinds, self._repeated.characters)
        places, which = self._set.find(np.array([unit.hash for unit in units], np.uint64))
        gone: set[int] = set()
        for place, first in zip(places.tolist(), self._frequent.first[which].tolist(), strict=True):
            unit = units[place]
            if unit.hash in self._shown:
                lines = text.split("\n")[unit.lines.start : unit.lines.stop]
                self.edits.shown.setdefault(unit.hash, "\n".join(lines).strip())
            if first != row and not gone.issuperset(unit.lines):
                gone.update(unit.lines)
                self.edits.units[unit.kind] += 1
        edited = without_lines(text, gone)
        self.edits.documents += 1
        self.edits.characters += len(text) - len(edited)
        enough = len(edited.strip()) >= self._repeated.left
        if not enough and len(self.edits.samples) < SAMPLES:
            self.edits.samples.append([name, text[:SAMPLE_CHARACTERS]])
        return edited, enough


def _edited(
    texts: pa.RecordBatch,
    keys: pa.RecordBatch,
    rows: np.ndarray,
    first: int,
    losing: np.ndarray,
    cut: _Cutter,
    again: BatchFunction,
) -> tuple[pa.RecordBatch, np.ndarray]:
    """The documents `rows` of a batch that begins with document `first`, but those of which too little is left; and
    which of them are there: bool (rows,).
    """
    whole = pa.RecordBatch.from_arrays([*texts.columns, *keys.columns], names=[*texts.schema.names, *keys.schema.names])
    whole = whole.take(pa.array(rows - first))
    places = np.flatnonzero(losing[rows])
    long = np.ones(len(rows), bool)
    if not len(places):
        return whole, long
    some = texts.take(pa.array(rows[places] - first))
    before = some["text"].to_pylist()
    found = [
        cut(int(row), name, text) for row, name, text in zip(rows[places], some["id"].to_pylist(), before, strict=True)
    ]
    long[places] = [enough for _, enough in found]
    after = [text for text, _ in found]
    lost = [{"removed_shared": len(old) - len(new)} for old, new in zip(before, after, strict=True)]
    edited = again(merge_metadata(replace_texts(some, after), lost)).select(whole.schema.names)
    order = np.arange(len(rows))
    order[places] = len(rows) + np.arange(len(places))
    both = pa.Table.from_batches([whole, edited]).take(pa.array(order[long])).combine_chunks()
    batches = both.to_batches()
    return batches[0] if batches else whole.slice(0, 0), long


def _keys_of(settings: CorpusSettings) -> BatchFunction:
    """A function that adds to documents what they are compared by."""
    sketch = sketcher(SHINGLE, near=settings.near_duplicates == "drop")
    return lambda batch: sketch(add_digests(measure(normalise(batch))))


def _most(frequent: Frequent, kind: int) -> list[int]:
    """The places of the units of a kind that most documents have."""
    places = np.flatnonzero(kind_of(frequent.hashes) == kind)
    return places[np.argsort(-frequent.documents[places], kind="stable")][:MOST_SHOWN].tolist()


def _sorted_batches(folders: Sequence[Path]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The first document of each batch, its hashes, ascending, and the documents that have them, from that first on."""
    start = 0
    for folder in folders:
        for units, keys in zip(read_batches(folder / UNITS), read_batches(folder / KEYS), strict=True):
            yield start, units["hash"].to_numpy(), units["row"].to_numpy()
            start += keys.num_rows


def _joined(arrays: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *arrays])
