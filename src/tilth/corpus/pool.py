"""The embedded runner: file tasks in worker processes of this machine.

Python's own pools give up all their work when one process dies, and import the program's main module again. Here a
worker that hangs or dies costs the record it was at.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tilth.corpus.attempts import TIMEOUT, Attempts
from tilth.corpus.file_task import FileTask, mark_of
from tilth.corpus.mark import read_mark
from tilth.corpus.worker import raise_error

_TICK = 0.2

_WORDS = 1000
"""Bytes of standard error that are told of a worker that died."""


def run_in_processes(
    tasks: Sequence[FileTask], folder: Path, tick: Callable[[int], None], count: int
) -> Iterator[FileTask]:
    """A `Runner` with `count` worker processes.

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
                    last_words = worker.last_words()
                    worker.stop()
                    workers.remove(worker)
                    attempts.note_death(folder / attempts.task.id, last_words)
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
            tick(sum(read_mark(mark_of(folder / worker.attempts.task.id)).read for worker in workers))


class _Worker:
    """A process that works on one task at a time."""

    attempts: Attempts

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tilth.corpus.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the parent, which stops its workers
        )
        assert process.stdin and process.stdout
        self._in, self._out = process.stdin, process.stdout
        selector.register(self._out, selectors.EVENT_READ, self)

    def start(self, attempts: Attempts, folder: Path) -> None:
        """Give the process a task to run."""
        self.attempts = attempts
        part = folder / attempts.task.id
        mark_of(part).unlink(missing_ok=True)
        self._errors.seek(0)  # the process has the same file with the same place in it
        self._errors.truncate()
        order = {"task": attempts.task.to_json(), "part": str(part), "timeout": TIMEOUT}
        with contextlib.suppress(BrokenPipeError):  # it died: its end of file is seen next
            self._in.write(json.dumps(order).encode() + b"\n")
            self._in.flush()

    def answer(self) -> dict | None:
        """The answer that is there; None when the process died."""
        line = self._out.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def last_words(self) -> str:
        """How a process that died ended, and the last it wrote on standard error."""
        status = self._process.wait()
        end = signal.Signals(-status).name if status < 0 else f"status {status}"
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _WORDS))
        said = self._errors.read().decode("utf-8", "replace").strip()
        return f"{end}: {said}" if said else end

    def stop(self) -> None:
        """End the process, if it has not ended, and let go of it. Can be called again."""
        if not self._out.closed:
            self._selector.unregister(self._out)
            self._process.kill()
            self._process.wait()
            self._out.close()
            with contextlib.suppress(BrokenPipeError):
                self._in.close()
            self._errors.close()
