"""From the points of a comparison to means with intervals, paired differences, and one sentence.

An interval covers both reasons why another comparison would come out otherwise: other labelled samples and random draws
(seeds), and another test set. With all labels it does not cover other labelled samples. S seeds, N test examples, C
classes, R bootstrap resamples.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tilth.key import Key
from tilth.tasks.metrics import LEVEL, NORMAL_QUANTILE

RESAMPLES = 500


class TestNoise:
    """Resamples of one test set, the same for all predictions, so that differences are paired."""

    __test__ = False  # not a test, whatever its name looks like

    def __init__(self, true_N: np.ndarray, num_classes: int) -> None:
        size = len(true_N)
        generator, shares = Key(0, 0, "test resamples").generator(), np.full(size, 1 / size)
        self._times_RN = np.empty((RESAMPLES, size), np.uint8)  # no text is drawn as often as 256 times
        for times_N in self._times_RN:
            times_N[:] = generator.multinomial(size, shares)
        self._is_true_NC = np.eye(num_classes, dtype=np.float32)[true_N]
        self._support_RC = self._sums(self._is_true_NC)

    def macro_f1(self, predicted_N: np.ndarray) -> np.ndarray:
        """Macro-F1 of predictions on each resample (R,), over the classes that occur."""
        is_predicted_NC = np.eye(self._is_true_NC.shape[1], dtype=np.float32)[predicted_N]
        right_RC = self._sums(self._is_true_NC * is_predicted_NC)
        both_RC = self._support_RC + self._sums(is_predicted_NC)
        f1_RC = np.divide(2 * right_RC, both_RC, out=np.zeros_like(right_RC), where=both_RC > 0)
        return f1_RC.sum(1) / (both_RC > 0).sum(1)

    def _sums(self, values_NC: np.ndarray) -> np.ndarray:
        """Sums over the texts of each resample (R, C), some resamples at a time: a large test set fills the memory."""
        return np.concatenate([times.astype(np.float32) @ values_NC for times in np.array_split(self._times_RN, 50)])


def interval(
    values_S: Sequence[float], resampled_SR: np.ndarray, bounds: tuple[float, float]
) -> tuple[float, float | None, float | None]:
    """(mean, low, high) of a figure measured once per seed, within `bounds`; low and high are None with one seed.

    values: the figure of each seed. resampled: the same on resamples of the test set (S, R). The half width is the root
    of the summed squares of Student's t interval over seeds and of the normal interval over test sets.
    """
    from scipy.stats import t

    seeds = len(values_S)
    mean = float(np.mean(values_S))
    if seeds < 2:
        return mean, None, None
    over_seeds = float(t.ppf(0.5 + LEVEL / 2, seeds - 1)) * float(np.std(values_S, ddof=1)) / math.sqrt(seeds)
    over_tests = NORMAL_QUANTILE * float(np.std(resampled_SR.mean(0), ddof=1))
    half = math.hypot(over_seeds, over_tests)
    return mean, max(bounds[0], mean - half), min(bounds[1], mean + half)


def summarise(points: Sequence[dict[str, Any]], noise: TestNoise, metric: str) -> list[dict[str, Any]]:
    """One row per system and budget, in the order of `points`."""
    rows = []
    for (system, budget), group in _grouped(points).items():
        values = [point["test"][metric] for point in group]
        mean, low, high = interval(values, _resampled(group, noise), (0.0, 1.0))
        train_mean = float(np.mean([point["train"][metric] for point in group]))
        flops = [point["flops"] for point in group if point["flops"] is not None]
        rows.append(
            {
                "system": system,
                "budget": budget,
                "examples": group[0]["examples"],
                "metric": metric,
                "mean": mean,
                "low": low,
                "high": high,
                "train_mean": train_mean,
                "gap": train_mean - mean,
                "seconds_mean": float(np.mean([point["seconds"] for point in group])),
                "flops_mean": float(np.mean(flops)) if flops else None,
            }
        )
    return rows


def differences(
    points: Sequence[dict[str, Any]], pairs: Sequence[tuple[str, str]], noise: TestNoise, metric: str
) -> list[dict[str, Any]]:
    """How much better the first system of each pair is than the second, paired by seed and by test example."""
    groups = _grouped(points)
    rows = []
    for system, against in pairs:
        for (name, budget), group in groups.items():
            if name != system or (against, budget) not in groups:
                continue
            other = groups[against, budget]
            assert [point["seed"] for point in group] == [point["seed"] for point in other]
            values = [a["test"][metric] - b["test"][metric] for a, b in zip(group, other, strict=True)]
            mean, low, high = interval(values, _resampled(group, noise) - _resampled(other, noise), (-1.0, 1.0))
            rows.append(
                {
                    "system": system,
                    "against": against,
                    "budget": budget,
                    "metric": metric,
                    "mean": mean,
                    "low": low,
                    "high": high,
                }
            )
    return rows


def verdicts(rows: Sequence[dict[str, Any]], scratch_of: Mapping[str, str], baseline: str) -> str:
    """One sentence for each pre-trained system, which names it where there are several.

    scratch_of: of each pre-trained system, the name of the same from scratch.
    """
    if any(row["low"] is None for row in rows):
        return "One seed says nothing about chance, so there is no verdict: compare again with at least 5 seeds."
    several = len(scratch_of) > 1
    return " ".join(verdict(rows, name, scratch, baseline, several) for name, scratch in scratch_of.items())


def verdict(rows: Sequence[dict[str, Any]], pretrained: str, scratch: str, baseline: str, named: bool = False) -> str:
    """One sentence: at which budgets pre-training helped, and how it stands against the baseline.

    It helped, or hurt, at a budget only where the interval of the paired difference leaves out zero. named: say which
    pre-trained system it is about.
    """
    own = [row for row in rows if row["system"] == pretrained]
    over_scratch = [row for row in own if row["against"] == scratch]
    over_baseline = [row for row in own if row["against"] == baseline]
    better, worse = _decided(over_scratch)
    unclear = [row for row in over_scratch if row not in better and row not in worse]
    effects = [f"helped at {_budgets(better)}"] if better else []
    effects += [f"hurt at {_budgets(worse)}"] if worse else []
    effects += [f"made no difference beyond chance at {_budgets(unclear, figures=False)}"] if unclear else []
    opening = "Compared with the same model from scratch, pre-training"
    if not better:
        opening = "Pre-training did not help here: compared with the same model from scratch, it"
    if named:
        opening = f"{pretrained}: {opening[0].lower()}{opening[1:]}"
    better, worse = _decided(over_baseline)
    standing = [f"beats {baseline} at {_budgets(better)}"] if better else []
    standing += [f"loses to {'it' if better else baseline} at {_budgets(worse)}"] if worse else []
    standing = standing or [f"is not clearly better or worse than {baseline}"]
    return f"{opening} {_joined(effects)}; the pre-trained model {_joined(standing)}."


def _decided(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return [row for row in rows if row["low"] > 0], [row for row in rows if row["high"] < 0]


def _budgets(rows: Sequence[dict[str, Any]], figures: bool = True) -> str:
    """`8 and 32 labels per class (+0.05, +0.02)`."""
    counts = [str(row["budget"]) for row in rows if row["budget"] != "all"]
    words = [f"{_joined(counts)} labels per class"] if counts else []
    if any(row["budget"] == "all" for row in rows):
        words.append("all labels")
    return _joined(words) + (f" ({', '.join(format(row['mean'], '+.3f') for row in rows)})" if figures else "")


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _grouped(points: Sequence[dict[str, Any]]) -> dict[tuple[str, Any], list[dict[str, Any]]]:
    groups: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for point in points:
        groups.setdefault((point["system"], point["budget"]), []).append(point)
    return groups


def _resampled(group: Sequence[dict[str, Any]], noise: TestNoise) -> np.ndarray:
    return np.stack([noise.macro_f1(np.array(point["predictions"])) for point in group])
