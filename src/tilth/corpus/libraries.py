"""Which libraries a part of a corpus was made with, so that another version of one makes anew what it made."""

import importlib.metadata
from collections.abc import Iterable
from functools import cache
from typing import Any

from tilth.errors import import_extra

_used: set[str] = set()


def use_library(module: str, extra: str) -> Any:
    """Import a library that reads documents, and note that this process has used it. Its distribution has its name.

    Raises: as `import_extra`.
    """
    _used.add(module.partition(".")[0])
    return import_extra(module, extra)


def forget_used() -> None:
    """Begin to note anew."""
    _used.clear()


def used_libraries() -> dict[str, str | None]:
    """The version of each library that was used since `forget_used`."""
    return versions_of(_used)


def versions_of(distributions: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each, None where there is none."""
    return {name: _version(name) for name in sorted(distributions)}


@cache
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
