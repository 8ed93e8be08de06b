"""Places other than this machine's file system: URLs of fsspec."""

from pathlib import Path
from typing import Any

from tilth.errors import TilthError, import_extra


def is_url(path: Path | str) -> bool:
    """Whether a path names another place than this machine's file system."""
    return "://" in str(path)


def open_file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system behind a URL, and the path in it.

    Raises: TilthError when what reads such URLs is not installed; ValueError for an unknown protocol.
    """
    fsspec = import_extra("fsspec", "remote")
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise TilthError(f"cannot read {url}: {error}; run: pip install 'tilth[remote]'") from None
