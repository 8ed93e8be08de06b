"""Tasks whose workers die: run again, without the record that ended them, when that can be told."""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from tilth.corpus.file_task import FileTask, mark_of
from tilth.corpus.mark import read_mark
from tilth.errors import TilthError

TIMEOUT = 120.0
"""Seconds without a step after which a worker is taken to hang. The largest step is a batch of 8 MB or one record."""

MOST_DEATHS = 100
"""Deaths in one task after which the fault is not taken to be in its records."""


@dataclass
class Attempts:
    """How a task has fared so far. `task` is how it is to be run next."""

    task: FileTask
    deaths: Counter[str] = field(default_factory=Counter)

    def note_death(self, part: Path, last_words: str = "") -> None:
        """The worker that made `part` died or hung. The second time, what it was at is left out, if that can be told.

        last_words: how it ended, for the message that there is no end to it.
        Raises: TilthError when there is no end to it.
        """
        step = read_mark(mark_of(part))
        reason = "timed_out" if time.time() - step.began >= 0.9 * TIMEOUT else "worker_died"
        culprit = f"{step.file}:{step.items}" if step.digest is None else step.digest
        self.deaths[culprit] += 1
        if self.deaths.total() >= MOST_DEATHS:
            file = self.task.files[step.file].name
            raise TilthError(
                f"{MOST_DEATHS} worker processes died or hung, the last one reading {file}; if memory is short, "
                "take fewer --workers" + (f"\n  it ended with {last_words}" if last_words else "")
            )
        if self.deaths[culprit] >= 2 and step.digest is not None:
            self.task = replace(self.task, deadly={**self.task.deadly, step.digest: reason})
        elif self.deaths[culprit] >= 2 and self.task.careful:
            self.task = replace(self.task, spoiled={**self.task.spoiled, step.file: (step.items, reason)})
        else:
            self.task = replace(self.task, careful=True)
