"""Words of two collections of documents, and how they differ. A word is what `filters.segments` says, case folded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tilth.corpus.filters.segments import gather
from tilth.key import Key

if TYPE_CHECKING:
    from scipy import sparse

RESAMPLES = 200
PRIOR_WORDS = 500
"""How many words the prior of `log_odds` weighs as much as."""


@dataclass(frozen=True)
class WordCounts:
    """How often each document has each word. counts: sparse int64 (documents, words)."""

    counts: "sparse.csr_matrix"
    words: list[str]

    @property
    def documents(self) -> int:
        """How many there are."""
        return self.counts.get_shape()[0]

    def sums(self, rows: slice) -> np.ndarray:
        """int64 (words,): the counts of some documents together."""
        return np.asarray(self.counts[rows].sum(axis=0)).ravel()


def count_words(texts: Sequence[str]) -> WordCounts:
    """The words of all texts, in the order in which they are met."""
    from scipy import sparse

    columns: dict[int, int] = {}
    words: list[str] = []
    parts = []
    for segments in gather([text.casefold() for text in texts]):
        found = segments.words
        hashes, first, place = np.unique(found.hashes, return_index=True, return_inverse=True)
        for value, index in zip(hashes.tolist(), first.tolist(), strict=True):
            if value not in columns:
                columns[value] = len(words)
                words.append("".join(map(chr, segments.codes[found.starts[index] : found.ends[index]].tolist())))
        column = np.array([columns[value] for value in hashes.tolist()], np.int64)[place]
        parts.append((np.ones(len(column), np.int64), (found.document, column), segments.count))
    matrices = [sparse.csr_matrix((ones, places), (rows, len(words))) for ones, places, rows in parts]
    empty = sparse.csr_matrix((0, len(words)), dtype=np.int64)
    return WordCounts(sparse.csr_matrix(sparse.vstack([empty, *matrices], format="csr")), words)


def js_divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits (Lin 1991, "Divergence Measures Based on the Shannon Entropy") of two
    distributions, given as counts (words,): 0 where they are equal, 1 where they share no word, or one side has none.
    """
    if not first.sum() or not second.sum():
        return float(first.sum() != second.sum())
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2

    def relative_entropy(distribution: np.ndarray) -> float:
        there = distribution > 0
        return float((distribution[there] * np.log2(distribution[there] / middle[there])).sum())

    return min(1.0, max(0.0, (relative_entropy(p) + relative_entropy(q)) / 2))


def estimate_divergence(counted: WordCounts, first: int, seed: int = 0) -> dict[str, float | None]:
    """The Jensen-Shannon divergence of the words of the first documents and of those of the rest, in bits.

    first: how many documents are the first collection's. Counts of few words differ by chance, so that the divergence
    of the counts (`plug_in`) is too high. A bootstrap over the documents of each side estimates by how much: `value` is
    less that bias, and `low` to `high` the basic 95 % interval (Davison and Hinkley 1997, "Bootstrap Methods and their
    Application", 2.1 and 5.2); None where a side has fewer than ten documents.
    """
    sides = (counted.counts[:first], counted.counts[first:])
    plug_in = js_divergence(*(np.asarray(side.sum(axis=0)).ravel() for side in sides))
    if min(first, counted.documents - first) < 10:
        return {"value": plug_in, "low": None, "high": None, "plug_in": plug_in}
    generator = Key(seed, 0, "divergence bootstrap").generator()
    drawn = np.array([js_divergence(*(_resampled(side, generator) for side in sides)) for _ in range(RESAMPLES)])
    low, high = 2 * plug_in - np.quantile(drawn, [0.975, 0.025])
    value, low, high = np.clip([2 * plug_in - drawn.mean(), low, high], 0, 1).tolist()
    return {"value": value, "low": low, "high": high, "plug_in": plug_in}


def _resampled(side: "sparse.csr_matrix", generator: np.random.Generator) -> np.ndarray:
    count, _ = side.get_shape()
    return side.T @ np.bincount(generator.integers(count, size=count), minlength=count)


def log_odds(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float64 (words,): how characteristic each word is of the first counts (above 0) or of the second (below).

    The z-score of the difference in log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008,
    "Fightin' Words", 3.5): the prior has the words' shares in both together, and the weight of `PRIOR_WORDS` words, so
    that words that are rare in both are not taken for characteristic.
    """
    both = first + second
    prior = PRIOR_WORDS * both / both.sum()

    def parts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        smoothed = counts + prior
        return np.log(smoothed / (counts.sum() + PRIOR_WORDS - smoothed)), 1 / smoothed

    (one, one_variance), (other, other_variance) = parts(first), parts(second)
    return (one - other) / np.sqrt(one_variance + other_variance)


def characteristic_words(counted: WordCounts, first: int, most: int = 20) -> tuple[list[str], list[str]]:
    """The words that tell most for the first documents and for the rest, those with the highest z-scores above 1.96."""
    one, other = counted.sums(slice(first)), counted.sums(slice(first, None))
    if not one.sum() or not other.sum():
        return [], []
    scores = log_odds(one, other)

    def best(values: np.ndarray) -> list[str]:
        order = sorted(np.flatnonzero(values > 1.96).tolist(), key=lambda word: (-values[word], counted.words[word]))
        return [counted.words[word] for word in order[:most]]

    return best(scores), best(-scores)
