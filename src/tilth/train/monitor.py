"""Watches a run and says in words when it overfits, stalls, diverges or breaks.

Each rule is stated where it is applied. `benchmarks/planted_faults.py` shows that each finds its fault, and that none
is applied to healthy runs.
"""

import itertools
import math
import statistics
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from tilth.train.schedules import MOSTLY_UNDECAYED

WINDOW = 32
"""Steps that say what a loss usually is."""
SPIKE_DEVIATIONS, SPIKE_SHARE = 8.0, 0.1
DIVERGED_SHARE, DIVERGED_NATS = 0.15, 0.2
LEARNT_SHARE = 0.01
STALLED_SHARE, STALL_PROGRESS = 0.002, 0.15
STARVED_SHARE, STARVED_SECONDS, STARVATION_STEPS = 0.3, 1.0, 20
_MAD = 1.4826  # median absolute deviation x this is the standard deviation of a normal distribution

ACTIONS = {
    "continue": "the run goes on",
    "skip": "no update was made",
    "stop": "the run stops",
    "lower_rate": "the peak rate is halved",
    "rewind": "back to the last checkpoint, without the batches since",
}
"""What can be done about a finding, in words."""


@dataclass(frozen=True)
class Finding:
    """Something wrong: `kind` names the rule, `message` says it in words."""

    kind: str
    message: str


@dataclass
class Monitor:
    """Follows the losses of a run. What it remembers is part of a checkpoint."""

    patience: int
    best_loss: float = math.inf
    best_step: int = 0
    train_loss_at_best: float = math.inf
    evaluations_since_best: int = 0
    overfits: bool = False
    stalls: bool = False
    evaluations: list[tuple[float, float, float]] = field(default_factory=list)
    """(progress, training loss, held-out loss) of the newest evaluations at a rate that has not yet fallen much."""
    losses: list[float] = field(default_factory=list)
    """Of the last `WINDOW` steps, those that were finite."""
    lowest: float = math.inf
    """The lowest loss so far: that of the first step, or the median of a quarter of a window."""
    spikes: bool = False
    diverges: bool = False

    def take_step(self, loss: float, gradient_norm: float) -> Finding | None:
        """Look at a step before its update is made; what is found speaks against making it.

        nonfinite: the loss or the gradient norm is infinite or not a number. Named at every such step.
        spike: see `_spikes`. divergence: see `_diverges`. These are named once until they have passed.
        """
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return Finding("nonfinite", f"loss {loss}, gradient norm {gradient_norm}")
        usual = statistics.median(self.losses) if self.losses else loss
        spiked, self.spikes = self.spikes, self._spikes(loss)
        self.losses = [*self.losses, loss][-WINDOW:]
        recent = self.losses[-WINDOW // 4 :]
        lowest_before, self.lowest = self.lowest, min(self.lowest, statistics.median(recent))
        diverged, self.diverges = self.diverges, self._diverges()
        if self.diverges and not diverged:
            return Finding(
                "divergence",
                f"the loss has been {statistics.median(self.losses):.3f} over {WINDOW} steps, "
                f"and was {lowest_before:.3f}: the run diverges. Lower train.lr, or lengthen train.warmup",
            )
        if self.spikes and not spiked and not self.diverges:
            return Finding("spike", f"the loss jumped to {loss:.3f} from about {usual:.3f}")
        return None

    def _spikes(self, loss: float) -> bool:
        """Whether a loss stands out from the last `WINDOW` steps (at least half of them known).

        It lies above their median by 8 standard deviations and by a tenth: where losses hardly vary, 8 deviations are
        nothing. The deviation is that of the differences between neighbours, which the fall of the loss does not widen,
        estimated by their median size, which earlier spikes do not move.
        """
        if len(self.losses) < WINDOW // 2:
            return False
        median = statistics.median(self.losses)
        differences = [abs(value - before) for before, value in itertools.pairwise(self.losses)]
        deviation = _MAD * statistics.median(differences) / math.sqrt(2)
        return loss > median + max(SPIKE_DEVIATIONS * deviation, SPIKE_SHARE * median)

    def _diverges(self) -> bool:
        """Whether the loss is well above what it was, for long.

        The median of the last `WINDOW` steps lies above `lowest` by 15 % and by 0.2 nats (a loss near 0 varies by
        more than 15 %), and so does that of the newest quarter (where the loss falls fast, all that is older lies
        high); no longer so at half of that. Half the window must be above, so a single spike is none.
        """
        if len(self.losses) < WINDOW:
            return False
        margin = max(DIVERGED_SHARE * self.lowest, DIVERGED_NATS) * (0.5 if self.diverges else 1.0)
        level = min(statistics.median(self.losses), statistics.median(self.losses[-WINDOW // 4 :]))
        return level > self.lowest + margin

    def evaluate(self, step: int, train_loss: float, held_out_loss: float) -> bool:
        """Take in an evaluation; returns whether it is the best so far."""
        if held_out_loss < self.best_loss:
            self.best_loss, self.best_step, self.train_loss_at_best = held_out_loss, step, train_loss
            self.evaluations_since_best = 0
            self.overfits = False
            return True
        self.evaluations_since_best += 1
        return False

    def names_overfitting(self, train_loss: float) -> Finding | None:
        """Whether the run has just begun to overfit (said once until a better loss is seen).

        `patience` evaluations in a row brought no better held-out loss while the training loss fell by 1 % from what
        it was at the best one: the model then learns the training text by heart. Less than that is noise.
        """
        learns = (
            train_loss < (1 - LEARNT_SHARE) * self.train_loss_at_best
        )  # False too for the NaN of an interval without any update
        if self.overfits or self.evaluations_since_best < self.patience or not learns:
            return None
        self.overfits = True
        return Finding(
            "overfitting",
            f"held-out loss has not improved on {self.best_loss:.3f} (step {self.best_step}) "
            f"for {self.patience} evaluations while the training loss fell to {train_loss:.3f}: the run "
            "overfits; the model of that step is kept. Use more text, a smaller model, or fewer epochs",
        )

    def names_stall(self, progress: float, rate: float, train_loss: float, held_out_loss: float) -> Finding | None:
        """Whether the run has just stopped learning (said once until it learns again).

        Over the last `patience` evaluations, and 15 % of the budget at least, neither the held-out nor the training
        loss fell by 0.2 % of its value, while the rate was at least half its peak throughout. Before, during warm-up,
        there is little to learn with; after, a falling rate brings its own improvement, and the end is near.

        progress: share of the budget spent. rate: share of the peak rate, by the schedule.
        """
        if rate < MOSTLY_UNDECAYED or not (math.isfinite(train_loss) and math.isfinite(held_out_loss)):
            self.evaluations = []
            return None
        self.evaluations.append((progress, train_loss, held_out_loss))
        earlier = [
            entry for entry in self.evaluations[: -self.patience] if progress - entry[0] >= STALL_PROGRESS - 1e-9
        ]
        if not earlier:
            return None
        later = self.evaluations[len(earlier) :]
        stalled, self.stalls = (
            self.stalls,
            all(
                min(entry[which] for entry in later) > (1 - STALLED_SHARE) * min(entry[which] for entry in earlier)
                for which in (1, 2)
            ),
        )
        if stalled or not self.stalls:
            return None
        return Finding(
            "stall",
            f"in the last {len(later)} evaluations neither held-out loss ({held_out_loss:.3f}) nor training loss "
            f"({train_loss:.3f}) fell by {100 * STALLED_SHARE:g} %, with most of the learning rate left: the run "
            "stalls. Look at the text, or change train.lr",
        )

    def forget_training_losses(self) -> None:
        """Training losses to come cannot be compared with those so far."""
        self.losses, self.lowest, self.evaluations = [], math.inf, []
        self.spikes = self.diverges = self.stalls = False
        self.train_loss_at_best = math.nan  # until there is a better model, none can be said to overfit

    def forget_held_out_losses(self) -> None:
        """Held-out losses to come cannot be compared with those so far: the next is the best."""
        self.best_loss = self.train_loss_at_best = math.inf
        self.evaluations_since_best, self.evaluations = 0, []
        self.overfits = self.stalls = False

    def state(self) -> dict[str, Any]:
        """What to keep in a checkpoint, as JSON."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Monitor":
        """The monitor that `state` described."""
        values: dict[str, Any] = {name: math.inf if value is None else value for name, value in state.items()}
        values["evaluations"] = [tuple(entry) for entry in values["evaluations"]]
        return cls(**values)


class Starvation:
    """Follows how long steps wait for their batches. Times are no part of a checkpoint.

    data starvation: over the last 20 steps, waiting took 30 % of the time, and a second in all: batches are made
    ahead, so a healthy run hardly waits, and what costs less than a second is not worth a word. Said once until waiting
    is below half of that.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=STARVATION_STEPS)
        self._starves = False

    def take_step(self, waited: float, computed: float) -> Finding | None:
        """Look at a step's seconds spent waiting and computing."""
        self._steps.append((waited, computed))
        if len(self._steps) < STARVATION_STEPS:
            return None
        waiting = sum(waited for waited, _ in self._steps)
        share = waiting / max(1e-9, waiting + sum(computed for _, computed in self._steps))
        starved, limit = self._starves, STARVED_SHARE * (0.5 if self._starves else 1.0)
        self._starves = share > limit and (starved or waiting > STARVED_SECONDS)
        if starved or not self._starves:
            return None
        return Finding(
            "starvation",
            f"{100 * share:.0f} % of the last {STARVATION_STEPS} steps went to waiting for batches: the data is "
            "slower than the model. Put the shards on a faster disk, or leave the processor more room",
        )
