"""Lines and paragraphs of documents, each known by a hash, so that those that many documents have can be told.

A paragraph is what no blank line divides. Both are compared apart from case and the white space around them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tilth.corpus.filters.segments import Segments, gather

KINDS = ("lines", "paragraphs")
"""The lowest bit of a hash is the place of its kind in these."""

_SPAN = 200_000
"""Characters that are hashed together. A longer line is told by its first million."""


def kind_of(hashes: np.ndarray) -> np.ndarray:
    """The place in `KINDS` of each hash: int64."""
    return (hashes & np.uint64(1)).astype(np.int64)


def unit_hasher(kinds: Sequence[str], least: int) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that adds the column `units`: the hashes, ascending and each once, of a document's units.

    kinds: of `KINDS`. least: characters of the shortest unit that counts.
    """

    def hash_units(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch["text"].to_pylist()
        spans = [(row, span) for row, text in enumerate(texts) for span in _spans(text)]
        rows = np.array([row for row, _ in spans], np.int64)
        documents, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        first = 0
        for segments in gather([span.casefold() for _, span in spans]):
            for kind in kinds:
                units = getattr(segments, kind)
                long = units.ends - units.starts >= least
                documents.append(rows[first + units.document[long]])
                hashes.append(_marked(units.hashes[long], kind))
            first += segments.count
        document, values = np.concatenate(documents), np.concatenate(hashes)
        order = np.lexsort((values, document))
        document, values = document[order], values[order]
        once = np.ones(len(values), bool)
        once[1:] = (np.diff(document) != 0) | (values[1:] != values[:-1])
        offsets = np.searchsorted(document[once], np.arange(len(texts) + 1)).astype(np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[once]))
        return batch.append_column("units", column)

    return hash_units


def sorted_units(column: pa.ListArray) -> pa.RecordBatch:
    """The hashes of all documents of a batch, ascending, as `hash`, and the place of each one's document as `row`."""
    hashes = column.flatten().to_numpy()
    rows = np.repeat(np.arange(len(column), dtype=np.uint32), column.value_lengths().to_numpy())
    order = np.argsort(hashes, kind="stable")
    return pa.RecordBatch.from_arrays([pa.array(hashes[order]), pa.array(rows[order])], names=["hash", "row"])


@dataclass(frozen=True)
class Unit:
    """A line or paragraph of a text. lines: the places of its lines among all of the text's, as a range."""

    hash: int
    kind: str
    lines: range


def units_of(text: str, kinds: Sequence[str], least: int) -> list[Unit]:
    """The units of a text that `unit_hasher` hashes: paragraphs, then lines, each in order."""
    found: dict[str, list[Unit]] = {kind: [] for kind in KINDS}
    start = 0
    for span in _spans(text):
        lines = span.split("\n")
        said = np.array([start + place for place, line in enumerate(lines) if line.strip()], np.int64)
        segments = Segments([span.casefold()])
        for kind in kinds:
            units = getattr(segments, kind)
            firsts = np.searchsorted(segments.lines.starts, units.starts)
            lasts = np.append(firsts[1:], len(said)) - 1
            long = units.ends - units.starts >= least
            places = zip(said[firsts[long]].tolist(), said[lasts[long]].tolist(), strict=True)
            hashes = _marked(units.hashes[long], kind).tolist()
            found[kind] += [
                Unit(value, kind, range(first, last + 1)) for value, (first, last) in zip(hashes, places, strict=True)
            ]
        start += len(lines) - 1  # the last is where the next span begins
    return [unit for kind in reversed(KINDS) for unit in found[kind]]


def without_lines(text: str, gone: set[int]) -> str:
    """The text without the lines at these places, and without blank lines that only stood between them and others."""
    kept: list[str] = []
    after_gap = False
    for place, line in enumerate(text.split("\n")):
        if place in gone:
            after_gap = True
        elif line.strip() or not after_gap or (kept and kept[-1].strip()):
            kept.append(line)
            after_gap = after_gap and not line.strip()
    return "\n".join(kept).rstrip() if after_gap else "\n".join(kept)


def _marked(hashes: np.ndarray, kind: str) -> np.ndarray:
    return hashes & ~np.uint64(1) | np.uint64(KINDS.index(kind))


def _spans(text: str) -> Iterator[str]:
    """The text in pieces of about `_SPAN` characters, each but the last ending with a newline."""
    start = 0
    while len(text) - start > _SPAN:
        end = text.rfind("\n", start, start + _SPAN) + 1 or text.find("\n", start + _SPAN) + 1
        if not end:
            break
        yield text[start:end]
        start = end
    yield text[start:]
