"""The source `installed-docs`: docstrings and pydoc topics of the standard library and the installed packages.

Nothing is imported. Parsing is done by worker processes (`docstrings.py`), each with its own share of the files; their
answers are taken in the order of the files, so that the corpus does not depend on how many there are.
"""

import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tilth.corpus import docstrings
from tilth.corpus.records import Dropped, Item, Record, Rejected

_NOT_READ = ("test", "tests", "site-packages", "__pycache__")


def python_roots() -> list[Path]:
    """Folders that hold this interpreter's installed packages and standard library."""
    paths = sysconfig.get_paths()
    return list(dict.fromkeys(Path(paths[name]).resolve() for name in ("purelib", "platlib", "stdlib")))


def find_modules(root: Path) -> list[tuple[str, Path]]:
    """(module name, path) of every importable Python file below `root`, tests left out, sorted by name."""
    modules: list[tuple[str, Path]] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name.isidentifier() and name not in _NOT_READ]
        package = Path(folder).relative_to(root).parts
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix == ".py" and stem.isidentifier():
                parts = package if stem == "__init__" else (*package, stem)
                modules.append((".".join(parts), Path(folder, name)))
    return sorted(modules)


def installed_modules() -> list[tuple[str, Path]]:
    """(module name, path) of all that this interpreter can import and that is written in Python."""
    return [module for root in python_roots() for module in find_modules(root)]


def read_docs(
    modules: Sequence[tuple[str, Path]], advance: Callable[[int], None], workers: int | None = None
) -> Iterator[Item]:
    """A record per docstring of at least 100 characters, with id `module:qualified name`.

    Metadata: `library` (top-level import package), `module`, `name`. Shorter ones are counted as dropped.
    advance(index) is called for each module that was read. workers: default one per processor, at most 8.
    """
    answers = _parse([path for _, path in modules], workers or min(8, os.cpu_count() or 1))
    for index, ((module, _), answer) in enumerate(zip(modules, answers, strict=True)):
        advance(index)
        library = module.partition(".")[0]
        if answer["error"]:
            yield Rejected("installed-docs", module, "unreadable_module", answer["error"])
        if answer["short"]:
            yield Dropped("too_short", answer["short"])
        times = Counter()
        for name, text in answer["docs"]:
            times[name] += 1  # a name may be defined again, as overloads and conditional definitions are
            again = f"#{times[name]}" if times[name] > 1 else ""
            metadata = {"library": library, "module": module, "name": name}
            yield Record(f"{module}:{name}{again}", text, "installed-docs", metadata)


def _parse(paths: list[Path], count: int) -> Iterator[dict]:
    """One answer per path, in order; file i is the work of worker i modulo count."""
    workers = [_Worker(paths[index::count]) for index in range(count)]
    try:
        for index in range(len(paths)):
            yield workers[index % count].answer()
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that parses `paths` one after another. One that dies costs the file it was at, and is started again."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._done = 0
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", docstrings.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which stops its workers
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([os.fspath(path) for path in self._paths[self._done :]]).encode())
        self._process.stdin.close()

    def answer(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._done += 1
        if line.endswith(b"\n"):
            return json.loads(line)
        self.stop()
        self._start()
        return {"docs": [], "short": 0, "error": "the process that parsed it died"}

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
