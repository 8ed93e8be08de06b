"""How hard a server is used: a number of requests at once, and pauses between, for all processes of this machine."""

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import BaseFileLock, FileLock, Timeout

from tilth.corpus.remote.patience import pause

_LOOK_AGAIN = 0.1


@dataclass(frozen=True)
class Manners:
    """connections: requests to one host that may run at once. pause: seconds between two on one connection."""

    connections: int = 4
    pause: float = 0.0


USUAL = Manners()
"""How hard servers are used unless told."""


@contextlib.contextmanager
def turn(url: str, manners: Manners) -> Iterator[None]:
    """Wait for a free connection to the URL's host, and hold it.

    Connections are locked files in the folder of temporary files, which a process that dies lets go of.
    """
    folder = Path(tempfile.gettempdir()) / f"tilth-hosts-{os.getuid() if hasattr(os, 'getuid') else 'all'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    host = re.sub(r"[^\w.-]", "_", urlsplit(url).netloc.rpartition("@")[2]) or "here"
    names = [folder / f"{host}-{number}" for number in range(manners.connections)]
    lock = _first_free(names)
    try:
        used = Path(lock.lock_file).with_suffix(".used")
        if manners.pause and used.exists():
            pause(min(manners.pause, used.stat().st_mtime + manners.pause - time.time()))
        try:
            yield
        finally:
            used.touch()
    finally:
        lock.release()


def _first_free(names: list[Path]) -> BaseFileLock:
    while True:
        for name in names:
            lock = FileLock(name.with_name(f"{name.name}.lock"))
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return lock
        pause(_LOOK_AGAIN)
