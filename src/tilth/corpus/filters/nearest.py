"""The documents that lie nearest to given texts, as Gururangan et al. 2020 ("Don't Stop Pretraining", 3.3) choose them
for a task: by their nearest neighbours among its texts, here in a space of hashed words instead of VAMPIRE's.

The classifier of `like` ranks by what tells the given texts from the rest of the corpus. Where most of the corpus is
near to them and some is not, what is foreign to both wins: with 74 novels among 8,000 abstracts of papers on language,
by likeness to sentences of such papers it ranks the abstract above the novel in 15 % of the pairs, neighbours in 96 %.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tilth.corpus.filters.classifier import BITS, EXCERPT, cut_texts, hashed_words
from tilth.corpus.filters.excerpt import excerpt
from tilth.corpus.filters.ranking import ranking_stage
from tilth.errors import UsageError
from tilth.key import Key, draw

if TYPE_CHECKING:
    from scipy import sparse

REASONS = {"not_nearest": "farther from the texts that were given as an example than others"}

NEIGHBOURS = 10
MOST_TEXTS = 2000
"""Pieces of the given texts, a seeded sample of more, that documents are compared with."""

MOST_SAMPLED = 10_000
"""Documents of the corpus that the threshold is from."""


@dataclass(frozen=True)
class Neighbours:
    """What documents are compared with.

    texts: float32 sparse (given pieces, 2**18), weighted, rows of length 1. weights: float32 (2**18,), of words.
    sample_scores: ascending, of a sample of the corpus's documents.
    """

    texts: "sparse.csr_matrix"
    weights: np.ndarray
    sample_scores: np.ndarray

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (texts,) from 0 to 1: the mean cosine with the nearest of the given pieces."""
        features = _weighted(hashed_words([excerpt(text, EXCERPT) for text in texts]), self.weights)
        return _nearness(features, self.texts)

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        arrays = {name: getattr(self.texts, name) for name in ("data", "indices", "indptr")}
        with open(path, "wb") as file:
            np.savez(file, weights=self.weights, sample_scores=self.sample_scores, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Neighbours":
        """The neighbours that `save` wrote."""
        from scipy import sparse

        with np.load(path, allow_pickle=False) as saved:
            arrays = (saved["data"], saved["indices"], saved["indptr"])
            texts = sparse.csr_matrix(arrays, (len(saved["indptr"]) - 1, 2**BITS))
            return cls(texts, saved["weights"], saved["sample_scores"])

    @property
    def fingerprint(self) -> str:
        """A hash of what decides the scores."""
        arrays = (self.texts.data, self.texts.indices, self.texts.indptr, self.weights, self.sample_scores)
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


def fit_neighbours(texts: Iterable[str], sample_texts: Iterable[str], seed: int = 0) -> Neighbours:
    """Learn the weights of words, by how few of the given pieces have them (Sparck Jones 1972, "A statistical
    interpretation of term specificity"), and how near the documents of the corpus are.

    Words that no piece has weigh most: they make a document long, and so far. As nothing but the given texts decides
    the weights, a document's score is the same in every corpus.
    Raises: UsageError when there is no text to be near to, or no document.
    """
    given, _ = cut_texts(texts, seed)
    given = draw(given, MOST_TEXTS, Key(seed, 0, "nearest texts"))
    passing = (excerpt(text, EXCERPT) for text in sample_texts if text.strip())
    sample = draw(passing, MOST_SAMPLED, Key(seed, 0, "nearest sample"))
    for name, some in (("text to be near to", given), ("document in the corpus", sample)):
        if not some:
            raise UsageError(f"nearest: there is no {name}")
    features = hashed_words(given)
    having = np.bincount(features.indices, minlength=2**BITS)
    weights = np.log((2 + len(given)) / (1 + having)).astype(np.float32)
    near_to = _weighted(features, weights)
    return Neighbours(near_to, weights, np.sort(_nearness(_weighted(hashed_words(sample), weights), near_to)))


def nearest(
    scorer: Neighbours | str, keep: float | None = None, threshold: float | None = None
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that drops documents whose score is below a threshold, and adds `nearest_score` to the metadata.

    scorer: or the file that one was saved to. keep: the share of documents to keep; threshold: the score itself.
    Raises: UsageError unless one of the two is given, from 0 to 1.
    """
    scorer = Neighbours.load(Path(scorer)) if isinstance(scorer, str) else scorer
    return ranking_stage("nearest", "not_nearest", scorer.score, scorer.sample_scores, keep, threshold)


def _weighted(features: "sparse.csr_matrix", weights: np.ndarray) -> "sparse.csr_matrix":
    from scipy import sparse

    weighted = sparse.csr_matrix(features, dtype=np.float32)
    weighted.data *= weights[weighted.indices]
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.where(lengths, lengths, 1)) @ weighted, dtype=np.float32)


def _nearness(features: "sparse.csr_matrix", texts: "sparse.csr_matrix") -> np.ndarray:
    """float64 (documents,): the mean of each document's highest cosines. Memory: 256 documents by the texts."""
    (documents, _), (pieces, _) = features.get_shape(), texts.get_shape()
    count = min(NEIGHBOURS, pieces)
    transposed = texts.T.tocsr()
    parts = [np.zeros(0)]
    for start in range(0, documents, 256):
        cosines = (features[start : start + 256] @ transposed).toarray()
        cosines.partition(pieces - count, axis=1)
        parts.append(cosines[:, -count:].mean(axis=1, dtype=np.float64))
    return np.clip(np.concatenate(parts), 0, 1)
