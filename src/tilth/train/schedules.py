"""Learning rates as a share of the peak, from how much of the budget is spent."""

import math
from collections.abc import Callable

from tilth.recipe import TrainSettings

MOSTLY_UNDECAYED = 0.5
"""At this share of its peak and above, a rate is warmed up and far from the end of its schedule."""


def _linear(progress: float, settings: TrainSettings) -> float:
    return (1 - progress) / (1 - settings.warmup)


def _cosine(progress: float, settings: TrainSettings) -> float:
    return 0.5 * (1 + math.cos(math.pi * (progress - settings.warmup) / (1 - settings.warmup)))


def _warmup_stable_decay(progress: float, settings: TrainSettings) -> float:
    return min(1.0, (1 - progress) / settings.decay) if settings.decay else 1.0


SCHEDULES: dict[str, Callable[[float, TrainSettings], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "warmup_stable_decay": _warmup_stable_decay,
}
"""linear: Devlin et al. 2019, appendix A.2; cosine: Radford et al. 2018; warmup_stable_decay: Hu et al. 2024,
"MiniCPM"."""


def rate(settings: TrainSettings, progress: float) -> float:
    """The learning rate, as a share of its peak, at the start of a step.

    progress: share of the budget spent, in [0, 1]. The rate rises linearly over `warmup`, then falls from 1 to
    `final_lr`.
    """
    if progress < settings.warmup:
        # Never zero: the first step would be lost.
        return max(progress / settings.warmup, 0.01)
    share = SCHEDULES[settings.schedule](min(progress, 1.0), settings)
    return settings.final_lr + (1 - settings.final_lr) * max(0.0, share)
