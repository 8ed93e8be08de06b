"""Decontamination: documents that hold text of given test sets are dropped, as in GPT-3 (Brown et al. 2020, "Language
Models are Few-Shot Learners", appendix C): a run of 13 words in common, whatever their case and punctuation.

A text of a test set with fewer words than that is matched whole, from 8 words on; shorter ones occur anywhere by
chance, so that they are not looked for, but counted. A document is searched to its end.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tilth.corpus.clean import clean_text
from tilth.corpus.filters.columns import mark_dropped
from tilth.corpus.filters.evaluation_sets import read_items
from tilth.corpus.filters.hashes import HashSet
from tilth.corpus.filters.rules import share
from tilth.corpus.filters.segments import Segments, covered, gather, pieces
from tilth.errors import UsageError

REASONS = {"contaminated": "holds text of a test set that is to be kept out"}

SHORTEST = 8
"""Words of the shortest text that is looked for."""

FOUND = "test_items"
"""The column that says which items of the test sets were found in a document: list<int64>, their numbers from 0."""


class _Grams(NamedTuple):
    """The n-grams of one length. members: their hashes. starts: where the items of each begin in `items`."""

    members: HashSet
    starts: np.ndarray
    items: np.ndarray


@dataclass(frozen=True)
class EvaluationSets:
    """What is looked for. grams: by length in words. items: how many were read. too_short: how many cannot be found."""

    grams: dict[int, _Grams]
    items: int
    too_short: int

    def report(self, found: Iterable[int]) -> dict[str, int]:
        """For the card: how many items there are, how many were found in the corpus, how many are too short to be."""
        return {"items": self.items, "found": len(set(found)), "too_short": self.too_short}


def read_evaluation_sets(paths: Sequence[str], ngram: int = 13, fields: Sequence[str] | None = None) -> EvaluationSets:
    """Read test sets (formats: see `evaluation_sets`).

    ngram: words of a run that counts. fields: the names of the texts in objects and tables; all strings without it.
    Raises: UsageError for files that cannot be read, or hold nothing that can be looked for.
    """
    if ngram < SHORTEST:
        raise UsageError(f"contamination: ngram is {ngram}; runs below {SHORTEST} words occur anywhere by chance")
    if isinstance(paths, str) or not paths:
        raise UsageError("contamination: paths is a list of the files of test sets, such as [test.jsonl]")
    hashes: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    owners: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    count = too_short = 0
    for path in paths:
        for texts in read_items(Path(path), fields):
            told = False
            for text in texts:
                for piece in pieces(clean_text(text).casefold()):  # documents are cleaned before they come here
                    segments = Segments([piece])
                    words = len(segments.words.hashes)
                    if words < SHORTEST:
                        continue
                    length = min(ngram, words)
                    values = segments.ngrams(length)[segments.whole(length)]
                    hashes[length].append(values)
                    owners[length].append(np.full(len(values), count))
                    told = True
            count += 1
            too_short += not told
    if not hashes:
        raise UsageError(f"contamination: no text of {SHORTEST} words or more in {', '.join(map(str, paths))}")
    grams = {
        length: _grams(np.concatenate(hashes[length]), np.concatenate(owners[length])) for length in sorted(hashes)
    }
    return EvaluationSets(grams, count, too_short)


def contamination(
    paths: Sequence[str], ngram: int = 13, min_share: float = 0.0, fields: Sequence[str] | None = None
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that drops documents with text of the test sets in `paths` (see `read_evaluation_sets`).

    min_share: a document is dropped when at least this share of its words is in runs that it has in common with the
    test sets; 0: when there is any. The column `test_items` says which items were found, in dropped documents and in
    those kept; `found_items` gathers them.
    Raises: UsageError for files that cannot be read, and a share that is none.
    """
    if not 0 <= min_share <= 1:
        raise UsageError(f"contamination: min_share is {min_share}; choose a share from 0 to 1")
    tests = read_evaluation_sets(paths, ngram, fields)

    def filter_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        owner: list[int] = []
        parts: list[str] = []
        for index, text in enumerate(batch["text"].to_pylist()):
            for piece in pieces(text.casefold()):  # folding makes some texts longer
                owner.append(index)
                parts.append(piece)
        matched, total = np.zeros(batch.num_rows), np.zeros(batch.num_rows)
        items: list[set[int]] = [set() for _ in range(batch.num_rows)]
        done = 0
        for segments in gather(parts):
            owners = np.array(owner[done : done + segments.count])
            done += segments.count
            document = owners[segments.words.document]
            common = _search(segments, document, tests, items)
            total += np.bincount(document, minlength=batch.num_rows)
            matched += np.bincount(document[common], minlength=batch.num_rows)
        dropped = (matched > 0) & (share(matched, total) >= min_share)
        found = pa.array([sorted(numbers) for numbers in items], pa.list_(pa.int64()))
        reasons = ["contaminated" if drop else None for drop in dropped]
        return mark_dropped(batch.append_column(FOUND, found), reasons)

    return filter_batch


def found_items(batch: pa.RecordBatch) -> set[int]:
    """The items that are in some document of a batch, as `contamination` gave it, before any document leaves it."""
    return set(batch[FOUND].flatten().to_pylist())


def _search(segments: Segments, document: np.ndarray, tests: EvaluationSets, items: list[set[int]]) -> np.ndarray:
    """bool (words,): which words are in common runs; adds to the items found in each document."""
    common = np.zeros(len(document), bool)
    for length, (members, starts, owners) in tests.grams.items():
        positions, which = members.find(segments.ngrams(length))
        whole = segments.whole(length)[positions]
        positions, which = positions[whole], which[whole]
        if not len(positions):
            continue
        common |= covered(positions, length, len(common))
        for index, gram in np.unique(np.stack([document[positions], which]), axis=1).T:
            items[index].update(owners[starts[gram] : starts[gram + 1]].tolist())
    return common


def _grams(hashes: np.ndarray, owners: np.ndarray) -> _Grams:
    order = np.argsort(hashes, kind="stable")
    members = HashSet(hashes)
    starts = np.append(np.searchsorted(hashes[order], members.values), len(hashes))
    return _Grams(members, starts, owners[order])
