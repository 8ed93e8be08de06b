"""Shards in an object store or on a server: any URL of fsspec, read through a folder on this machine's disk.

A file is downloaded when it is first used, whole, because what is random in the order of rows is spread over all of a
file; a file that no row of this machine needs (or no part of the objective, such as sentences) is never asked for.
"""

import contextlib
import hashlib
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilth.errors import TilthError
from tilth.files import sha256_file, write_bytes
from tilth.tokens.verification import is_small
from tilth.urls import open_file_system

_BLOCK_BYTES = 1 << 22


def default_cache() -> Path:
    """Where downloaded shards are kept unless the recipe says: `tilth/shards` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tilth" / "shards"


class RemoteFolder:
    """The files of a folder of shards at a URL, kept in `cache/<SHA-256 of its manifest>`.

    Another manifest means another folder, so a changed source never meets files of the old one.
    """

    def __init__(self, url: str, cache: Path) -> None:
        """Downloads the manifest. Raises: TilthError when it, or what reads such URLs, is not there."""
        self.url = url.rstrip("/")
        self._whole: set[str] = set()
        """Files that have been compared with their SHA-256."""
        with self._readable("manifest.json"):
            self._files, self._root = open_file_system(self.url)
            manifest = self._files.cat_file(posixpath.join(self._root, "manifest.json"))
        self.path = cache / hashlib.sha256(manifest).hexdigest()[:32]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(self.path / ".manifest.json.lock"):
                if not (self.path / "manifest.json").exists():
                    write_bytes(self.path / "manifest.json", manifest)
        except OSError as error:
            raise self._unwritable(error) from None

    def fetch(self, name: str, entry: dict[str, Any]) -> Path:
        """A file's path on this machine, downloaded if it is not yet there and compared with its size and SHA-256.

        A small file that is there and is damaged is downloaded again; a large one is left to `check`.
        Raises: TilthError when it cannot be read or kept, or is not what the manifest says.
        """
        path = self.path / name
        try:
            with _one_at_a_time(self.path / f".{name}.lock"):
                if not path.is_file() or path.stat().st_size != entry["bytes"] or self._is_damaged(name, entry):
                    self._download(name, path, entry)
                    self._whole.add(name)
        except OSError as error:
            raise self._unwritable(error) from None
        return path

    def check(self, name: str, entry: dict[str, Any]) -> None:
        """Compare a file that was there with its SHA-256; a damaged one is removed.

        Raises: TilthError when it is damaged.
        """
        if name in self._whole:
            return
        path = self.path / name
        try:
            if sha256_file(path) != entry["sha256"]:
                path.unlink(missing_ok=True)
                raise TilthError(
                    f"{path}, a copy of {self.url}/{name}, was damaged and is removed: the same command downloads it "
                    "again; a run goes on with --resume"
                )
        except OSError as error:
            raise self._unwritable(error) from None
        self._whole.add(name)

    def _is_damaged(self, name: str, entry: dict[str, Any]) -> bool:
        """Whether a small file that is there is not what the manifest says."""
        if name in self._whole or not is_small(entry["bytes"]):
            return False
        if sha256_file(self.path / name) != entry["sha256"]:
            return True
        self._whole.add(name)
        return False

    def _download(self, name: str, path: Path, entry: dict[str, Any]) -> None:
        # Of this process alone, where locks are not to be had; a leftover of a killed one is removed with the cache.
        aside = path.with_name(f".{name}.{os.getpid()}.partial")
        try:
            with open(aside, "wb") as file:
                for block in self._blocks(name):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if aside.stat().st_size != entry["bytes"] or sha256_file(aside) != entry["sha256"]:
                raise TilthError(
                    f"{self.url}/{name} does not match its size and SHA-256 in manifest.json: it was damaged on the "
                    "way or at its source; try again, or upload the shards again"
                )
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    def _blocks(self, name: str) -> Iterator[bytes]:
        with self._readable(name):
            source = self._files.open(posixpath.join(self._root, name), "rb", block_size=_BLOCK_BYTES)
        with source:
            while True:
                with self._readable(name):
                    block = source.read(_BLOCK_BYTES)
                if not block:
                    return
                yield block

    @contextlib.contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        """Each of fsspec's file systems fails in its own way."""
        try:
            yield
        except TilthError:
            raise
        except Exception as error:
            raise TilthError(
                f"cannot read {self.url}/{name}: {type(error).__name__}: {error}; check the address and access"
            ) from None

    def _unwritable(self, error: OSError) -> TilthError:
        return TilthError(
            f"cannot keep {self.url} in {self.path}: {error.strerror or error}; free some space, or set data.cache to "
            "another folder"
        )


@contextlib.contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Let one process of this machine in at once, where the system has such locks; a killed one's lock is gone."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(lock, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
