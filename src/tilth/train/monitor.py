"""Watches a run and says in words when it overfits or breaks."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Monitor:
    """Follows held-out loss. What it remembers is part of a checkpoint.

    Overfitting is named when `patience` evaluations in a row brought no better held-out loss while the training loss
    fell below what it was at the best one: the model then learns the training text by heart.
    """

    patience: int
    best_loss: float = math.inf
    best_step: int = 0
    train_loss_at_best: float = math.inf
    evaluations_since_best: int = 0
    overfits: bool = False

    def evaluate(self, step: int, train_loss: float, held_out_loss: float) -> bool:
        """Take in an evaluation; returns whether it is the best so far."""
        if held_out_loss < self.best_loss:
            self.best_loss, self.best_step, self.train_loss_at_best = held_out_loss, step, train_loss
            self.evaluations_since_best = 0
            self.overfits = False
            return True
        self.evaluations_since_best += 1
        return False

    def names_overfitting(self, train_loss: float) -> bool:
        """Whether the run has just begun to overfit (said once until a better loss is seen)."""
        learns = train_loss < self.train_loss_at_best  # False too for the NaN of an interval without any update
        if self.overfits or self.evaluations_since_best < self.patience or not learns:
            return False
        self.overfits = True
        return True

    def state(self) -> dict[str, Any]:
        """What to keep in a checkpoint, as JSON."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Monitor":
        """The monitor that `state` described."""
        values: dict[str, Any] = {name: math.inf if value is None else value for name, value in state.items()}
        return cls(**values)
