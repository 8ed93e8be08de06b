"""Keeping the documents that some score ranks highest."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from tilth.corpus.filters.columns import mark_dropped, merge_metadata
from tilth.errors import UsageError


def ranking_stage(
    name: str,
    reason: str,
    score: Callable[[Sequence[str]], np.ndarray],
    sample_scores: np.ndarray,
    keep: float | None,
    threshold: float | None,
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that drops documents whose score is below a threshold, and adds `NAME_score` to the metadata.

    name: of the filter. reason: for which documents are dropped. keep: the share of documents to keep, by
    `sample_scores`, which are in ascending order; threshold: the score itself.
    Raises: UsageError unless one of the two is given, from 0 to 1.
    """
    if (keep is None) == (threshold is None):
        raise UsageError(f"{name}: give keep, the share of documents to keep, or threshold, the score to reach")
    limit = float(np.quantile(sample_scores, 1 - keep)) if keep is not None and 0 < keep <= 1 else threshold
    if limit is None or not 0 <= limit <= 1:
        raise UsageError(f"{name}: {'threshold' if keep is None else 'keep'} is not a share from 0 to 1")

    def filter_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        scores = score(batch["text"].to_pylist())
        batch = merge_metadata(batch, [{f"{name}_score": round(value, 4)} for value in scores.tolist()])
        return mark_dropped(batch, [reason if value < limit else None for value in scores])

    return filter_batch
