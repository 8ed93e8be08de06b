import json

import numpy as np
import pytest

from tilth.train.layers import LayerMonitor, Look
from tilth.train.monitor import WINDOW, Monitor, Starvation


def watch(train, held_out, patience=3):
    """The steps at which overfitting is named, and the monitor at the end."""
    monitor, named = Monitor(patience), []
    for step, (train_loss, held_out_loss) in enumerate(zip(train, held_out, strict=True), start=1):
        best = monitor.evaluate(step, train_loss, held_out_loss)
        assert best == (monitor.best_step == step)
        if finding := monitor.names_overfitting(train_loss):
            assert finding.kind == "overfitting"
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


def test_a_training_loss_that_hardly_falls_is_no_overfitting():
    held_out = np.where(STEPS <= 10, FALLING, FALLING[9] + 0.01)
    assert watch(np.where(STEPS <= 10, FALLING, 0.992 * FALLING[9]), held_out)[0] == []
    assert watch(np.where(STEPS <= 10, FALLING, 0.988 * FALLING[9]), held_out)[0] == [13]


def test_losses_that_are_not_numbers_are_neither_best_nor_overfitting():
    nan = float("nan")
    named, monitor = watch([5, 4, nan, nan, nan, nan], [5, 4, nan, nan, nan, nan])
    assert (named, monitor.best_step) == ([], 2)
    named, monitor = watch([nan] * 6, [nan, 5, 6, 6, 6, 6])
    assert (named, monitor.best_step) == ([], 2)
    assert watch([nan] * 3, [nan] * 3)[1].best_step == 0


def test_what_is_measured_otherwise_is_forgotten():
    """An overfitting, diverging run goes on to something harder, of which it says nothing until that goes wrong."""
    monitor = watch(FALLING, np.where(STEPS <= 10, FALLING, FALLING[9] + 0.05 * (STEPS - 10)))[1]
    for loss in [1.0] * WINDOW + [2.0] * WINDOW:
        monitor.take_step(loss, 1.0)
    assert monitor.overfits and monitor.diverges and monitor.lowest == 1.0
    monitor.forget_held_out_losses()
    assert (monitor.best_loss, monitor.evaluations_since_best, monitor.overfits) == (np.inf, 0, False)
    assert monitor.diverges and monitor.lowest == 1.0, "the training losses are what they were"
    monitor.forget_training_losses()
    assert [monitor.take_step(9.0, 1.0) for _ in range(2 * WINDOW)] == [None] * (2 * WINDOW)
    assert monitor.lowest == 9.0
    assert monitor.evaluate(40, 9.0, 8.0)
    assert (monitor.best_step, monitor.best_loss, monitor.train_loss_at_best) == (40, 8.0, 9.0)


def test_what_training_loss_the_best_had_is_forgotten_where_only_that_is_measured_otherwise():
    monitor = watch(FALLING[:10], FALLING[:10])[1]
    monitor.forget_training_losses()
    for step in range(11, 20):
        assert not monitor.evaluate(step, 0.1, 9.0)
        assert monitor.names_overfitting(0.1) is None
    assert monitor.best_step == 10


def test_what_it_remembers_survives_json():
    for steps in (0, 4, 15):
        held_out = np.where(STEPS <= 10, FALLING, FALLING[9] + 0.05 * (STEPS - 10))[:steps]
        _, monitor = watch(FALLING[:steps].tolist(), held_out.tolist())
        again = Monitor.from_state(json.loads(json.dumps(monitor.state())))
        assert again == monitor
        assert again.names_overfitting(0.1) == monitor.names_overfitting(0.1)


NOISE = np.random.Generator(np.random.Philox(0)).normal(size=400)
LOSSES = 7 * np.arange(1, 401) ** -0.12 + 0.05 * NOISE


def steps_named(losses):
    """The (kind, step) of what is found in losses, and the monitor at the end."""
    monitor = Monitor(3)
    found = [(finding.kind, step) for step, loss in enumerate(losses) if (finding := monitor.take_step(loss, 1.0))]
    return found, monitor


def test_a_noisy_falling_loss_is_not_named():
    assert steps_named(LOSSES)[0] == []
    assert steps_named(LOSSES[::-1][:20])[0] == []  # rising, but not for long
    assert steps_named(0.02 * LOSSES)[0] == []
    assert steps_named(np.geomspace(6.5, 0.5, 60))[0] == []  # learnt by heart


def test_a_spike_is_named_once_and_again_after_it_has_passed():
    losses = LOSSES.copy()
    losses[[100, 101, 102, 200]] += 2
    assert steps_named(losses)[0] == [("spike", 100), ("spike", 200)]
    losses = LOSSES.copy()
    losses[10] += 2  # too early to know what is usual
    losses[300] += 0.3  # six deviations
    assert steps_named(losses)[0] == []
    flat = np.full(100, 2.0)
    flat[50], flat[70] = 2.19, 2.21  # no deviation at all: a tenth decides
    assert steps_named(flat)[0] == [("spike", 70)]


def test_a_loss_that_stays_well_above_what_it_was_diverges():
    losses = LOSSES.copy()
    losses[200:] += np.minimum(3, 0.02 * np.arange(200))
    found, monitor = steps_named(losses)
    kinds = [kind for kind, _ in found if kind == "divergence"]
    (step,) = [step for kind, step in found if kind == "divergence"]
    assert len(kinds) == 1 and monitor.diverges
    # 15 % of a loss of 3.7 is 0.55, which the loss passes after some 28 steps and its median half a window later.
    assert 200 + 28 <= step <= 200 + 28 + WINDOW
    first = np.concatenate([[6.9], np.full(60, 8.0)])  # never below where it started
    assert steps_named(first)[0] == [("divergence", WINDOW - 1)]
    short = LOSSES.copy()
    short[200 : 200 + WINDOW // 2 - 1] += 3
    assert [kind for kind, _ in steps_named(short)[0]] == ["spike"]


def test_numbers_that_are_not_finite_are_named_each_time():
    nan, inf = float("nan"), float("inf")
    monitor = Monitor(3)
    assert monitor.take_step(2.0, 1.0) is None
    for loss, norm in ((nan, 1.0), (2.0, inf), (inf, nan)):
        finding = monitor.take_step(loss, norm)
        assert finding is not None and finding.kind == "nonfinite"
        assert finding.message == f"loss {loss}, gradient norm {norm}"
    assert monitor.losses == [2.0]


def stalls(train, held_out, rates=None, every=1 / 20):
    """The numbers of the evaluations at which a stall is named."""
    monitor = Monitor(3)
    rates = np.ones(len(train)) if rates is None else rates
    return [
        number
        for number, figures in enumerate(zip(rates, train, held_out, strict=True))
        if monitor.names_stall(every * (number + 1), *figures)
    ]


def test_a_stall_is_named_while_the_rate_is_high():
    flat = np.concatenate([FALLING[:8], FALLING[7] * np.linspace(1, 0.999, 12)])
    assert stalls(flat, flat) == [10]
    assert stalls(FALLING[:20], FALLING[:20]) == []
    assert stalls(FALLING[:20], flat) == []  # it learns the training text: that is overfitting
    assert stalls(flat, FALLING[:20]) == []
    assert stalls(flat, flat, np.where(np.arange(20) < 9, 1, 0.4)) == []
    assert stalls(flat, flat, np.where(np.arange(20) < 12, 0.3, 1)) == [15]  # counted from the end of the warm-up
    assert stalls(flat, flat, every=1 / 100) == []  # 15 % of the budget have not gone by


def test_waiting_for_batches_is_named_once_it_takes_a_third_of_the_time():
    def waits(*times):
        starvation = Starvation()
        return [number for number, (waited, computed) in enumerate(times) if starvation.take_step(waited, computed)]

    assert waits(*[(0.06, 0.1)] * 60) == [19]
    assert waits(*[(0.04, 0.1)] * 60) == []
    assert waits(*[(0.04, 0.001)] * 60) == []  # less than a second in 20 steps
    assert waits(*[(0.1, 0.1)] * 20, *[(0, 0.1)] * 30, *[(0.1, 0.1)] * 20) == [19, 60]


HEALTHY = {f"blocks.{number}.{name}": Look(0.5, 0.3, 1.0, 0.02) for number in range(3) for name in ("attention", "mlp")}


def looks_named(*changes):
    """The (kind, look) found when one layer has these figures at one look after the other."""
    monitor = LayerMonitor()
    found = []
    for number, change in enumerate(changes):
        for finding in monitor.take(HEALTHY | {"blocks.1.mlp": Look(**(vars(HEALTHY["blocks.1.mlp"]) | change))}):
            assert "blocks.1.mlp" in finding.message and "blocks.0" not in finding.message
            found.append((finding.kind, number))
        monitor = LayerMonitor(**json.loads(json.dumps(monitor.state())))
    return found


def test_layers_that_die_or_explode_are_named():
    assert looks_named(*[{}] * 10) == []
    assert looks_named(*[{}] * 5, *[{"gradient": 1e-5}] * 3, {}, *[{"spread": 1e-5}] * 2) == [("dead", 6), ("dead", 10)]
    assert looks_named({}, {}, {"gradient": 1e-5}, {}, {"gradient": 1e-5}, {}) == []
    assert looks_named(*[{"gradient": 1e-3}] * 4) == []
    assert looks_named({}, {"update": 1.5}, {"update": 2.0}, {}, {"update": 1.1}) == [
        ("exploding", 1),
        ("exploding", 4),
    ]
    assert looks_named({}, {}, {}, {"activation": 16.0}) == [("exploding", 3)]
    assert looks_named({}, {}, {}, {"activation": 14.0}) == []
    assert looks_named({}, {"activation": 5001.0}) == [("exploding", 1)]  # 10,000 times what it was at first
    assert looks_named({}, {}, {"activation": 16.0}) == []  # too early to know what is usual
    assert looks_named({}, {}, {}, {"gradient": 101.0}, {"gradient": 99.0}) == [("exploding", 3)]
    assert looks_named({}, {}, {}, {"activation": float("nan")}, {"update": float("inf")}) == [("exploding", 4)]


def test_what_it_remembers_of_steps_survives_json():
    losses = LOSSES.copy()
    losses[[60, 61]] += 2
    for cut in (0, 1, 20, 61, 80):
        _, monitor = steps_named(losses[:cut].tolist())
        monitor.names_stall(0.2, 1.0, 3.0, 3.5)
        again = Monitor.from_state(json.loads(json.dumps(monitor.state())))
        assert again == monitor
        for loss in losses[cut:100].tolist():
            assert again.take_step(loss, 1.0) == monitor.take_step(loss, 1.0)
        assert again == monitor
