"""When to save: the formulas against a simulation, and against their own optimum."""

import numpy as np
import pytest

from tilth.train.planning.failures import (
    daly_interval,
    mean_time_between_failures,
    simulated_share,
    useful_share,
    young_interval,
)

CASES = [
    # save, restart, mean time between failures, in seconds
    (30.0, 600.0, 11_135.0),  # 16,384 GPUs
    (120.0, 900.0, 7_200.0),
    (5.0, 60.0, 400_000.0),
]


def test_llama_3s_rate():
    """One interruption in about three hours on its 16,384 GPUs, one in 264 days on eight."""
    assert mean_time_between_failures(16_384) / 3600 == pytest.approx(3.09, abs=0.01)
    assert mean_time_between_failures(8) / 86_400 == pytest.approx(263.9, abs=0.1)


def test_intervals_of_hand_worked_cases():
    assert young_interval(30, 11_135) == pytest.approx(817.4, abs=0.1)
    assert daly_interval(30, 11_135) == pytest.approx(817.4 * (1 + 0.0367026 / 3 + 0.0013471 / 9) - 30, abs=0.1)
    assert daly_interval(500, 100) == 100


@pytest.mark.parametrize(("save", "restart", "mtbf"), CASES)
@pytest.mark.parametrize("times", [0.3, 1, 3])
def test_the_expected_share_is_what_simulated_runs_have(save, restart, mtbf, times):
    """The mean of 8 runs of some 500 failures each is known to about 0.1 %; a restart is begun again when it fails."""
    interval = times * daly_interval(save, mtbf)
    expected = useful_share(interval, save, restart, mtbf)
    saves = int(500 * mtbf / interval) + 1
    shares = [simulated_share(interval, save, restart, mtbf, min(saves, 60_000), seed) for seed in range(8)]
    assert np.mean(shares) == pytest.approx(expected, rel=0.01)
    assert len(set(shares)) == 8


@pytest.mark.parametrize(("save", "restart", "mtbf"), CASES)
def test_no_other_interval_is_better_by_more_than_a_thousandth(save, restart, mtbf):
    best = max(useful_share(seconds, save, restart, mtbf) for seconds in np.geomspace(save, 2 * mtbf, 2000))
    chosen = useful_share(daly_interval(save, mtbf), save, restart, mtbf)
    assert best - chosen < 1e-3 * best
    for factor in (0.3, 3):
        assert useful_share(factor * daly_interval(save, mtbf), save, restart, mtbf) < chosen
