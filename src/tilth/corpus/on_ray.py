"""The cluster runner: the same file tasks as Ray Core tasks (Moritz et al. 2018, "Ray: A Distributed Framework").

Sources and the folder of parts have to lie where every machine of the cluster finds them under the same path.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tilth.corpus.attempts import TIMEOUT, Attempts
from tilth.corpus.file_task import FileTask, mark_of
from tilth.corpus.mark import read_mark
from tilth.corpus.worker import raise_error, work
from tilth.errors import TilthError, import_extra

_TICK = 0.2
_AHEAD = 2
"""Tasks that are handed to Ray for each processor, so that none waits for the next."""


def run_on_ray(
    tasks: Sequence[FileTask], folder: Path, tick: Callable[[int], None], address: str
) -> Iterator[FileTask]:
    """A `Runner` on the cluster at `address`, or on one that is started here (`ray`).

    Raises: what a task raises; TilthError when there is no cluster, or workers do nothing but die.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_extra("ray", "ray")
    started = not ray.is_initialized()
    try:
        ray.init(
            address="local" if address == "ray" else address,
            ignore_reinit_error=True,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )
    except ConnectionError as error:
        raise TilthError(f"there is no Ray cluster at {address}: {error}") from None
    errors = ray.exceptions
    died = (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError, errors.LocalRayletDiedError)
    run = ray.remote(num_cpus=1, max_retries=0)(work)
    waiting = deque(Attempts(task) for task in tasks)
    running: dict[Any, Attempts] = {}
    try:
        room = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while waiting or running:
            while waiting and len(running) < room:
                attempts = waiting.popleft()
                mark_of(folder / attempts.task.id).unlink(missing_ok=True)
                running[run.remote(attempts.task.to_json(), folder / attempts.task.id, TIMEOUT)] = attempts
            done, _ = ray.wait(list(running), timeout=_TICK)
            for reference in done:
                attempts = running.pop(reference)
                try:
                    answer = ray.get(reference)
                except died:
                    attempts.note_death(folder / attempts.task.id)
                    waiting.appendleft(attempts)
                    continue
                if error := answer.get("error"):
                    raise_error(error)
                yield attempts.task
            tick(sum(read_mark(mark_of(folder / each.task.id)).read for each in running.values()))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started:
            ray.shutdown()
