"""Where raw data is, in an order that depends on names alone: files, folders, globs, URLs, lists, `installed-docs`."""

import contextlib
import glob
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tilth.corpus import remote
from tilth.corpus.archives import is_hidden, is_tar, read_members
from tilth.corpus.compression import Broken, Stream, file_chunks, open_stream
from tilth.corpus.formats import read_stream
from tilth.corpus.installed_docs import installed_modules, read_docs
from tilth.corpus.mark import Deadly, advance, note_item, start_file
from tilth.corpus.reader import is_corpus
from tilth.corpus.reading import Reading
from tilth.corpus.records import Item, Record, Rejected, printable
from tilth.corpus.rejections import FROM_THE_BREAK_ON
from tilth.corpus.remote import hub, store, web
from tilth.corpus.remote.manners import USUAL, Manners
from tilth.corpus.remote.path_list import is_path_list, name_of_list, read_path_list
from tilth.errors import TilthError, UsageError
from tilth.urls import is_url

INSTALLED_DOCS = "installed-docs"

_SAVED_DATASET = ({"dataset_info.json", "state.json"}, {"dataset_dict.json"})
"""What the library `datasets` writes beside the files that hold the rows."""


@dataclass(frozen=True)
class File:
    """A file to read. path: a URL as a string. name: its path from the source on, the same wherever the source is.

    size: in bytes. modified: when it was, in nanoseconds, as the file system says. version: of a URL, as
    `remote.describe` gives it; None where that failed.
    """

    path: Path | str
    name: str
    size: int
    modified: int
    version: str | None = None


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


def find_sources(given: Sequence[str], out: Path | None, base_url: str = "", manners: Manners = USUAL) -> list[Source]:
    """The files behind each source, sorted by name; one reached twice is read once. What is in `out` is not read.

    base_url: see `read_path_list`, whose files stay in the order of the list. manners: for servers.
    Raises: UsageError that lists every source that does not exist, or lies in `out`.
    """
    problems: list[str] = []
    sources: list[Source] = []
    seen: set[Path | str] = set()
    out = out and _real(out)
    for text in given:
        if text == INSTALLED_DOCS:
            modules = [_file(path, name) for name, path in installed_modules()]
            sources.append(Source(INSTALLED_DOCS, modules, installed=True))
            continue
        if is_path_list(text) or is_url(text):
            try:
                sources.append(_find_remote(text, base_url, manners, seen))
            except TilthError as error:
                problems.append(str(error))
            continue
        if os.path.lexists(text):
            roots, base = [Path(text)], os.path.dirname(os.path.abspath(text))
        else:
            roots = sorted(map(Path, glob.glob(text, recursive=True)))
            base = os.path.abspath(os.path.dirname(re.split(r"[*?[]", text)[0]))
        if not roots:
            problems.append(f"{text}: no such file or folder, and nothing matches it as a pattern")
        elif any(_real(root) == out or out in _real(root).parents for root in roots):
            problems.append(f"{text} is in the output folder, which the corpus would replace")
        source = Source(printable(os.path.basename(os.path.abspath(text))))
        for root in roots:
            _collect(root, base, source, seen, out)
        sources.append(source)
    if not given:
        problems.append(f"no source: name files, folders or globs, or {INSTALLED_DOCS}")
    if problems:
        raise UsageError("cannot read the sources:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return sources


_Found = tuple[str, str, tuple[int, str] | None]
"""URL and name of a file, with its size and version where they are known."""


def _find_remote(text: str, base_url: str, manners: Manners, seen: set[Path | str]) -> Source:
    """Raises: TilthError."""
    if is_path_list(text):
        source = Source(printable(name_of_list(text)))
        listed: list[_Found] = [(url, name, None) for url, name in read_path_list(text, base_url, manners)]
    elif hub.is_dataset(text):
        name, files, told = hub.find_dataset(text)
        source = Source(printable(name), notes=[told])
        listed = [(url, name, None) for url, name in files]
    elif remote.is_web(text):
        source = Source(printable(web.name_of(text)))
        listed = [(text, source.name, None)]
    else:
        source = Source(printable(text.rstrip("/").rpartition("/")[2]))
        found = store.find(text)
        if not found:
            raise UsageError(f"{text}: no such file or folder, and nothing matches it as a pattern")
        listed = [(url, name, (size, version)) for url, name, size, version in found if not is_hidden(name)]
        if len(found) > len(listed):
            source.notes.append(_told_of_hidden(len(found) - len(listed)))
    new = [item for item in dict.fromkeys(listed) if item[0] not in seen]
    seen.update(url for url, *_ in new)
    if len(listed) > len(new):
        source.notes.append(_told_of_repeated(len(listed) - len(new)))
    with ThreadPoolExecutor(manners.connections) as threads:
        try:
            source.files += threads.map(lambda item: _remote_file(item, manners), new)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return source


def _remote_file(found: _Found, manners: Manners) -> File:
    """The file, with its size and version. What cannot be asked for is rejected when it is read."""
    url, name, known = found
    if not is_url(url):  # a list's, below a folder of this machine
        return _file(Path(url), printable(name))
    try:
        size, version = known or remote.describe(url, manners)
    except Broken:
        return File(url, printable(name), 0, 0, None)
    return File(url, printable(name), size, 0, version)


def _told_of_hidden(count: int) -> str:
    return f"{count} hidden files or folders (names that start with a dot) were not read"


def _told_of_repeated(count: int) -> str:
    return f"{count} files that an earlier source names too were read once"


def _collect(root: Path, base: str, source: Source, seen: set[Path | str], out: Path | None) -> None:
    """Add the files of a folder, or a file, under their paths from `base` on."""
    hidden = repeated = 0
    paths: list[Path] = []
    if root.is_dir():
        for folder, subfolders, names in os.walk(root):
            if is_corpus(folder):  # its documents, not its card and what it set aside
                subfolders[:], names = ["train", "validation"], []
            for notes in _SAVED_DATASET:
                names = [name for name in names if name not in notes] if notes.issubset(names) else names
            ours = {f".{out.name}{end}" for end in (".parts", ".partial", ".replaced")} if out else set()
            hidden += sum(name.startswith(".") and name not in ours for name in [*subfolders, *names])
            subfolders[:] = [
                name for name in subfolders if not name.startswith(".") and _real(Path(folder, name)) != out
            ]
            paths += [Path(folder, name) for name in names if not name.startswith(".")]
            linked = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
            source.notes += [f"{printable(name)} is a link to a folder and was not followed" for name in sorted(linked)]
    else:
        paths = [root]
    for path in sorted(paths, key=os.fsencode):
        real = _real(path)
        if real in seen:
            repeated += 1
            continue
        seen.add(real)
        name = printable(Path(os.path.abspath(path)).relative_to(base).as_posix())
        source.files.append(_file(path, name))
    if hidden:
        source.notes.append(_told_of_hidden(hidden))
    if repeated:
        source.notes.append(_told_of_repeated(repeated))


def _real(path: Path) -> Path:
    """The path without links; unlike `Path.resolve`, also of a link that leads to itself."""
    return Path(os.path.realpath(path))


def _file(path: Path, name: str) -> File:
    path = Path(os.path.abspath(path))  # a worker may have another working folder
    try:
        status = path.stat()
    except OSError:
        return File(path, name, 0, 0)
    return File(path, name, status.st_size, status.st_mtime_ns)


def read_files(
    files: Sequence[File],
    installed: bool,
    reading: Reading,
    spoiled: Mapping[int, tuple[int, str]] = MappingProxyType({}),
    manners: Manners = USUAL,
    first: int | None = None,
) -> Iterator[Item]:
    """Everything the files of a source hold, in order; what cannot be read is rejected, never raised.

    installed: see `Source`. spoiled: files that cannot be read to their end, by their place, with how many things they
    give out, and why no more. manners: for servers. first: of each file, but for `installed`, no more than so many
    records.
    """
    if installed:
        yield from read_docs([(file.name, Path(file.path)) for file in files], lambda index: advance(files[index].size))
        return
    for index, file in enumerate(files):
        start_file(index)
        most, reason = spoiled.get(index, (None, ""))
        try:
            for item in itertools.islice(_first_records(_read_file(file, reading, manners), first), most):
                yield item
                note_item()
        except Broken as broken:
            yield Rejected(file.name, FROM_THE_BREAK_ON, broken.reason, broken.detail)
        if reason:
            yield Rejected(file.name, FROM_THE_BREAK_ON, reason, str(Deadly(reason)))


def _first_records(items: Iterator[Item], most: int | None) -> Iterator[Item]:
    """The items up to the record of that number; all, where there is none."""
    for item in items:
        yield item
        if most is not None and isinstance(item, Record):
            most -= 1
            if not most:
                return


def _read_file(file: File, reading: Reading, manners: Manners) -> Iterator[Item]:
    if isinstance(file.path, str):
        size, version = remote.describe(file.path, manners) if file.version is None else (file.size, file.version)
        with contextlib.closing(remote.read(file.path, size, version, manners)) as chunks:
            yield from _read_opened(open_stream(chunks, size), file.name, reading)
        return
    if not file.path.is_file():
        what = "a broken link" if file.path.is_symlink() else "not a plain file"
        raise Broken("unreadable", f"{what}, or it vanished")
    try:
        opened = open(file.path, "rb")  # noqa: SIM115 (closed below; opening alone is guarded)
    except OSError as error:
        raise Broken("unreadable", f"cannot be opened: {error.strerror}") from None
    with opened:
        yield from _read_opened(open_stream(file_chunks(opened, advance), file.size, file.path), file.name, reading)


def _read_opened(stream: Stream, source: str, reading: Reading) -> Iterator[Item]:
    if not is_tar(stream.head):
        yield from read_stream(stream, source, source, reading)
        return
    for member in read_members(stream, source):
        if not isinstance(member, tuple):
            yield member
            continue
        name, content = member
        try:
            yield from read_stream(content, f"{source}/{name}", name, reading)
        except Broken as broken:
            yield Rejected(f"{source}/{name}", FROM_THE_BREAK_ON, broken.reason, broken.detail)
