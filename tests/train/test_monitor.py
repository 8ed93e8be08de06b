import json

import numpy as np
import pytest

from tilth.train.monitor import Monitor


def watch(train, held_out, patience=3):
    """The steps at which overfitting is named, and the monitor at the end."""
    monitor, named = Monitor(patience), []
    for step, (train_loss, held_out_loss) in enumerate(zip(train, held_out, strict=True), start=1):
        best = monitor.evaluate(step, train_loss, held_out_loss)
        assert best == (monitor.best_step == step)
        if monitor.names_overfitting(train_loss):
            named.append(step)
    return named, monitor


STEPS = np.arange(1, 31)
FALLING = 6 * STEPS**-0.3


def test_a_rising_held_out_loss_is_named_once_patience_is_over():
    held_out = np.where(STEPS <= 10, FALLING, FALLING[9] + 0.05 * (STEPS - 10))
    for patience in (1, 3, 5):
        named, monitor = watch(FALLING, held_out, patience)
        assert named == [10 + patience]
        assert (monitor.best_step, monitor.best_loss) == (10, FALLING[9])


def test_it_is_named_again_after_a_better_loss():
    held_out = np.concatenate([[5, 4, 4.1, 4.2, 3, 3.1, 3.2, 3.3], np.full(22, 3.4)])
    named, monitor = watch(np.linspace(5, 1, 30), held_out, patience=2)
    assert named == [4, 7]
    assert monitor.best_step == 5


@pytest.mark.parametrize(
    "held_out",
    [
        FALLING,
        FALLING + 0.1,
        FALLING + 0.02 * np.where(STEPS % 3 == 0, 1, 0),
        np.where(STEPS % 2, FALLING, FALLING + 0.3),
    ],
    ids=["falling", "with a gap", "with noise", "to and fro"],
)
def test_healthy_curves_are_not_named(held_out):
    assert watch(FALLING, held_out)[0] == []


def test_a_run_that_stalls_or_diverges_does_not_overfit():
    """The training loss did not fall: whatever this is, it is not learning by heart."""
    stalled = np.concatenate([FALLING[:10], np.full(20, FALLING[9])])
    assert watch(stalled, stalled)[0] == []
    diverged = np.concatenate([FALLING[:10], FALLING[9] + STEPS[:20]])
    assert watch(diverged, diverged)[0] == []


def test_losses_that_are_not_numbers_are_neither_best_nor_overfitting():
    nan = float("nan")
    named, monitor = watch([5, 4, nan, nan, nan, nan], [5, 4, nan, nan, nan, nan])
    assert (named, monitor.best_step) == ([], 2)
    named, monitor = watch([nan] * 6, [nan, 5, 6, 6, 6, 6])
    assert (named, monitor.best_step) == ([], 2)
    assert watch([nan] * 3, [nan] * 3)[1].best_step == 0


def test_what_it_remembers_survives_json():
    for steps in (0, 4, 15):
        held_out = np.where(STEPS <= 10, FALLING, FALLING[9] + 0.05 * (STEPS - 10))[:steps]
        _, monitor = watch(FALLING[:steps].tolist(), held_out.tolist())
        again = Monitor.from_state(json.loads(json.dumps(monitor.state())))
        assert again == monitor
        assert again.names_overfitting(0.1) == monitor.names_overfitting(0.1)
