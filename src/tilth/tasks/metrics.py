"""Classification metrics, with bootstrap intervals.

Labels are integers in [0, C) with C the number of classes; `true` and `predicted` are int arrays of one length N >= 1.
"""

from typing import Any

import numpy as np

from tilth.key import Key

RESAMPLES = 1000
LEVEL = 0.95
_CELLS_AT_ONCE = 4_000_000


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, (C, C) int64: row is the true class, column the predicted one."""
    cells = np.bincount(np.asarray(true) * num_classes + np.asarray(predicted), minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def scores(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """`accuracy`, and `macro_f1`: the mean F1 of the classes that occur in `true` or `predicted` (as scikit-learn)."""
    from sklearn.metrics import accuracy_score, f1_score

    macro_f1 = f1_score(true, predicted, average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
    return {"accuracy": float(accuracy_score(true, predicted)), "macro_f1": float(macro_f1)}


def scores_with_intervals(true: np.ndarray, predicted: np.ndarray, seed: int = 0) -> dict[str, dict[str, float]]:
    """Each of `scores` as {"value", "low", "high"}: 95 % percentile bootstrap (Efron and Tibshirani 1993).

    Both metrics depend on the examples only through the confusion matrix, and resampling N examples with replacement
    draws that matrix from a multinomial over its cells: the draws below are the bootstrap itself, not an approximation.
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    num_classes = int(max(true.max(), predicted.max())) + 1
    counts = confusion_matrix(true, predicted, num_classes)
    rows, columns = np.nonzero(counts)
    one_hot = np.eye(num_classes)
    is_true, is_predicted = one_hot[rows], one_hot[columns]
    is_right = is_true * (rows == columns)[:, None]

    generator = Key(seed, 0, "bootstrap").generator()
    shares = counts[rows, columns] / len(true)
    resampled: dict[str, list[np.ndarray]] = {"accuracy": [], "macro_f1": []}
    chunk = max(1, _CELLS_AT_ONCE // (len(rows) + num_classes))
    for start in range(0, RESAMPLES, chunk):
        draws = generator.multinomial(len(true), shares, size=min(chunk, RESAMPLES - start)).astype(np.float64)
        right, support = draws @ is_right, draws @ is_true + draws @ is_predicted
        f1 = np.divide(2 * right, support, out=np.zeros_like(right), where=support > 0)
        resampled["accuracy"].append(right.sum(1) / len(true))
        resampled["macro_f1"].append(f1.sum(1) / (support > 0).sum(1))

    tail = 100 * (1 - LEVEL) / 2
    intervals = {}
    for name, value in scores(true, predicted).items():
        low, high = np.percentile(np.concatenate(resampled[name]), [tail, 100 - tail])
        intervals[name] = {"value": value, "low": float(low), "high": float(high)}
    return intervals


def per_class(true: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, dict[str, Any]]:
    """`precision`, `recall`, `f1` and `support` (examples that truly have it) of every label; 0 where undefined."""
    from sklearn.metrics import precision_recall_fscore_support

    table: Any = precision_recall_fscore_support(
        true,
        predicted,
        labels=list(range(len(labels))),
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )
    return {
        label: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for label, precision, recall, f1, support in zip(labels, *table, strict=True)
    }
