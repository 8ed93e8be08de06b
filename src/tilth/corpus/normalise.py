"""The text that documents are compared by: case-folded, white space collapsed."""

import re
from collections.abc import Iterator

import pyarrow as pa

_SPAN = 1_000_000
_SPACE = re.compile(r"\s")


def normalised(text: str) -> str:
    """`text` with every run of white space as one space, and case folded."""
    return " ".join(piece for piece in _pieces(text) if piece)


def _pieces(text: str) -> Iterator[str]:
    """Normalised spans cut at white space, so that a text of many megabytes is never a list of all its words."""
    start = 0
    while start < len(text):
        space = _SPACE.search(text, start + _SPAN)
        end = space.start() if space else len(text)
        yield " ".join(text[start:end].casefold().split())
        start = end


def normalise(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Add the column `normalised`, which later stages compare documents by."""
    texts = [normalised(text) for text in batch["text"].to_pylist()]
    return batch.append_column("normalised", pa.array(texts, pa.string()))
