"""How well near-duplicates are joined: precision and recall on a sample, against exact Jaccard similarity.

A pair is similar when at least three quarters of the shingles that either document has are in both; it is joined when
the build takes the two for copies of one text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array, triu

from tilth.corpus.normalise import normalised
from tilth.corpus.sketch import shingle_hashes
from tilth.key import Key, mix

THRESHOLD = 0.75
"""Similarity from which two documents are near-duplicates."""

MOST_DOCUMENTS, MOST_ALONE, MOST_OF_A_CLUSTER = 2000, 500, 300
MOST_BYTES = 20_000_000
"""Size of a sample. All pairs of its documents are compared."""

SAMPLED = (
    "all pairs among documents of clusters that were chosen by a seeded hash, and among some that are in none; a "
    "cluster holds documents that share a band of 4 minima, as two of similarity 0.75 do with probability 0.95 and two "
    "of 0.85 with 0.997, or a band of 8"
)


@dataclass(frozen=True)
class Joining:
    """documents: compared. similar, joined, both: numbers of pairs."""

    documents: int
    similar: int
    joined: int
    both: int

    def to_json(self) -> dict[str, Any]:
        """What a card says. precision, recall: null where there is no pair to tell from."""
        return {
            "threshold": THRESHOLD,
            "precision": round(self.both / self.joined, 4) if self.joined else None,
            "recall": round(self.both / self.similar, 4) if self.similar else None,
            "documents": self.documents,
            "pairs": {"similar": self.similar, "joined": self.joined, "both": self.both},
            "sampled": SAMPLED,
        }


def choose_sample(clusters: np.ndarray, sizes: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Which documents to compare: int64, sorted.

    clusters: the index of the first document of each document's cluster. sizes: bytes. digests: uint8 (documents, 16).
    Up to 2,000 documents and 20 MB: of clusters of several documents, up to 300 of each, then up to 500 others.
    """
    salt = np.uint64(Key(0, 0, "joining").digest() & (2**64 - 1))
    draws = mix(np.ascontiguousarray(digests).view("<u8")[:, 0] ^ salt)
    members = np.bincount(clusters, minlength=len(clusters))[clusters]
    together = np.flatnonzero(members > 1)
    together = together[np.lexsort((together, clusters[together], draws[clusters[together]]))]
    starts = np.flatnonzero(np.diff(clusters[together], prepend=-1))
    place = np.arange(len(together)) - np.repeat(starts, np.diff(starts, append=len(together)))
    together = together[place < MOST_OF_A_CLUSTER][: MOST_DOCUMENTS - MOST_ALONE]
    alone = np.flatnonzero(members == 1)
    alone = alone[np.argsort(draws[alone], kind="stable")][:MOST_ALONE]
    chosen = np.concatenate([together, alone])
    return np.sort(chosen[np.cumsum(sizes[chosen]) <= MOST_BYTES])


def measure_joining(texts: Iterable[str], joined: np.ndarray, shingle: int) -> Joining:
    """Compare all pairs of `texts` with the labels of their components in the build.

    shingle: words in a shingle. Shingles are told by 64-bit hashes, of up to 1 MB of each text.
    """
    hashes, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for values, starts in shingle_hashes(pa.array(map(normalised, texts), pa.string()), shingle):
        hashes.append(values)
        counts.append(np.diff(starts, append=len(values)))
    count = len(joined)
    rows = np.repeat(np.arange(count), np.concatenate(counts))
    names, columns = np.unique(np.concatenate(hashes), return_inverse=True)
    has = csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=(count, len(names)))
    has.data[:] = 1  # a shingle that a text has twice is one of its set
    sizes = np.diff(has.indptr)
    common = triu(has @ has.T, k=1).tocoo()
    left, right = common.coords
    similarity = common.data / (sizes[left] + sizes[right] - common.data)
    similar = similarity >= THRESHOLD
    members = np.bincount(np.unique(joined, return_inverse=True)[1]) if count else np.zeros(0, np.int64)
    return Joining(
        documents=count,
        similar=int(similar.sum()),
        joined=int((members * (members - 1) // 2).sum()),
        both=int((similar & (joined[left] == joined[right])).sum()),
    )
