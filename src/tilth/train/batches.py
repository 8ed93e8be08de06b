"""The batches of a run: each a pure function of (shards, seed, step), made one step ahead of the device."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tilth.objectives import Objective
from tilth.objectives.objective import Batch
from tilth.tokens.order import row_indexes
from tilth.tokens.packing import Packing


class Batches:
    """The optimizer steps of a run, each as its micro-batches."""

    def __init__(
        self, objective: Objective, packing: Packing, seed: int, rows_per_step: int, rows_per_micro_batch: int
    ) -> None:
        self.objective = objective
        self.packing = packing
        self.seed = seed
        self.rows_per_step = rows_per_step
        self.rows_per_micro_batch = rows_per_micro_batch
        self.waited = 0.0
        """Seconds that the newest step of `from_step` had to be waited for."""

    def at(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""
        indexes, epochs = row_indexes(step, self.rows_per_step, self.packing.num_rows, self.seed)
        return self._make(indexes, epochs)

    def from_step(self, step: int) -> Generator[list[Batch]]:
        """The steps from `step` on, without end, each made in a thread while the one before is in use."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            upcoming = pool.submit(self.at, step)
            while True:
                step += 1
                started = time.perf_counter()
                current, upcoming = upcoming.result(), pool.submit(self.at, step)
                self.waited = time.perf_counter() - started
                yield current

    def first_rows(self, tokens: int) -> list[Batch]:
        """A fixed sample of about `tokens` places for evaluation, as of epoch 0."""
        count = min(self.packing.num_rows, max(1, tokens // self.packing.length))
        return self._make(np.arange(count), np.zeros(count, dtype=np.int64))

    def _make(self, indexes: np.ndarray, epochs: np.ndarray) -> list[Batch]:
        return [
            self.objective.make_batch(self.packing, indexes[start:stop], epochs[start:stop], self.seed)
            for start in range(0, len(indexes), self.rows_per_micro_batch)
            for stop in (start + self.rows_per_micro_batch,)
        ]
