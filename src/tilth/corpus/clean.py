"""The first stage: one way to write the same text."""

import unicodedata
from collections.abc import Callable
from typing import Literal

import pyarrow as pa


def clean_text(text: str, unicode_form: Literal["NFC", "NFKC"] = "NFC") -> str:
    """Newlines as \\n, no byte order mark at the start, no NUL, Unicode in one normal form."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return text if text.isascii() else unicodedata.normalize(unicode_form, text)


def cleaner(unicode_form: Literal["NFC", "NFKC"]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that cleans the texts; those without anything but white space are dropped as `empty`."""

    def clean(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = [clean_text(text, unicode_form) for text in batch["text"].to_pylist()]
        drop = pa.array([None if text.strip() else "empty" for text in texts], pa.string())
        cleaned = batch.set_column(batch.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))
        return cleaned.append_column("drop", drop)

    return clean


def keep_undropped(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, list[int]]]:
    """Take out the records a stage has marked in `drop`; returns the rest, and the rows that left for each reason."""
    if "drop" not in batch.schema.names:
        return batch, {}
    drop = batch["drop"]
    left: dict[str, list[int]] = {}
    for row, reason in enumerate(drop.to_pylist()):
        if reason is not None:
            left.setdefault(reason, []).append(row)
    return batch.filter(drop.is_null()).drop_columns(["drop"]), left
