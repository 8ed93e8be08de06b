"""Where raw data is: files, folders, globs and `installed-docs`, in an order that depends on their names alone."""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tilth.corpus.archives import is_tar, read_members
from tilth.corpus.compression import Broken, file_chunks, open_stream
from tilth.corpus.formats import read_stream
from tilth.corpus.installed_docs import installed_modules, read_docs
from tilth.corpus.mark import Deadly, advance, start_file
from tilth.corpus.reader import is_corpus
from tilth.corpus.reading import Reading
from tilth.corpus.records import Item, Rejected, printable
from tilth.corpus.rejections import FROM_THE_BREAK_ON
from tilth.errors import UsageError

INSTALLED_DOCS = "installed-docs"


@dataclass(frozen=True)
class File:
    """A file to read. name: its path from the source on, which is the same wherever the source is.

    size: in bytes. modified: when it was, in nanoseconds, as the file system says.
    """

    path: Path
    name: str
    size: int
    modified: int


@dataclass
class Source:
    """One thing the user asked to read. installed: the files are Python modules, named so, to read docstrings from."""

    name: str
    files: list[File] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    installed: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def find_sources(given: Sequence[str], out: Path | None) -> list[Source]:
    """The files behind each source, sorted by name; one reached twice is read once. What is in `out` is not read.

    Raises: UsageError that lists every source that does not exist, or lies in `out`.
    """
    problems: list[str] = []
    sources: list[Source] = []
    seen: set[Path] = set()
    out = out and out.resolve()
    for text in given:
        if text == INSTALLED_DOCS:
            modules = [_file(path, name) for name, path in installed_modules()]
            sources.append(Source(INSTALLED_DOCS, modules, installed=True))
            continue
        roots = [Path(text)] if os.path.lexists(text) else sorted(map(Path, glob.glob(text, recursive=True)))
        if not roots:
            problems.append(f"{text}: no such file or folder, and nothing matches it as a pattern")
        elif any(root.resolve() == out or out in root.resolve().parents for root in roots):
            problems.append(f"{text} is in the output folder, which the corpus would replace")
        source = Source(printable(os.path.basename(os.path.abspath(text))))
        for root in roots:
            _collect(root, source, seen, out)
        sources.append(source)
    if not given:
        problems.append(f"no source: name files, folders or globs, or {INSTALLED_DOCS}")
    if problems:
        raise UsageError("cannot read the sources:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return sources


def _collect(root: Path, source: Source, seen: set[Path], out: Path | None) -> None:
    base = Path(os.path.abspath(root)).parent
    hidden = repeated = 0
    paths: list[Path] = []
    if root.is_dir():
        for folder, subfolders, names in os.walk(root):
            if is_corpus(folder):  # its documents, not its card and what it set aside
                subfolders[:], names = ["train", "validation"], []
            hidden += sum(name.startswith(".") for name in [*subfolders, *names])
            subfolders[:] = [
                name for name in subfolders if not name.startswith(".") and (Path(folder) / name).resolve() != out
            ]
            paths += [Path(folder, name) for name in names if not name.startswith(".")]
            linked = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
            source.notes += [f"{printable(name)} is a link to a folder and was not followed" for name in sorted(linked)]
    else:
        paths = [root]
    for path in sorted(paths, key=os.fsencode):
        real = path.resolve()
        if real in seen:
            repeated += 1
            continue
        seen.add(real)
        name = printable(Path(os.path.abspath(path)).relative_to(base).as_posix())
        source.files.append(_file(path, name))
    if hidden:
        source.notes.append(f"{hidden} hidden files or folders (names that start with a dot) were not read")
    if repeated:
        source.notes.append(f"{repeated} files that an earlier source names too were read once")


def _file(path: Path, name: str) -> File:
    try:
        status = path.stat()
    except OSError:
        return File(path, name, 0, 0)
    return File(path, name, status.st_size, status.st_mtime_ns)


def read_files(
    files: Sequence[File], installed: bool, reading: Reading, spoiled: Mapping[int, str] = MappingProxyType({})
) -> Iterator[Item]:
    """Everything the files of a source hold, in order; what cannot be read is rejected, never raised.

    installed: see `Source`. spoiled: files that are not to be read, by their place, with the reason.
    """
    if installed:
        yield from read_docs([(file.name, file.path) for file in files], lambda index: advance(files[index].size))
        return
    for index, file in enumerate(files):
        start_file(index)
        if index in spoiled:
            yield Rejected(file.name, "whole file", spoiled[index], str(Deadly(spoiled[index])))
            continue
        try:
            yield from _read_file(file, reading)
        except Broken as broken:
            yield Rejected(file.name, FROM_THE_BREAK_ON, broken.reason, broken.detail)


def _read_file(file: File, reading: Reading) -> Iterator[Item]:
    if not file.path.is_file():
        what = "a broken link" if file.path.is_symlink() else "not a plain file"
        raise Broken("unreadable", f"{what}, or it vanished")
    try:
        opened = open(file.path, "rb")  # noqa: SIM115 (closed below; opening alone is guarded)
    except OSError as error:
        raise Broken("unreadable", f"cannot be opened: {error.strerror}") from None
    with opened:
        stream = open_stream(file_chunks(opened, advance), file.size, file.path)
        if not is_tar(stream.head):
            yield from read_stream(stream, file.name, file.name, reading)
            return
        for member in read_members(stream, file.name):
            if isinstance(member, Rejected):
                yield member
                continue
            name, content = member
            try:
                yield from read_stream(content, f"{file.name}/{name}", name, reading)
            except Broken as broken:
                yield Rejected(f"{file.name}/{name}", FROM_THE_BREAK_ON, broken.reason, broken.detail)
