"""Files that are either whole or absent: write aside, fsync, rename."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tilth.errors import TilthError, UsageError


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, read in bounded memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """A short hash of anything JSON can hold; equal values give equal fingerprints whatever the order of keys."""
    content = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _sync_file(path: Path) -> None:
    """Make a file's bytes outlast a power cut."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names inside `folder` outlast a power cut, where the file system lets folders be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it replaces `path` only when the block ends without error."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        with _naming(path, aside):
            yield aside
            _sync_file(aside)
            os.replace(aside, path)
        _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; it replaces `path` only when the block ends without error.

    A link stays one: what it leads to is replaced.
    """
    path = Path(os.path.realpath(path))
    aside = path.with_name(f".{path.name}.partial")
    replaced = path.with_name(f".{path.name}.replaced")
    recover_folder(path)
    with _naming(path, aside):
        aside.mkdir(parents=True)
    try:
        with _naming(path, aside):
            yield aside
            mode = _usual_mode(aside)
            for inner in (*aside.rglob("*"), aside):
                if inner.is_file():
                    inner.chmod(mode)  # safetensors leaves its files to their owner alone
                (_sync_folder if inner.is_dir() else _sync_file)(inner)
        if path.exists():
            path.rename(replaced)
        aside.rename(path)
        _sync_folder(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        _bring_back(replaced, path)
        shutil.rmtree(aside, ignore_errors=True)


def _usual_mode(folder: Path) -> int:
    """The permissions that a new file gets here."""
    probe = folder / ".mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    return mode


def recover_folder(path: Path) -> None:
    """After a crash: bring `path` back when it was being replaced, and remove what was half-written beside it."""
    path = Path(os.path.realpath(path))
    replaced = path.with_name(f".{path.name}.replaced")
    _bring_back(replaced, path)
    for left in (replaced, path.with_name(f".{path.name}.partial")):
        shutil.rmtree(left, ignore_errors=True)


def _bring_back(replaced: Path, path: Path) -> None:
    """Undo the first of the two renames that replace a folder, when the second did not happen."""
    if replaced.exists() and not path.exists():
        replaced.rename(path)


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text`, atomically."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, atomically."""
    with whole_file(path) as aside:
        aside.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` with indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises: TilthError when the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TilthError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise TilthError(f"{path} is not valid JSON ({error}); restore it or make its folder again") from None


def output_folder(path: Path) -> Path:
    """Create `path` and check that it can be written to.

    Raises: TilthError when it is a file, is read-only, or cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".tilth-write-probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise TilthError(f"cannot write to {path}: {error.strerror}; choose another --out") from None
    return path


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Keep other processes out of the block by a lock on the file `path`, which goes with the process that is killed.

    Where the file system has no locks, that is said on standard error, and the block goes on. busy: what is said where
    another process is in the block.
    Raises: UsageError.
    """
    lock = FileLock(path, timeout=0, fallback_to_soft=False)  # a soft one would outlive a process that is killed
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{busy}, or choose another --out") from None
    except (OSError, NotImplementedError) as error:
        print(f"cannot lock {path.parent} ({error}): let no other process write there", file=sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if lock.is_locked:  # so that whoever has opened the file to wait for it finds it gone, and makes another
                path.unlink(missing_ok=True)
            lock.release()


@contextlib.contextmanager
def not_left_empty(path: Path) -> Iterator[None]:
    """Folders that the block makes, `path` and those above it, go again when the block fails and leaves them empty."""
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in absent:
            with contextlib.suppress(OSError):  # what is not empty stays
                folder.rmdir()
        raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """`path`, created and writable, and not left empty when the block fails.

    Raises: TilthError when it cannot be written to.
    """
    with not_left_empty(path):
        yield output_folder(path)


def reason(error: Exception, path: Path) -> str:
    """Why `path` or what is in it could not be written, for a message that names it; any other file is named here."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    return error.strerror if name is None or Path(name).is_relative_to(path) else f"{error.strerror}: {name}"


@contextlib.contextmanager
def _naming(path: Path, aside: Path) -> Iterator[None]:
    """Let an error of the system that names no file, or only the one aside, name the file that is to be written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(str(aside))):
            error.filename = str(path)
            del error.filename2  # None would be printed as a second name
        raise
