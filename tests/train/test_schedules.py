import math

import pytest

from tilth.recipe import TrainSettings
from tilth.train.schedules import rate

WARMUP = {"warmup": 0.1, "decay": 0.4}


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("linear", 0.1, 1.0),
        ("linear", 0.55, 0.5),
        ("linear", 1.0, 0.0),
        ("cosine", 0.1, 1.0),
        ("cosine", 0.325, 0.5 + math.sqrt(0.5) / 2),
        ("cosine", 0.55, 0.5),
        ("cosine", 1.0, 0.0),
        ("warmup_stable_decay", 0.1, 1.0),
        ("warmup_stable_decay", 0.6, 1.0),
        ("warmup_stable_decay", 0.7, 0.75),
        ("warmup_stable_decay", 0.9, 0.25),
        ("warmup_stable_decay", 1.0, 0.0),
    ],
)
@pytest.mark.parametrize("final", [0.0, 0.2])
def test_the_rate_falls_as_its_schedule_says(schedule, progress, expected, final):
    settings = TrainSettings(schedule=schedule, final_lr=final, **WARMUP)
    assert rate(settings, progress) == pytest.approx(final + (1 - final) * expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "warmup_stable_decay"])
def test_the_rate_rises_linearly_and_is_never_zero_at_the_start(schedule):
    settings = TrainSettings(schedule=schedule, final_lr=0.3, **WARMUP)
    assert rate(settings, 0) == 0.01
    assert rate(settings, 0.05) == pytest.approx(0.5)
    assert rate(settings, 0.0999) == pytest.approx(0.999)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "warmup_stable_decay"])
def test_it_only_falls_after_the_warmup_and_stays_in_range(schedule):
    settings = TrainSettings(schedule=schedule, final_lr=0.05, warmup=0.0, decay=1.0)
    rates = [rate(settings, step / 1000) for step in range(1001)]
    assert rates[0] == 1 and rates[-1] == pytest.approx(0.05)
    assert all(later <= earlier for earlier, later in zip(rates, rates[1:], strict=False))


def test_past_the_budget_and_without_decay():
    assert rate(TrainSettings(schedule="linear", final_lr=0.1), 1.5) == pytest.approx(0.1)
    assert rate(TrainSettings(schedule="cosine", final_lr=0.1), 1.5) == pytest.approx(0.1)
    assert rate(TrainSettings(decay=0.0), 1.0) == 1.0
