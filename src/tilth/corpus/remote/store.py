"""Files of object stores and whatever else fsspec reads, block by block, each of which is tried again on its own."""

import re
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any, TypeVar

from tilth.corpus.compression import Broken
from tilth.corpus.mark import advance
from tilth.corpus.remote.manners import Manners, turn
from tilth.corpus.remote.patience import Passing, Patience, within_time
from tilth.errors import TilthError
from tilth.urls import open_file_system

BLOCK = 4_000_000
"""Bytes asked for at once."""

_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""Under what names file systems say which version a file is, the surest first."""

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ValueError)
"""Errors that another attempt does not better."""

Result = TypeVar("Result")


def find(url: str) -> list[tuple[str, str, int, str]]:
    """(url, path below the folder that holds the source, bytes, version) of each file behind a file, folder or pattern.

    Raises: TilthError when it cannot be looked for; none is found where there is none.
    """
    try:
        files, root = open_file_system(url)
        if any(sign in root for sign in "*?["):
            found = within_time(lambda: files.glob(root, detail=True))
            base = re.split(r"[*?\[]", root)[0].rpartition("/")[0]
        else:
            root = root.rstrip("/")
            info = within_time(lambda: files.info(root))
            found = {root: info} if info["type"] == "file" else within_time(lambda: files.find(root, detail=True))
            base = root.rpartition("/")[0]
    except FileNotFoundError:
        return []
    except TilthError:
        raise
    except Exception as error:  # each of fsspec's file systems fails in its own way
        raise TilthError(f"{type(error).__name__}: {error}; check the address and access") from None
    return [
        (files.unstrip_protocol(path), path.removeprefix(base).lstrip("/"), info["size"] or 0, _version(info))
        for path, info in sorted(found.items())
        if info["type"] == "file"
    ]


def describe(url: str, manners: Manners) -> tuple[int, str]:
    """Bytes of a file, and its version. Raises: Broken."""

    def ask() -> dict[str, Any]:
        files, path = open_file_system(url)
        files.invalidate_cache()
        return files.info(path)

    info = _trying(ask, url, manners, Patience())
    return info["size"] or 0, _version(info)


def read(url: str, size: int, version: str, manners: Manners) -> Generator[bytes, None, None]:
    """The bytes of the file that `describe` found. Raises: Broken when it cannot be read, or is another by now."""
    files, path = open_file_system(url)
    patience = Patience()
    for start in range(0, size, BLOCK):
        end = min(size, start + BLOCK)

        def ask(start: int = start, end: int = end) -> bytes:
            block = files.cat_file(path, start=start, end=end)
            if len(block) != end - start:
                raise OSError(f"{len(block):,} of {end - start:,} bytes came")
            return block

        block = _trying(ask, url, manners, patience)
        patience.note_read(len(block))
        advance(len(block))
        if end == size and describe(url, manners) != (size, version):
            raise Broken("unreadable", "changed where it lies while it was read; build again")
        yield block


def _trying(ask: Callable[[], Result], url: str, manners: Manners, patience: Patience) -> Result:
    while True:
        try:
            with turn(url, manners):
                return within_time(ask)
        except Passing as failure:
            patience.wait_after(failure)
        except (TilthError, MemoryError):
            raise
        except _LASTING as error:
            raise Broken("unreadable", f"{type(error).__name__}: {error}") from None
        except Exception as error:
            patience.wait_after(Passing(f"{type(error).__name__}: {error}"))


def _version(info: dict[str, Any]) -> str:
    found = next((info[name] for name in _VERSIONS if info.get(name)), "")
    return str(found.timestamp() if isinstance(found, datetime) else found)
