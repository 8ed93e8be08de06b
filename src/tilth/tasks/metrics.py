"""Classification metrics, with bootstrap intervals.

Labels are integers in [0, C) with C the number of classes; `true` and `predicted` are int arrays of one length N >= 1.
"""

from typing import Any

import numpy as np

from tilth.key import Key

RESAMPLES = 1000
LEVEL = 0.95
NORMAL_QUANTILE = 1.959964
"""Standard deviations on either side of the mean that hold `LEVEL` of a normal distribution."""
_CELLS_AT_ONCE = 4_000_000


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, (C, C) int64: row is the true class, column the predicted one."""
    cells = np.bincount(np.asarray(true) * num_classes + np.asarray(predicted), minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def scores(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """`accuracy`, and `macro_f1`: the mean F1 of the classes that occur in `true` or `predicted` (as scikit-learn)."""
    true, predicted = np.asarray(true), np.asarray(predicted)
    classes = int(max(true.max(), predicted.max())) + 1
    right, of_true, of_predicted = (
        np.bincount(labels, minlength=classes) for labels in (true[true == predicted], true, predicted)
    )
    return {name: float(value) for name, value in _scores(right, of_true + of_predicted, len(true)).items()}


def _scores(right: np.ndarray, occurrences: np.ndarray, examples: int) -> dict[str, np.ndarray]:
    """`scores` from counts of each class, (..., C). occurrences: among the true ones and the predicted ones."""
    f1 = _ratio(2 * right, occurrences)
    return {"accuracy": right.sum(-1) / examples, "macro_f1": f1.sum(-1) / (occurrences > 0).sum(-1)}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where nothing is divided."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)


def scores_with_intervals(true: np.ndarray, predicted: np.ndarray, seed: int = 0) -> dict[str, dict[str, float]]:
    """Each of `scores` as {"value", "low", "high"}: 95 % percentile bootstrap (Efron and Tibshirani 1993).

    Both metrics depend on the examples only through the confusion matrix, and resampling N examples with replacement
    draws that matrix from a multinomial over its cells: the draws below are the bootstrap itself, not an approximation.
    Where all answers are right, or all wrong, no draw differs, which says nothing of other examples: there Wilson's
    interval of a share (1927) stands for both.
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    num_classes = int(max(true.max(), predicted.max())) + 1
    counts = confusion_matrix(true, predicted, num_classes)
    rows, columns = np.nonzero(counts)
    one_hot = np.eye(num_classes)
    occurs = one_hot[rows] + one_hot[columns]
    is_right = one_hot[rows] * (rows == columns)[:, None]

    generator = Key(seed, 0, "bootstrap").generator()
    shares = counts[rows, columns] / len(true)
    resampled: dict[str, list[np.ndarray]] = {"accuracy": [], "macro_f1": []}
    chunk = max(1, _CELLS_AT_ONCE // (len(rows) + num_classes))
    for start in range(0, RESAMPLES, chunk):
        draws = generator.multinomial(len(true), shares, size=min(chunk, RESAMPLES - start)).astype(np.float64)
        for name, values in _scores(draws @ is_right, draws @ occurs, len(true)).items():
            resampled[name].append(values)

    tail = 100 * (1 - LEVEL) / 2
    intervals = {}
    right = int((true == predicted).sum())
    for name, value in scores(true, predicted).items():
        low, high = np.percentile(np.concatenate(resampled[name]), [tail, 100 - tail])
        if right in (0, len(true)):
            beyond = NORMAL_QUANTILE**2 / (len(true) + NORMAL_QUANTILE**2)
            low, high = (1 - beyond, 1.0) if right else (0.0, beyond)
        intervals[name] = {"value": value, "low": float(low), "high": float(high)}
    return intervals


def per_class(true: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, dict[str, Any]]:
    """`precision`, `recall`, `f1` and `support` (examples that truly have it) of every label; 0 where undefined."""
    counts = confusion_matrix(true, predicted, len(labels))
    right, support, answers = counts.diagonal(), counts.sum(1), counts.sum(0)
    precision, recall, f1 = _ratio(right, answers), _ratio(right, support), _ratio(2 * right, support + answers)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), support.tolist())
    return {
        label: dict(zip(("precision", "recall", "f1", "support"), row, strict=True))
        for label, *row in zip(labels, *columns, strict=True)
    }
