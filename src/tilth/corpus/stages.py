"""The chain from a record as it is read to a document with all that a build compares it by.

A stage is a plain function of a batch, with no engine behind it: `make(**parameters)` gives a function from
`pyarrow.RecordBatch` to `pyarrow.RecordBatch`, which may add columns, and takes a record out by writing the reason into
the column `drop`. A batch starts with the columns of `BATCH_SCHEMA` and ends with those of `KEY_COLUMNS` and `sketch`
as well, and `units` where repeated ones are to be taken out.
"""

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from tilth.corpus.clean import cleaner
from tilth.corpus.dedupe import DIGEST_BYTES, deduplicator
from tilth.corpus.filters import FILTERS, BatchFunction
from tilth.corpus.libraries import versions_of
from tilth.corpus.measure import SIZES, measure
from tilth.corpus.normalise import normalise
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sketch import sketcher
from tilth.corpus.units import unit_hasher
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
        if self.name not in FILTERS:
            return self.make(**self.parameters)
        return _filter_function(self.name, json.dumps(self.parameters), tuple(states_of_files([self.parameters])))

    def to_json(self) -> dict[str, Any]:
        """What a card says of the stage."""
        told = {"name": self.name, "version": self.version, "parameters": self.parameters}
        libraries = FILTERS[self.name].libraries if self.name in FILTERS else ()
        return {**told, "libraries": versions_of(libraries)} if libraries else told


def stages_of(settings: CorpusSettings) -> list[Stage]:
    """The stages of a build, in order."""
    units = {"kinds": settings.repeated.kinds, "least": settings.repeated.characters}
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
        *([Stage("units", 1, unit_hasher, units)] if units["kinds"] else []),
        Stage("sketch", 3, sketcher, {"shingle": SHINGLE, "near": settings.near_duplicates == "drop"}),
    ]


def functions_of(settings: CorpusSettings) -> list[BatchFunction]:
    """The functions of all stages, in order; those that remember what they have seen are new."""
    return [stage.function() for stage in stages_of(settings)]


@functools.cache
def _filter_function(name: str, parameters: str, files: tuple[tuple[str, int, int], ...]) -> BatchFunction:
    """Filters remember nothing, and some read lists and models: one for each process. files: to tell old from new."""
    make, given = FILTERS[name].make, json.loads(parameters)
    signature = inspect.signature(make)
    try:
        signature.bind(**given)
    except TypeError as error:
        raise UsageError(f"filters.{name}: {error}") from None
    for parameter, value in given.items():
        if parameter == "scorer":  # what was learned
            continue
        try:
            TypeAdapter(signature.parameters[parameter].annotation).validate_python(value)
        except ValidationError as error:
            raise UsageError(f"filters.{name}: {parameter} is {value!r}: {error.errors()[0]['msg']}") from None
    return make(**given)


def states_of_files(filters: Iterable[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """The files that parameters of filters name, such as lists of words, with their sizes and times.

    What a filter has learned is named by its content.
    """
    values = [value for parameters in filters for name, value in parameters.items() if name != "scorer"]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    paths = [Path(text) for text in texts if isinstance(text, str) and os.path.isfile(text)]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
