"""Output folders that a failure does not leave behind empty."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tilth.files import output_folder


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """`path`, created and writable; folders that it created are removed when the block fails and leaves them empty.

    Raises: TilthError when it cannot be written to.
    """
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield output_folder(path)
    except BaseException:
        for folder in created:
            with contextlib.suppress(OSError):  # what is not empty stays
                folder.rmdir()
        raise
