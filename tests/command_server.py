"""Runs the `tilth` command, each time in a new process, forked from this one, which has imported what it needs: in a
process begun from nothing that takes most of a short command's time.

Reads lines of standard input, JSON objects of `arguments` and `limit` (the most bytes a file may have, or null), and
answers each by one of `status`, `stdout` and `stderr`.
"""

import json
import os
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import jinja2  # noqa: F401 - this and what follows is what commands import when they need it
import matplotlib.figure  # noqa: F401

import tilth.cli
import tilth.corpus.build
import tilth.evidence.evaluate
import tilth.evidence.language
import tilth.tasks.finetune
import tilth.train.loop
import tilth.use.predict

SECONDS = 120
"""Until a command is killed."""


def become_command(output: int, errors: int, arguments: list[str], limit: int | None) -> None:
    """Go on as a process that was started with these arguments."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    signal.alarm(SECONDS)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["tilth", *arguments]
    tilth.cli.main()


def _read(end: int) -> str:
    with open(end, encoding="utf-8") as file:
        return file.read()


def main() -> None:
    for line in sys.stdin:
        (from_output, output), (from_errors, errors) = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            become_command(output, errors, **json.loads(line))
        os.close(output)
        os.close(errors)
        with ThreadPoolExecutor() as pool:
            stdout, stderr = pool.map(_read, (from_output, from_errors))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "stdout": stdout, "stderr": stderr}), flush=True)


if __name__ == "__main__":
    main()
