"""What a reader yields, and the batches that stages work on."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

BATCH_RECORDS = 1000
BATCH_BYTES = 8_000_000

BATCH_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "metadata")])
"""A batch as it is read. Stages may add columns; a string in the column `drop` takes a record out, with that reason."""

DOCUMENT_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "group", "metadata")])
"""A document in the Parquet files of a corpus; `metadata` is a JSON object."""


@dataclass(frozen=True, slots=True)
class Record:
    """One readable unit of raw data. `source` is the file (or archive member) it is from."""

    id: str
    text: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Records that are sound but not wanted: counted, not kept. `detail` is what a note on the card counts, if any."""

    reason: str
    count: int = 1
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A broken record, set aside. `record` says where in the source it is; `detail` what is wrong with it."""

    source: str
    record: str
    reason: str
    detail: str


Item = Record | Dropped | Rejected


def printable(name: str) -> str:
    """`name` as valid Unicode: what is not (bytes of a file name, lone surrogates) becomes backslash escapes."""
    if not _odd(name):
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return name.encode("utf-8", "backslashreplace").decode()


def _odd(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def to_json(metadata: dict[str, Any]) -> str:
    """Metadata as strict JSON: numbers that are not finite become null, bytes their length, other objects a string."""
    try:
        content = json.dumps(metadata, ensure_ascii=False, allow_nan=False, default=_describe)
    except ValueError:
        # Read back, not walked through: what a reader of JSON has nested may be deeper than Python's calls go.
        read = json.loads(json.dumps(metadata, default=_describe), parse_constant=lambda name: None)
        content = json.dumps(read, ensure_ascii=False)
    return json.dumps(json.loads(content)) if _odd(content) else content


def _describe(value: Any) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


def to_batches(items: Iterable[Item], records: int | None = None) -> Iterator[pa.RecordBatch | Dropped | Rejected]:
    """Gather records into batches of bounded size, keeping their order; what is not a record passes through.

    records: how many a batch holds at most, 1,000 unless told.

    A text that cannot be UTF-8 (a lone surrogate, as JSON may hold) is rejected here, for all formats alike.
    """
    most = records or BATCH_RECORDS
    rows: list[tuple[str, str, str, str]] = []
    size = 0
    for item in items:
        if not isinstance(item, Record):
            yield item
            continue
        if _odd(item.text):
            yield Rejected(
                item.source, item.id, "invalid_unicode", "the text holds a lone surrogate, which is no character"
            )
            continue
        rows.append((printable(item.id), item.text, item.source, to_json(item.metadata)))
        size += len(item.text)
        if len(rows) >= most or size >= BATCH_BYTES:
            yield _batch(rows)
            rows, size = [], 0
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[str, str, str, str]]) -> pa.RecordBatch:
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=BATCH_SCHEMA)


def fixed_rows(column: pa.Array) -> np.ndarray:
    """A column of binary values of one width as uint8 (rows, width), without a copy."""
    width = column.type.byte_width
    values = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return values[column.offset * width : (column.offset + len(column)) * width].reshape(len(column), width)
