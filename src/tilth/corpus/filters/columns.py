"""What every filter does to a batch: read its texts, change them, add facts to the metadata, mark what is dropped."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tilth.corpus.records import to_json


def replace_texts(batch: pa.RecordBatch, texts: Sequence[str]) -> pa.RecordBatch:
    """The batch with other texts, one for each record."""
    return _set(batch, "text", texts)


def merge_metadata(batch: pa.RecordBatch, facts: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """The batch with `facts`, one mapping for each record, in its JSON column `metadata`.

    A key that is there already gets the new value.
    """
    merged = [
        to_json({**json.loads(old), **new}) if new else old
        for old, new in zip(batch["metadata"].to_pylist(), facts, strict=True)
    ]
    return _set(batch, "metadata", merged)


def mark_dropped(batch: pa.RecordBatch, reasons: Sequence[str | None]) -> pa.RecordBatch:
    """The batch with the column `drop`: the reason for which a record is not wanted, or null."""
    return batch.append_column("drop", pa.array(reasons, pa.string()))


def _set(batch: pa.RecordBatch, name: str, values: Sequence[str]) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), name, pa.array(values, pa.string()))
