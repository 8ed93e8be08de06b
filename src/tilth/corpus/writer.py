"""The Parquet files of one split, written in parts, with what the card says about them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from tilth.corpus.measure import SIZES
from tilth.corpus.records import DOCUMENT_SCHEMA

PART_BYTES = 64_000_000
ROW_GROUP_BYTES = 8_000_000


class SplitWriter:
    """Writes `part-00000.parquet`, ... of about 64 MB of text into a new folder, in the order of `add`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = self._part_bytes = 0
        self._writer: parquet.ParquetWriter | None = None
        self._hash = hashlib.sha256()
        self._lengths: list[np.ndarray] = []
        self._groups: list[np.ndarray] = []
        self._bytes = self._words = 0
        self.paths: list[Path] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Append documents: `DOCUMENT_SCHEMA` and the columns of `measure`."""
        if not batch.num_rows:
            return
        self._hash.update(_framed(batch["id"], batch["text"]))
        self._lengths.append(batch["characters"].to_numpy())
        self._groups.append(_group_numbers(batch["group"].to_pylist()))
        size, _, words = (int(batch[name].to_numpy().sum()) for name in SIZES)
        self._bytes += size
        self._words += words
        self._waiting.append(batch.select(DOCUMENT_SCHEMA.names))
        self._waiting_bytes += size
        if self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self._writer is None:
            path = self._folder / f"part-{len(self.paths):05}.parquet"
            self.paths.append(path)
            self._writer = parquet.ParquetWriter(path, DOCUMENT_SCHEMA, compression="zstd")
        self._writer.write_table(pa.Table.from_batches(self._waiting), row_group_size=2**31)
        self._part_bytes += self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        if self._part_bytes >= PART_BYTES:
            self._close_part()

    def _close_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._part_bytes = None, 0

    def close(self) -> None:
        """Write what is waiting and finish the last part."""
        self._flush()
        self._close_part()

    def summary(self) -> dict[str, Any]:
        """What the card says of this split. characters_per_document: least, percentiles and most."""
        lengths = np.sort(np.concatenate(self._lengths)) if self._lengths else np.zeros(0, np.int64)
        percentiles = (0, 5, 25, 50, 75, 95, 100)
        picked = np.percentile(lengths, percentiles, method="inverted_cdf").tolist() if len(lengths) else []
        return {
            "documents": len(lengths),
            "groups": len(np.unique(np.concatenate(self._groups))) if self._groups else 0,
            "bytes": self._bytes,
            "characters": int(lengths.sum()),
            "words": self._words,
            "characters_per_document": {
                f"p{name}": int(value) for name, value in zip(percentiles, picked, strict=False)
            },
            "fingerprint": self._hash.hexdigest()[:16],
        }


def _framed(*columns: pa.Array) -> pa.Buffer:
    """The bytes of a batch, row by row: of each column how many there are, in 8 bytes, then these."""
    pieces = []
    for column in columns:
        sizes = pc.call_function("binary_length", [column]).cast(pa.int64())
        lengths = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(column), sizes.buffers())
        pieces += [lengths.cast(pa.large_binary()), column.cast(pa.large_binary())]
    nothing = pa.scalar(b"", pa.large_binary())
    return pc.call_function("binary_join_element_wise", [*pieces, nothing]).buffers()[2]


def _group_numbers(groups: list[str]) -> np.ndarray:
    """A number of 8 bytes for each name of a group, to count them by: uint64 (documents,)."""
    hashed = (hashlib.blake2b(group.encode(), digest_size=8).digest() for group in groups)
    return np.frombuffer(b"".join(hashed), np.uint64)
