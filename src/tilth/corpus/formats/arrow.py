"""Parquet, and Arrow files and streams."""

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.types as types

from tilth.corpus.compression import Stream, check_ratio
from tilth.corpus.formats.columns import NoTextColumn, find_text_column
from tilth.corpus.formats.jsonl import own_id
from tilth.corpus.reading import Reading
from tilth.corpus.records import DOCUMENT_SCHEMA, Dropped, Item, Record, Rejected
from tilth.corpus.rejections import WHOLE_FILE

ROWS = 64
"""Rows decoded at once."""

_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def read_parquet(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """A record a row; the other columns are metadata. Raises: Broken."""
    import pyarrow.parquet as parquet

    def open_batches(file) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        opened = parquet.ParquetFile(file)
        return opened.schema_arrow, opened.iter_batches(batch_size=ROWS)

    yield from _read(stream, source, reading, open_batches)


def read_arrow(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    """A record a row of an Arrow IPC file (Feather 2) or stream. Raises: Broken."""

    def open_batches(file) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        if not stream.head.startswith(b"ARROW1"):
            opened = pa.ipc.open_stream(file)
            return opened.schema, iter(opened)
        opened = pa.ipc.open_file(file)
        return opened.schema, (opened.get_batch(index) for index in range(opened.num_record_batches))

    yield from _read(stream, source, reading, open_batches)


def _read(stream: Stream, source: str, reading: Reading, open_batches) -> Iterator[Item]:
    row = total = 0
    with stream.spool() as file:
        size = os.fstat(file.fileno()).st_size
        try:
            schema, batches = open_batches(file)
            column = find_text_column(schema.names, reading.text_column)
            if not _is_text(schema.field(column).type):
                detail = (
                    f"the column {column!r} holds {schema.field(column).type}, not text: choose one with --text-column"
                )
                yield Rejected(source, WHOLE_FILE, "not_text", detail)
                return
            for batch in batches:
                _check(batch)
                for index in range(batch.num_rows):
                    row += 1
                    item = _record(batch, index, column, source, row)
                    total += len(item.text) if isinstance(item, Record) else 0
                    check_ratio(total, size)  # equal values of a column are stored once
                    yield item
        except NoTextColumn as error:
            yield Rejected(source, WHOLE_FILE, "no_text_column", str(error))
        except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
            # A damaged length can ask for any amount of memory at once; names of columns may be no UTF-8.
            said = str(error).partition("\n")[0] or "a part of it is said to be larger than the memory"
            detail = f"damaged or incomplete: {said}"
            yield Rejected(source, f"from row {row + 1}", "corrupt", detail)


def _check(batch: pa.RecordBatch) -> None:
    """Check offsets, lengths and indexes: reading a value by a damaged one ends the process. Raises: ArrowInvalid.

    Texts are checked as bytes, for one that is not UTF-8 costs its own row only.
    """
    for column in batch.columns:
        as_bytes = _BYTES.get(column.type)
        (column if as_bytes is None else column.view(as_bytes)).validate(full=True)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)


def _record(batch: pa.RecordBatch, index: int, column: str, source: str, row: int) -> Item:
    try:
        fields: dict[str, Any] = {
            name: _value(values[index]) for name, values in zip(batch.schema.names, batch.columns, strict=True)
        }
    except UnicodeDecodeError as error:
        return Rejected(source, f"row {row}", "invalid_utf8", f"byte {error.start:,} of a text is not UTF-8")
    text = fields.pop(column)
    if text is None:
        return Dropped("empty")
    name = own_id(fields) or f"{source}:{row}"
    if batch.schema.names == DOCUMENT_SCHEMA.names:
        return Record(name, text, source, _documents_metadata(fields))
    return Record(name, text, source, fields)


def _value(scalar: pa.Scalar) -> Any:
    """As Python has it; as text where it has no such date or time zone."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError, KeyError):
        try:
            return scalar.cast(pa.string()).as_py()
        except pa.ArrowException:
            return f"<{scalar.type}>"


def _documents_metadata(fields: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a row of another corpus, as it was, and not inside itself."""
    import json

    try:
        return json.loads(fields["metadata"])
    except (TypeError, ValueError):
        return fields
