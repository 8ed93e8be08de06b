"""Where a run is in its budget, and what is due there."""

import time
from typing import Any

from tilth.recipe import Budget, TrainSettings
from tilth.tokens.packing import Packing

TIMES = {"evaluate_every": 12, "save_every": 6}
"""How often a run evaluates and saves over its budget, unless the recipe says."""


EVALUATION_SHARE = 0.1
"""How much of a budget of time evaluations may take, unless the recipe says how often they are."""


class Clock:
    """Seconds spent training, those before a resume included.

    agreed: the first process's reading, where there are several, so that all decide alike.
    """

    def __init__(self, before: float = 0.0, agreed: float | None = None) -> None:
        self.agreed = agreed
        self._before, self._started = before, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.reading if self.agreed is None else self.agreed

    @property
    def reading(self) -> float:
        """What this process's own clock says."""
        return self._before + time.perf_counter() - self._started


class Position:
    """Counts what a run has done, in every unit that a budget may have."""

    def __init__(self, settings: TrainSettings, packing: Packing, rows_per_step: int, length: int) -> None:
        """length: tokens that the model reads of a full row."""
        self.step, self.tokens, self.clock = 0, 0, Clock()
        self._settings, self._packing, self._rows_per_step = settings, packing, rows_per_step
        self._tokens_per_step = rows_per_step * length * packing.fill
        self._last = {"evaluate_every": 0.0, "save_every": 0.0, "keep_every": 0.0}
        self._pause = 0.0
        """Seconds from an evaluation's start on in which the next is not due."""

    @property
    def spent(self) -> float:
        """Share of the budget; the last step may take it above 1."""
        return self.units(self._settings.budget) / self._settings.budget.amount

    @property
    def share(self) -> float:
        """Share of the budget, 1 at most."""
        return min(1.0, self.spent)

    @property
    def epoch(self) -> float:
        return self.step * self._rows_per_step / self._packing.num_rows

    def units(self, budget: Budget | None) -> float:
        """How much has been done, in a budget's unit; without one, the share of the run's budget."""
        if budget is None:
            return self.spent
        if budget.unit == "minutes":
            return self.clock.seconds / 60
        if budget.unit == "tokens":
            # Counted as the plan fills rows on average, so that the number of steps is known before the run.
            return self.step * self._tokens_per_step
        return self.epoch if budget.unit == "epochs" else float(self.step)

    def is_due(self, setting: str) -> bool:
        """Whether what the setting (`evaluate_every`, `save_every` or `keep_every`) asks for is to be done now.

        With a budget of time, evaluations on the usual schedule leave it to training but for `EVALUATION_SHARE`.
        """
        every: Budget | None = getattr(self._settings, setting)
        if every is None and setting not in TIMES:
            return False
        interval = 1 / TIMES[setting] if every is None else every.amount
        if setting == "evaluate_every" and every is None and self._settings.budget.unit == "minutes":
            interval = max(interval, self._pause / 60 / self._settings.budget.amount)
        return self.units(every) - self._last[setting] >= interval - 1e-9

    def note(self, setting: str) -> None:
        """Count the setting's interval from here."""
        self._last[setting] = self.units(getattr(self._settings, setting))

    def note_evaluation(self, seconds: float) -> None:
        """An evaluation has taken so long: the next waits until that is a small share of the time since."""
        if self._settings.budget.unit == "minutes":
            self._pause = seconds / EVALUATION_SHARE

    def recount(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Count from here the intervals that other settings than before give: they may be in another unit."""
        for setting in self._last:
            if any(before.get(name) != now[name] for name in (setting, "budget")):
                self.note(setting)

    def state(self) -> dict[str, Any]:
        """What to keep in a checkpoint, as JSON. The clock goes on when a run goes back, and is kept apart."""
        return {"step": self.step, "tokens": self.tokens, "last": dict(self._last), "pause": self._pause}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self.step, self.tokens, self._last = state["step"], state["tokens"], dict(state["last"])
        self._pause = state.get("pause", 0.0)
