"""Exact de-duplication: of documents with the same normalised text, the first is kept."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from tilth.corpus.normalise import normalised
from tilth.corpus.records import to_json

DIGEST_BYTES = 16


def digest(normalised_text: str) -> bytes:
    """What a document's content is known by: 128 bits of its normalised text."""
    return hashlib.blake2b(normalised_text.encode(), digest_size=DIGEST_BYTES).digest()


def deduplicator() -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that adds the column `digest` and drops as `duplicate` every document whose digest it has seen before.

    It remembers one digest per document. What lies in other tasks is for `first_of_each`.
    """
    seen: set[bytes] = set()

    def deduplicate(batch: pa.RecordBatch) -> pa.RecordBatch:
        batch = add_digests(batch)
        drop = []
        for value in batch["digest"].to_pylist():
            drop.append("duplicate" if value in seen else None)
            seen.add(value)
        return batch.append_column("drop", pa.array(drop, pa.string()))

    return deduplicate


def add_digests(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the column `digest`. Needs `normalised`."""
    digests = [digest(text) for text in batch["normalised"].to_pylist()]
    return batch.append_column("digest", pa.array(digests, pa.binary(DIGEST_BYTES)))


def first_of_each(digests: np.ndarray) -> np.ndarray:
    """Which documents are the first with their digest: bool (documents,). digests: uint8 (documents, 16)."""
    halves = np.ascontiguousarray(digests).view("<u8").reshape(len(digests), 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal digests stay in the order of the documents
    differs = np.any(halves[order[1:]] != halves[order[:-1]], axis=1)
    first = np.ones(len(digests), bool)
    first[order[1:]] = differs
    return first


def among(digests: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of `digests`, each of which is there once, are among `known`: bool (documents,)."""
    return ~first_of_each(np.concatenate([known, digests]))[len(known) :]


WHOLE = "cut_from"
"""Key in the metadata of a document that was cut in two: the digest of the whole, in hexadecimal."""


def note_whole(row: dict[str, Any]) -> dict[str, Any]:
    """A document that is about to be cut, with the digest of its text in its metadata."""
    known = digest(normalised(row["text"])).hex()
    return row | {"metadata": to_json({**json.loads(row["metadata"]), WHOLE: known})}


def restore_wholes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the digest of the whole in place of that of a part, where a document was cut."""
    digests = [
        bytes.fromhex(json.loads(metadata)[WHOLE]) if f'"{WHOLE}"' in metadata else own
        for metadata, own in zip(batch["metadata"].to_pylist(), batch["digest"].to_pylist(), strict=True)
    ]
    column = pa.array(digests, pa.binary(DIGEST_BYTES))
    return batch.set_column(batch.schema.get_field_index("digest"), "digest", column)
