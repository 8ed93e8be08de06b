"""Rules that tell text from lists, menus and noise: Gopher's (`gopher`), against repetition (`repetition`), FineWeb's
(`fineweb`). One stage, because they look at the same words and lines, which take half of the time to find.

The rules look at the first million characters of a document. The defaults are the papers' limits, but for the 100,000
words that Gopher allows at most: books are longer. What they drop of sound text is in `benchmarks/results/filters.md`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from tilth.corpus.filters import fineweb, gopher, repetition
from tilth.corpus.filters.rules import Judge, judging_stage
from tilth.errors import UsageError

REASONS = {**gopher.REASONS, **repetition.REASONS, **fineweb.REASONS}

_RULES: dict[str, Callable[..., Judge]] = {
    "gopher": gopher.gopher,
    "repetition": repetition.repetition,
    "fineweb": fineweb.fineweb,
}

Settings = Mapping[str, Any]


def quality(
    gopher: Settings | None = None, repetition: Settings | None = None, fineweb: Settings | None = None
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that applies the sets of rules that are named, in this order; a document leaves for the first reason.

    Each argument holds the keyword arguments of its set: `{}` for the papers' limits. A set that is not named is left
    out; when none is, all three apply with their defaults.
    Raises: UsageError for settings that a set of rules does not have, and for a limit that is no number.
    """
    given = {"gopher": gopher, "repetition": repetition, "fineweb": fineweb}
    chosen = {name: settings for name, settings in given.items() if settings is not None} or dict.fromkeys(given, {})
    judges = []
    for name, settings in chosen.items():
        try:
            judges.append(_RULES[name](**settings))
        except TypeError as error:
            raise UsageError(f"quality: {error}") from None
    return judging_stage(*judges)
