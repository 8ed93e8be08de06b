"""The embedded runner: file tasks in worker processes of this machine.

Python's own pools give up all their work when one process dies, and import the program's main module again. Here a
worker that hangs or dies costs the record it was at.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tilth.corpus.file_task import FileTask
from tilth.corpus.mark import read_mark
from tilth.corpus.worker import raise_error
from tilth.errors import TilthError

TIMEOUT = 120.0
"""Seconds without a step after which a worker is taken to hang. The largest step is a batch of 8 MB or one record."""

MOST_DEATHS = 100
"""Deaths in one task after which the fault is not taken to be in its records."""

_TICK = 0.2


@dataclass
class Attempts:
    """How a task has fared so far. `task` is how it is to be run next."""

    task: FileTask
    deaths: Counter[str | int] = field(default_factory=Counter)

    def note_death(self, mark: Path, timed_out: bool) -> None:
        """Its worker hung or died: run it again, at the second time without what it was at, if that can be told.

        Raises: TilthError when there is no end to it.
        """
        _, number, digest = read_mark(mark)
        reason = "timed_out" if timed_out else "worker_died"
        culprit = number if digest is None else digest
        self.deaths[culprit] += 1
        if self.deaths.total() >= MOST_DEATHS:
            file = self.task.files[number].name
            raise TilthError(f"{self.deaths.total()} worker processes died or hung, the last at {file}; is memory short?")
        if self.deaths[culprit] >= 2 and digest is not None:
            self.task = replace(self.task, deadly={**self.task.deadly, digest: reason})
        elif self.deaths[culprit] >= 2 and self.task.careful:
            self.task = replace(self.task, spoiled={**self.task.spoiled, number: reason})
        else:
            self.task = replace(self.task, careful=True)


def run_in_processes(
    tasks: Sequence[FileTask], folder: Path, count: int, tick: Callable[[int], None]
) -> Iterator[FileTask]:
    """Run every task into `folder`/its id with `count` worker processes; yields each as it is done.

    tick(bytes) is called a few times a second with what the tasks that are running have read so far.
    Raises: what a task raises; TilthError when workers do nothing but die.
    """
    waiting = deque(Attempts(task) for task in tasks)
    workers: list[_Worker] = []
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        while waiting or workers:
            while waiting and len(workers) < count:
                worker = _Worker(selector)
                stack.callback(worker.stop)
                workers.append(worker)
                worker.start(waiting.popleft(), folder)
            for key, _ in selector.select(_TICK):
                worker = key.data
                attempts = worker.attempts
                answer = worker.answer()
                if answer is None:
                    attempts.note_death(worker.mark, timed_out=worker.stop(died=True) == 1)  # faulthandler's status
                    workers.remove(worker)
                    waiting.appendleft(attempts)
                    continue
                if error := answer.get("error"):
                    raise_error(error)
                yield attempts.task
                if waiting:
                    worker.start(waiting.popleft(), folder)
                else:
                    worker.stop()
                    workers.remove(worker)
            tick(sum(read_mark(worker.mark)[0] for worker in workers))


class _Worker:
    """A process that works on one task at a time."""

    attempts: Attempts
    mark: Path

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tilth.corpus.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the parent, which stops its workers
        )
        selector.register(self._out, selectors.EVENT_READ, self)

    @property
    def _out(self):
        assert self._process.stdout is not None
        return self._process.stdout

    def start(self, attempts: Attempts, folder: Path) -> None:
        self.attempts = attempts
        self.mark = folder / f"{attempts.task.id}.mark"
        self.mark.unlink(missing_ok=True)
        order = {"part": str(folder / attempts.task.id), "mark": str(self.mark), "timeout": TIMEOUT}
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: its end of file is seen next
            self._process.stdin.write(json.dumps({"task": attempts.task.to_json(), **order}).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self) -> dict | None:
        """The answer that is there; None when the process died."""
        line = self._out.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def stop(self, died: bool = False) -> int:
        """End the process, unless it `died`. Returns its status."""
        if not self._out.closed:
            self._selector.unregister(self._out)
            self._out.close()
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            if not died:
                self._process.kill()
        return self._process.wait()
