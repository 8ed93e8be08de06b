"""The loss to expect, from a ladder of short runs: L(D) = E + B / D^beta (Kaplan et al. 2020; Hoffmann et al. 2022).

Every rung is a whole run of the recipe's own model, with its own warm-up and decay, on half as many tokens as the one
above; the law is drawn on to the tokens of the budget. It is a law of one regime: it knows nothing of repeated text, or
of a model that turns out too small, so the further the budget lies beyond the ladder, the less it is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilth.errors import UsageError
from tilth.key import Key
from tilth.progress import Update
from tilth.recipe import Budget, Recipe
from tilth.train.loop import pretrain
from tilth.train.planning.probe import Probe, short_run
from tilth.train.prepare import Prepared

RUNGS, MIN_RUNS, MIN_STEPS = 6, 5, 8
RESAMPLES = 1000
COVERAGE = 0.9
MAX_REACH = 32
"""How many times further than the longest rung a budget may lie for a loss to be claimed."""
_EXPONENTS = np.geomspace(0.02, 1.5, 300)


@dataclass(frozen=True)
class Law:
    """L(D) = floor + scale / (D / unit) ** exponent, in nats for D tokens."""

    floor: float
    scale: float
    exponent: float
    unit: float

    def __call__(self, tokens: Any) -> Any:
        return self.floor + self.scale * (np.asarray(tokens) / self.unit) ** -self.exponent


def fit_law(tokens: np.ndarray, losses: np.ndarray) -> Law:
    """The law with the least squared error, its floor and scale not negative.

    tokens, losses: float (N,), N of at least 3.
    """
    floors, scales, exponents = _fit(tokens, losses[None])
    return Law(float(floors[0]), float(scales[0]), float(exponents[0]), float(tokens.min()))


def _fit(tokens: np.ndarray, losses_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Floor, scale and exponent, each (R,), of R sets of losses.

    For a given exponent the law is linear in the other two, so only the exponent is searched, on a fine grid.
    """
    terms_KN = (tokens / tokens.min()) ** -_EXPONENTS[:, None]
    means_K, mean_R1 = terms_KN.mean(1), losses_RN.mean(1, keepdims=True)
    # About their means, so that sums of squares lose no digits.
    spread_KN, fall_RN = terms_KN - means_K[:, None], losses_RN - mean_R1
    product_RK, square_K = fall_RN @ spread_KN.T, (spread_KN**2).sum(1)
    scale_RK = product_RK / square_K
    # Where the best floor is negative it is 0, and where the best scale is, the loss is flat.
    through_zero_RK = losses_RN @ terms_KN.T / (terms_KN**2).sum(1)
    scale_RK = np.maximum(0, np.where(mean_R1 < scale_RK * means_K, through_zero_RK, scale_RK))
    floor_RK = np.maximum(0, mean_R1 - scale_RK * means_K)
    offset_RK = mean_R1 - floor_RK - scale_RK * means_K
    error_RK = scale_RK**2 * square_K - 2 * scale_RK * product_RK + len(tokens) * offset_RK**2
    chosen = np.arange(len(losses_RN)), error_RK.argmin(1)
    return floor_RK[chosen], scale_RK[chosen], _EXPONENTS[chosen[1]]


def predict(tokens: np.ndarray, losses: np.ndarray, at: float, seed: int) -> tuple[float, float, float]:
    """(value, low, high): the loss at `at` tokens, with bounds that hold it in about 9 of 10 cases if the law does.

    A bootstrap of normal noise, as large as the residuals say, in the rungs and in the run to come. What so few rungs
    say of the noise is itself uncertain, so each resample draws it from its chi-squared distribution, with one degree
    of freedom for every rung past the law's three numbers.
    """
    law = fit_law(tokens, losses)
    freedom = len(losses) - 3
    squares = float(((losses - law(tokens)) ** 2).sum())
    generator = Key(seed, 0, "ladder bootstrap").generator()
    deviation = np.sqrt(squares / generator.chisquare(freedom, size=(RESAMPLES, 1)))
    noise = deviation * generator.standard_normal((RESAMPLES, len(losses) + 1))
    floors, scales, exponents = _fit(tokens, law(tokens) + noise[:, :-1])
    values = floors + scales * (at / law.unit) ** -exponents + noise[:, -1]
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    value = float(law(at))
    return value, max(0.0, min(value, float(low))), max(value, float(high))


def rungs(minutes: float, probe: Probe) -> list[float]:
    """Tokens of each run, the longest first, that together take `minutes`.

    Raises: UsageError when that is not enough for the runs to start.
    """
    fixed = RUNGS * (probe.start_seconds + probe.seconds_per_evaluation)
    shares = [0.5**rung for rung in range(RUNGS)]
    longest = (60 * minutes - fixed) * probe.tokens_per_second / sum(shares)
    if longest <= 0:
        raise UsageError(f"--ladder {minutes:g}: starting {RUNGS} runs alone takes {fixed / 60:.1f} minutes; give more")
    return [longest * share for share in shares]


@dataclass(frozen=True)
class Expected:
    """The loss to expect. loss: {"value", "low", "high"}, or None where none is claimed. note: what it rests on."""

    loss: dict[str, float] | None
    runs: list[dict[str, float]]
    note: str


def climb(
    recipe: Recipe, prepared: Prepared, folder: Path, tokens: Sequence[float], target: float, update: Update
) -> Expected:
    """Run the rungs, and say what loss to expect at `target` tokens.

    tokens: of each run, the longest first. folder: where `prepare` left its files. update: told how many runs are done.
    No loss is claimed, and nothing run, where the runs are too few, or too short for the target.
    Raises: TilthError as a run does.
    """
    usable = [amount for amount in tokens if amount >= MIN_STEPS * recipe.train.batch_tokens]
    if len(usable) < MIN_RUNS:
        few = f"{len(usable)} of {len(tokens)} runs would reach {MIN_STEPS} steps, and {MIN_RUNS} must"
        return Expected(None, [], f"the ladder is too short: {few}; give it more minutes")
    if target > MAX_REACH * usable[0]:
        reach = f"{target / usable[0]:.0f} times the ladder's longest run, and {MAX_REACH} is the most"
        return Expected(None, [], f"the budget is {reach}; give the ladder more minutes")
    runs = []
    for number, amount in enumerate(usable):
        settings = short_run(recipe, prepared, folder, Budget(amount=round(amount), unit="tokens"))
        summary = pretrain(settings, prepared.corpus.path, folder / f"rung-{number}", progress=False)
        runs.append({"tokens": summary["tokens"], "held_out_loss": summary["held_out_loss"]})
        update(number + 1)
    amounts, losses = (np.array([run[name] for run in runs], dtype=float) for name in ("tokens", "held_out_loss"))
    value, low, high = predict(amounts, losses, target, recipe.seed)
    note = (
        f"a power law through {len(runs)} runs of this model, drawn on to {target / amounts.max():.1f} times the "
        "longest; the interval covers the noise of the runs, not a change of regime such as repeated text"
    )
    return Expected({"value": value, "low": low, "high": high}, runs, note)
