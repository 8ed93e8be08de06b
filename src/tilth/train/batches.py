"""The batches of a run: each a pure function of (shards, seed, step), made one step ahead of the device."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from tilth.objectives import Objective
from tilth.objectives.objective import Batch
from tilth.recipe import Recipe
from tilth.tokens.order import row_indexes
from tilth.tokens.packing import Packing

MICRO_BATCH_TOKENS = {"cpu": 8192, "cuda": 65_536, "mps": 8192}
"""Tokens in a forward and backward pass, unless the recipe says."""


def batch_rows(recipe: Recipe, device: torch.device) -> tuple[int, int]:
    """Rows in an optimizer step, and in a micro-batch of it."""
    tokens = recipe.train.micro_batch_tokens or MICRO_BATCH_TOKENS[device.type]
    rows_per_step = recipe.train.batch_tokens // recipe.data.length
    return rows_per_step, max(1, min(rows_per_step, tokens // recipe.data.length))


class Batches:
    """The optimizer steps of a run, each as the micro-batches of this process's share."""

    def __init__(
        self,
        objective: Objective,
        packing: Packing,
        seed: int,
        rows_per_step: int,
        rows_per_micro_batch: int,
        rank: int = 0,
        processes: int = 1,
        device: torch.device | None = None,
    ) -> None:
        """rank: which of the `processes` takes its share here. device: where they go; by default the CPU."""
        self.objective = objective
        self.packing = packing
        self.seed = seed
        self.rows_per_step = rows_per_step
        self.rows_per_micro_batch = rows_per_micro_batch
        self.rank, self.processes = rank, processes
        self.device = device or torch.device("cpu")

    def at(self, step: int) -> list[Batch]:
        """This process's micro-batches of a step; every process has as many."""
        indexes, epochs = row_indexes(step, self.rows_per_step, self.packing.num_rows, self.seed)
        return self._make(indexes, epochs)

    def documents(self, step: int) -> list[int]:
        """The numbers of the documents in a step, over all processes, increasing."""
        indexes, _ = row_indexes(step, self.rows_per_step, self.packing.num_rows, self.seed)
        return np.unique(self.packing.rows(indexes).documents).tolist()

    def from_step(self, step: int) -> "Upcoming":
        """The steps from `step` on, without end."""
        return Upcoming(self, step)

    def ready(self, step: int) -> list[Batch]:
        """As `at`; for a GPU in memory that it copies from by itself, where the system has that."""
        batches = self.at(step)
        if self.device.type != "cuda":
            return batches
        try:
            return [batch.pinned(self.device) for batch in batches]
        except RuntimeError:  # too little of it; an ordinary copy is slower, no more
            return batches

    def first_rows(self, tokens: int) -> list[Batch]:
        """This process's share of a fixed sample of about `tokens` places for evaluation, as of epoch 0."""
        count = min(self.packing.num_rows, max(1, tokens // self.packing.length))
        return self._make(np.arange(count), np.zeros(count, dtype=np.int64))

    def _make(self, indexes: np.ndarray, epochs: np.ndarray) -> list[Batch]:
        parts = micro_batches(len(indexes), self.rows_per_micro_batch, self.rank, self.processes)
        return [
            self.objective.make_batch(self.packing, indexes[part], epochs[part], self.seed)
            if len(part)
            # Nothing is left for this process, but the others count on its taking part.
            else self.objective.make_batch(self.packing, indexes[:1], epochs[:1], self.seed).without_predictions()
            for part in parts
        ]


class Upcoming(Iterator[list[Batch]]):
    """The steps of a run from one on, each made in a thread while the one before is in use.

    A GPU computes what it was given before, while Python is busy with making a step; so on a GPU that begins when
    `begin_next` is called, once there is enough to compute.
    """

    def __init__(self, batches: Batches, step: int) -> None:
        self.waited = 0.0
        """Seconds that the newest step had to be waited for."""
        self._batches, self._step = batches, step
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: Future[list[Batch]] | None = None

    def __next__(self) -> list[Batch]:
        started = time.perf_counter()
        current, self._next = self._begun().result(), None
        if self._batches.device.type == "cpu":
            self.begin_next()
        self.waited = time.perf_counter() - started
        return current

    def begin_next(self) -> None:
        """Begin to make the step that comes next, unless that was begun before."""
        self._begun()

    def _begun(self) -> "Future[list[Batch]]":
        if self._next is None:
            self._next = self._pool.submit(self._batches.ready, self._step)
            self._step += 1
        return self._next

    def close(self) -> None:
        """Wait for what was begun, and make no more."""
        self._pool.shutdown()


def micro_batches(num_rows: int, rows_per_micro_batch: int, rank: int, processes: int) -> list[np.ndarray]:
    """Which of a step's rows each micro-batch of one process holds: int64 arrays, some of which may be empty.

    Over all processes every row comes exactly once, each process has as many micro-batches, none holds more than
    `rows_per_micro_batch` rows, and their sizes differ by one at most.
    """
    each = -(-num_rows // (processes * rows_per_micro_batch))
    parts = np.array_split(np.arange(num_rows), processes * each)
    return parts[rank * each : (rank + 1) * each]
