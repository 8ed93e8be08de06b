"""Content groups: documents that share much of their text are one group, which a split never divides.

Each document is sketched by MinHash (Broder 1997, "On the resemblance and containment of documents") over its shingles
of five words, in 8 bands of 4 minima. Two documents with a band in common are one group: with a share J of common
shingles that happens with probability 1 - (1 - J^4)^8, which is 0.4 at J = 0.5, 0.89 at 0.7 and 0.98 at 0.8. So a
docstring and the nearly same one of a subclass, or a page and its reprint, fall on one side.
"""

import hashlib
import zlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from tilth.key import Key, mix

MAX_BYTES = 1_000_000
"""How much of a document its sketch reads, from the start."""

_PRIME = np.uint64(0x100000001B3)


def sketcher(bands: int, rows: int, shingle: int) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that replaces the column `normalised` by `sketch`: `bands` values of 8 bytes for each document.

    rows: minima in a band. shingle: words in a shingle.
    """
    salts = Key(0, 0, "sketch").generator().integers(1, 2**63, size=(bands, rows, 2), dtype=np.uint64)

    def sketch(batch: pa.RecordBatch) -> pa.RecordBatch:
        hashes = [_word_hashes(text, shingle) for text in batch["normalised"].to_pylist()]
        values = _bands(hashes, salts, shingle).astype("<u8").tobytes()
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8 * bands), len(hashes), [None, pa.py_buffer(values)])
        return batch.drop_columns(["normalised"]).append_column("sketch", column)

    return sketch


def _word_hashes(text: str, least: int) -> np.ndarray:
    words = text.encode()[:MAX_BYTES].split(b" ")
    words += [b""] * (least - len(words))
    return np.fromiter(map(zlib.crc32, words), np.uint64, len(words))


def _bands(hashes: list[np.ndarray], salts: np.ndarray, shingle: int) -> np.ndarray:
    """hashes: the word hashes of each document, at least `shingle`. Returns uint64 (documents, bands)."""
    words = np.concatenate(hashes)
    lengths = np.array([len(document) for document in hashes], np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    shingles = np.zeros(len(words), np.uint64)
    for offset in range(shingle):
        shingles = shingles * _PRIME + np.roll(words, -offset)
    shingles = mix(shingles)
    across = (ends[:, None] - np.arange(1, shingle)).ravel()  # shingles that begin too near a document's end
    bands = np.zeros((len(hashes), len(salts)), np.uint64)
    for band, rows in enumerate(salts):
        for multiplier, addend in rows:
            values = shingles * (multiplier | np.uint64(1)) + addend
            values[across] = np.iinfo(np.uint64).max
            bands[:, band] = mix(bands[:, band] * _PRIME + np.minimum.reduceat(values, starts))
    return bands


def sketch_values(batch: pa.RecordBatch) -> np.ndarray:
    """The column `sketch` as uint64 (documents, bands)."""
    return np.frombuffer(b"".join(batch["sketch"].to_pylist()), "<u8").reshape(batch.num_rows, -1)


def find_groups(sketches: np.ndarray) -> np.ndarray:
    """The group of each document, as the index of the group's first document.

    sketches: uint64 (documents, bands). Groups are the connected components of "has a band in common": labels fall to
    the smallest among the documents of each band until nothing changes. Returns int64 (documents,).
    """
    count = len(sketches)
    labels = np.arange(count)
    members = [np.unique(sketches[:, band], return_inverse=True)[1] for band in range(sketches.shape[1])]
    while True:
        before = labels
        for member in members:
            smallest = np.full(count, count)
            np.minimum.at(smallest, member, labels)
            labels = smallest[member]
        labels = labels[labels]
        if np.array_equal(labels, before):
            return labels


def name_groups(labels: np.ndarray, digests: list[bytes]) -> list[str]:
    """The name of each document's group: a hash of the smallest content digest in it, whatever the documents' order."""
    smallest: dict[int, bytes] = {}
    for label, digest in zip(labels.tolist(), digests, strict=True):
        smallest[label] = min(digest, smallest.get(label, digest))
    names = {label: hashlib.blake2b(b"group" + digest, digest_size=8).hexdigest() for label, digest in smallest.items()}
    return [names[label] for label in labels.tolist()]
