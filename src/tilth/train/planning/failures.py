"""How often to save on a machine that fails, and the share of the time that is then of use.

Failures come at random and independently, at a constant rate (a Poisson process); what was done since the last save is
lost, and a restart may fail as well.
"""

import math

from tilth.key import Key

LLAMA3_INTERRUPTIONS, LLAMA3_DAYS, LLAMA3_GPUS = 419, 54, 16_384
"""Unexpected interruptions in its pre-training (Grattafiori et al. 2024, "The Llama 3 Herd of Models", table 5)."""


def mean_time_between_failures(gpus: int) -> float:
    """Seconds between failures of a job on so many GPUs, at the rate that Llama 3's had."""
    return LLAMA3_DAYS * 86_400 * LLAMA3_GPUS / LLAMA3_INTERRUPTIONS / gpus


def young_interval(save: float, mtbf: float) -> float:
    """Seconds of work between saves that each take `save` (Young 1974, "A first order approximation")."""
    return math.sqrt(2 * save * mtbf)


def daly_interval(save: float, mtbf: float) -> float:
    """As `young_interval`, to a higher order (Daly 2006, "A higher order estimate", equation 37)."""
    if save >= 2 * mtbf:
        return mtbf
    ratio = save / (2 * mtbf)
    return young_interval(save, mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save


def useful_share(interval: float, save: float, restart: float, mtbf: float) -> float:
    """Expected share of the time that is training (Daly 2006, equation 20).

    interval: seconds of work between saves. save, restart: seconds that one takes.
    """
    spent = mtbf * math.exp(restart / mtbf) * math.expm1((interval + save) / mtbf)
    return interval / spent


def simulated_share(interval: float, save: float, restart: float, mtbf: float, saves: int, seed: int) -> float:
    """The share of the time that was training in one simulated run of `saves` intervals."""
    generator = Key(seed, 0, "failures").generator()
    clock, failure = 0.0, generator.exponential(mtbf)
    for _ in range(saves):
        needed = interval + save
        while clock + needed > failure:
            clock, failure = failure, failure + generator.exponential(mtbf)
            needed = restart + interval + save
        clock += needed
    return saves * interval / clock
