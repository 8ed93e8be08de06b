"""Rules that judge a document by one number each, and the stage that applies them."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa

from tilth.corpus.filters.columns import mark_dropped
from tilth.corpus.filters.segments import Segments, gather
from tilth.errors import UsageError

Judge = Callable[[Segments], Mapping[str, np.ndarray]]
"""For each reason, bool (documents,): whether a document is to be dropped for it."""


def judging_stage(*judges: Judge, fold_case: bool = False) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that drops each document for the first reason, in the order of `judges`, that applies to it.

    fold_case: the judges see case-folded texts.
    """

    def filter_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        reasons: list[str | None] = []
        texts = batch["text"].to_pylist()
        for segments in gather([text.casefold() for text in texts] if fold_case else texts):
            judged = {reason: verdict for judge in judges for reason, verdict in judge(segments).items()}
            reasons += _first_reason(judged, segments.count)
        return mark_dropped(batch, reasons)

    return filter_batch


def _first_reason(judged: Mapping[str, np.ndarray], count: int) -> Iterable[str | None]:
    names = [None, *judged]
    verdicts = np.array([np.zeros(count, bool), *judged.values()])
    return [names[index] for index in verdicts.argmax(axis=0)]


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole as float64, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole != 0)


def check_limits(limits: Mapping[str, float | None], kind: str) -> None:
    """Raises: UsageError for a limit that is not a number from 0 on."""
    for name, limit in limits.items():
        if limit is not None and not 0 <= limit < float("inf"):
            raise UsageError(f"{kind}: {name} is {limit}; choose a number from 0 on, or null for no limit")
