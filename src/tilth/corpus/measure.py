"""How long documents are."""

import pyarrow as pa
import pyarrow.compute as pc

SIZES = ("bytes", "characters", "words")


def measure(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Add the columns `bytes` (of UTF-8), `characters`, and `words` (runs between white space). Needs `normalised`."""
    words = [text.count(" ") + 1 if text else 0 for text in batch["normalised"].to_pylist()]
    columns = (
        pc.call_function("binary_length", [batch["text"]]).cast(pa.int64()),
        pc.call_function("utf8_length", [batch["text"]]).cast(pa.int64()),
        pa.array(words, pa.int64()),
    )
    for name, column in zip(SIZES, columns, strict=True):
        batch = batch.append_column(name, column)
    return batch
