"""The chain from a record as it is read to a document with all that a build compares it by.

A stage is a plain function of a batch, with no engine behind it: `make(**parameters)` gives a function from
`pyarrow.RecordBatch` to `pyarrow.RecordBatch`, which may add columns, and takes a record out by writing the reason into
the column `drop`. A batch starts with the columns of `BATCH_SCHEMA` and ends with those of `KEY_COLUMNS` and `sketch`
as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tilth.corpus.clean import cleaner
from tilth.corpus.dedupe import DIGEST_BYTES, deduplicator
from tilth.corpus.filters import FILTERS, BatchFunction
from tilth.corpus.measure import SIZES, measure
from tilth.corpus.normalise import normalise
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sketch import sketcher
from tilth.errors import UsageError

KEY_COLUMNS = (*(pa.field(name, pa.int64()) for name in SIZES), pa.field("digest", pa.binary(DIGEST_BYTES)))

SHINGLE = 5
"""Words in the shingles that documents are compared by."""


@dataclass(frozen=True)
class Stage:
    """A step from batch to batch. version: changes when its results do. make(**parameters): its function in a build."""

    name: str
    version: int
    make: Callable[..., BatchFunction]
    parameters: dict[str, Any] = field(default_factory=dict)

    def function(self) -> BatchFunction:
        """The stage in a build. Raises: UsageError for parameters that it does not have, or cannot use."""
        try:
            return self.make(**self.parameters)
        except TypeError as error:
            raise UsageError(f"filters.{self.name}: {str(error).partition('() ')[2] or error}") from None

    def to_json(self) -> dict[str, Any]:
        """What a card says of the stage."""
        return {"name": self.name, "version": self.version, "parameters": self.parameters}


def stages_of(settings: CorpusSettings) -> list[Stage]:
    """The stages of a build, in order."""
    return [
        Stage("clean", 1, cleaner, {"unicode_form": "NFC"}),
        *(
            Stage(each.name, each.version, each.make, settings.filters[each.name])
            for each in FILTERS.values()
            if each.name in settings.filters
        ),
        Stage("normalise", 1, lambda: normalise),
        Stage("measure", 1, lambda: measure),
        Stage("deduplicate", 1, deduplicator),
        Stage("sketch", 2, sketcher, {"shingle": SHINGLE, "near": settings.near_duplicates == "drop"}),
    ]
