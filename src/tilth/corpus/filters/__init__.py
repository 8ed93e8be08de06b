"""Filters of the corpus pipeline: stages that judge documents, edit them, or say what they are.

Each takes and gives a `pyarrow.RecordBatch` with the columns `text` and `metadata`; those that
edit the text go before what compares or measures it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from tilth.corpus.filters import c4, classifier, contamination, language, lines, personal, quality, words

BatchFunction = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True)
class Filter:
    """A stage by name. version: changes when its results do. make(**parameters): its function in a build.

    reasons: what each reason in the column `drop` means. edits: whether it changes the texts.
    """

    name: str
    version: int
    make: Callable[..., BatchFunction]
    reasons: dict[str, str]
    edits: bool = False


FILTERS = {
    each.name: each
    for each in (
        Filter("language", 1, language.language, language.REASONS, edits=True),
        Filter("lines", 1, lines.lines, lines.REASONS, edits=True),
        Filter("c4", 1, c4.c4, c4.REASONS, edits=True),
        Filter("quality", 1, quality.quality, quality.REASONS),
        Filter("words", 1, words.words, words.REASONS),
        Filter("like", 1, classifier.like, classifier.REASONS),
        Filter("contamination", 1, contamination.contamination, contamination.REASONS),
        Filter("personal", 1, personal.personal, {}, edits=True),
    )
}
"""In an order that makes sense: what tells most for least first, what masks last."""
