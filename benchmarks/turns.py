"""Trainings that take turns: all are under way at once, each a process of its own, so that they meet the same machine
even where others use it."""

import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

from tilth.train.monitor import Starvation
from tilth.train.word_sample import WordSample

WARM_UP_STEPS = 3
ENDLESS = 10**6
"""Steps of a training that ends when it is killed."""


class Turns:
    """Pauses a training process after a step when its turn is over, and tells the other side how fast it was."""

    def __init__(self, asked: Connection, seconds: float) -> None:
        self._asked, self._seconds = asked, seconds
        self._steps = -WARM_UP_STEPS
        self._began = 0.0

    def after_step(self) -> bool:
        """To be called after each step. Returns False: the training does not end."""
        self._steps += 1
        taken = time.perf_counter() - self._began
        if self._steps == 0:
            self._asked.send("ready")
        elif self._steps > 0 and taken > self._seconds:
            self._asked.send(taken / self._steps)
        else:
            return False
        self._asked.recv()
        self._steps, self._began = 0, time.perf_counter()
        return False


def after_our_steps(on_step: Callable[[], bool]) -> None:
    """Have `on_step` called after each step of `tilth.pretrain` in this process."""
    take_step = Starvation.take_step

    def note(self: Starvation, waited: float, computed: float):
        on_step()
        return take_step(self, waited, computed)

    Starvation.take_step = note


def sample_words_as_often_as_a_run() -> None:
    """Have a run without end sample the vocabulary at as many of its steps as one that ends, by turns."""
    at = WordSample.at
    WordSample.at = lambda self, step, spent: at(self, step, step % 10 / 10)


def step_seconds(
    trainings: Mapping[str, Callable[[Callable[[], bool]], None]], seconds: float, rounds: int
) -> dict[str, list[float]]:
    """Seconds of a step of each training in each round.

    trainings: functions that `multiprocessing` can spawn; each trains without end, and calls its argument after every
    step. seconds: of a turn, at least; it ends with a step.
    """
    spawn = multiprocessing.get_context("spawn")
    processes, connections = [], {}
    try:
        for name, training in trainings.items():  # one after the other: each chooses its threads on a free machine
            connections[name], asked = spawn.Pipe()
            processes.append(spawn.Process(target=_run, args=(training, asked, seconds)))
            processes[-1].start()
            asked.close()  # so that its death is seen here
            connections[name].recv()
        figures: dict[str, list[float]] = {name: [] for name in trainings}
        for _ in range(rounds):
            for name, connection in connections.items():
                connection.send("go on")
                figures[name].append(connection.recv())
        return figures
    except EOFError:
        sys.exit(f"one of {', '.join(trainings)} ended before its time")
    finally:
        for process in processes:
            process.kill()
            process.join()


def _run(training: Callable[[Callable[[], bool]], None], asked: Connection, seconds: float) -> None:
    training(Turns(asked, seconds).after_step)
