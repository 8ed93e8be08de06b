import numpy as np
import pytest

from tilth.tasks.metrics import confusion_matrix, per_class, scores, scores_with_intervals

TRUE = np.array([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 0, 2, 2])


def test_scores_by_hand():
    # F1: class 0 2*3/(4+4) = 0.75, class 1 2*1/(2+2) = 0.5, class 2 1.0
    assert scores(TRUE, PREDICTED) == {"accuracy": pytest.approx(6 / 8), "macro_f1": pytest.approx(0.75)}


def test_confusion_rows_are_true_classes():
    assert confusion_matrix(TRUE, PREDICTED, 3).tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 2]]


def test_per_class_table():
    table = per_class(TRUE, PREDICTED, ["a", "b", "c", "never"])
    assert table["a"] == {"precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 4}
    assert table["never"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_scores_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

    generator = np.random.default_rng(2)
    for labels in (2, 5, 40):
        true, predicted = generator.integers(0, labels, 60), generator.integers(0, labels, 60)
        ours = scores(true, predicted)
        assert ours["accuracy"] == pytest.approx(accuracy_score(true, predicted), abs=1e-12)
        assert ours["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"), abs=1e-12)
        names = [f"label {number}" for number in range(labels)]
        table = precision_recall_fscore_support(true, predicted, labels=range(labels), zero_division=0)
        for row, expected in zip(per_class(true, predicted, names).values(), zip(*table, strict=True), strict=True):
            assert list(row.values()) == pytest.approx(expected, abs=1e-12)


def test_interval_agrees_with_resampling_the_examples_one_by_one():
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(1)
    true = generator.integers(0, 4, 300)
    predicted = np.where(generator.random(300) < 0.7, true, generator.integers(0, 4, 300))
    direct = []
    for _ in range(1000):
        chosen = generator.integers(0, 300, 300)
        direct.append(f1_score(true[chosen], predicted[chosen], average="macro"))
    interval = scores_with_intervals(true, predicted)["macro_f1"]
    assert interval["low"] == pytest.approx(np.percentile(direct, 2.5), abs=0.006)
    assert interval["high"] == pytest.approx(np.percentile(direct, 97.5), abs=0.006)
    assert interval["low"] < interval["value"] < interval["high"]


def test_accuracy_interval_is_near_the_normal_approximation():
    true = np.zeros(872, dtype=int)
    true[:436] = 1
    predicted = true.copy()
    predicted[::10] = 1 - predicted[::10]
    interval = scores_with_intervals(true, predicted)["accuracy"]
    half = 1.96 * np.sqrt(interval["value"] * (1 - interval["value"]) / 872)
    assert interval["high"] - interval["value"] == pytest.approx(half, rel=0.15)
    assert interval["value"] - interval["low"] == pytest.approx(half, rel=0.15)


def test_intervals_repeat_and_depend_on_the_seed():
    assert scores_with_intervals(TRUE, PREDICTED, seed=3) == scores_with_intervals(TRUE, PREDICTED, seed=3)
    true = np.arange(500) % 3
    predicted = np.where(np.arange(500) % 7 == 0, 0, true)
    one, two = scores_with_intervals(true, predicted, seed=1), scores_with_intervals(true, predicted, seed=2)
    assert one["macro_f1"]["value"] == two["macro_f1"]["value"]
    assert one["macro_f1"]["low"] != two["macro_f1"]["low"]


def test_answers_that_are_all_right_or_all_wrong_have_wilsons_interval():
    """By hand, for five: z = 1.96 squared is 3.84, and 5 / (5 + 3.84) = 0.566."""
    true = np.array([0, 1, 0, 1, 1])
    for found in scores_with_intervals(true, true).values():
        assert found == {"value": 1.0, "low": pytest.approx(0.5655, abs=1e-4), "high": 1.0}
    for found in scores_with_intervals(true, 1 - true).values():
        assert found == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.4345, abs=1e-4)}


def test_many_classes_stay_small():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 150, 4500), generator.integers(0, 150, 4500)
    interval = scores_with_intervals(true, predicted)["accuracy"]
    assert 0 < interval["low"] < interval["value"] < interval["high"] < 0.03
