"""Files that are either whole or absent: write aside, fsync, rename."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilth.errors import TilthError


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, read in bounded memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """A short hash of anything JSON can hold; equal values give equal fingerprints whatever the order of keys."""
    content = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable (a no-op where folders cannot be opened)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` only when the block ends without error."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; it replaces `path` only when the block ends without error."""
    aside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for file_path in aside.rglob("*"):
            if file_path.is_file():
                with open(file_path, "rb+") as file:
                    os.fsync(file.fileno())
        replaced = path.with_name(f".{path.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if path.exists():
            path.rename(replaced)
        aside.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text`, atomically."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
