"""What a task is, and the table of those there are. A new task is one file and one entry."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tilth.errors import UsageError
from tilth.model.model import Model
from tilth.tasks.classify import Classify
from tilth.tasks.data import Examples
from tilth.tasks.settings import FinetuneSettings
from tilth.tokens.tokenizer import TextTokenizer


class Task(Protocol):
    """Labelled data, a head, a loss and metrics. N examples, C labels, D the trunk's width.

    name: what commands call it.
    """

    name: str

    def read(self, path: str | Path, text_column: str | None = None, label_column: str | None = None) -> Examples:
        """Labelled examples of a file or corpus. Raises: UsageError, TilthError for what cannot be read."""
        ...

    def add_head(self, model: Model, labels: list[str], settings: FinetuneSettings) -> None:
        """Give the model a fresh head for the labels, drawn by the settings' seed."""
        ...

    def encode(
        self, model: Model, tokenizer: TextTokenizer, texts: Sequence[str], max_length: int | None = None
    ) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each text with what the model wants around them, and whether it was cut at `max_length`."""
        ...

    def features(self, model: Model, pieces: Sequence[list[int]], pad: int, dtype: torch.dtype) -> Tensor:
        """(N, D): what the head sees of the pieces, computed in `dtype`. pad: the id that fills shorter rows."""
        ...

    def logits(self, model: Model, features_ND: Tensor) -> Tensor:
        """(N, C) from (N, D)."""
        ...

    def loss_sum(self, logits_NC: Tensor, targets_N: Tensor) -> Tensor:
        """The loss in nats, summed over the examples. targets: int64, numbers of labels."""
        ...

    def scores(self, logits_NC: Tensor, targets_N: Tensor) -> dict[str, float]:
        """Each metric by name; more is better."""
        ...

    def scores_with_intervals(self, logits_NC: Tensor, targets_N: Tensor, seed: int = 0) -> dict[str, dict[str, float]]:
        """Each metric as {"value", "low", "high"}, a 95 % interval over other test examples."""
        ...


TASKS: dict[str, Task] = {task.name: task for task in (Classify(),)}


def find_task(name: str) -> Task:
    """A task by name.

    Raises: UsageError naming the tasks there are.
    """
    if name not in TASKS:
        raise UsageError(f"no task {name!r}; there is {', '.join(TASKS)}")
    return TASKS[name]
