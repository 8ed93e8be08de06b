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
    """Labelled data, a head, a loss and metrics. N examples, C labels, D the trunk's width."""

    name: str

    def read(self, path: str | Path, text_column: str | None = None, label_column: str | None = None) -> Examples: ...

    def add_head(self, model: Model, labels: list[str], settings: FinetuneSettings) -> None: ...

    def encode(
        self, model: Model, tokenizer: TextTokenizer, texts: Sequence[str], max_length: int | None = None
    ) -> tuple[list[list[int]], list[bool]]: ...

    def features(self, model: Model, pieces: Sequence[list[int]], pad: int, dtype: torch.dtype) -> Tensor: ...

    def logits(self, model: Model, features_ND: Tensor) -> Tensor: ...

    def loss_sum(self, logits_NC: Tensor, targets_N: Tensor) -> Tensor: ...

    def scores(self, logits_NC: Tensor, targets_N: Tensor) -> dict[str, float]: ...

    def scores_with_intervals(
        self, logits_NC: Tensor, targets_N: Tensor, seed: int = 0
    ) -> dict[str, dict[str, float]]: ...


TASKS: dict[str, Task] = {task.name: task for task in (Classify(),)}


def find_task(name: str) -> Task:
    """A task by name.

    Raises: UsageError naming the tasks there are.
    """
    if name not in TASKS:
        raise UsageError(f"no task {name!r}; there is {', '.join(TASKS)}")
    return TASKS[name]
