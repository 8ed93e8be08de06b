"""A worker process: reads tasks as lines on standard input, answers each with a line on standard output.

It ends when standard input does, even in the middle of a task: its parent is gone then.
"""

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa

from tilth.corpus.file_task import FileTask, mark_of, run_task
from tilth.corpus.mark import Mark
from tilth.corpus.stages import functions_of
from tilth.errors import TilthError

OUT_OF_MEMORY = 3
"""Status of a worker that ended for want of memory."""


def work(line: str, part: Path, timeout: float) -> dict[str, Any]:
    """Run the task of a line; what it raises is returned as `error`, which `raise_error` raises again elsewhere.

    Ends the process when memory runs out: what it was at is then treated like any other record that ends a worker.
    """
    task = FileTask.from_json(line)
    try:
        functions = functions_of(task.settings)  # outside the mark: reading lists and models is no sign of a hang
        with Mark(mark_of(part), task.deadly, timeout, task.careful):
            run_task(task, part, functions)
    except TilthError as error:
        return {"error": {"problem": str(error)}}
    except OSError as error:
        name = None if error.filename is None else str(error.filename)
        return {"error": {"errno": error.errno, "strerror": error.strerror or str(error), "filename": name}}
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception:
        return {"error": {"traceback": traceback.format_exc()}}
    return {}


def raise_error(error: dict[str, Any]) -> None:
    """Raise what a task raised in its worker. Raises: TilthError, OSError; RuntimeError for a fault of our own."""
    if "problem" in error:
        raise TilthError(error["problem"])
    if "traceback" in error:
        raise RuntimeError(f"in a worker:\n{error['traceback']}")
    raise OSError(error["errno"], error["strerror"], error["filename"])


def main() -> None:
    """Work until standard input ends."""
    pa.set_cpu_count(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    lines: queue.Queue[str] = queue.Queue()

    def receive() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        order = json.loads(lines.get())
        answer = work(order["task"], Path(order["part"]), order["timeout"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
