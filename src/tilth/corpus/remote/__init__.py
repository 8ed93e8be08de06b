"""Sources at URLs: of web servers (`web.py`), and of object stores and the like (`store.py`)."""

from collections.abc import Generator

from tilth.corpus.remote import store, web
from tilth.corpus.remote.manners import Manners


def is_web(url: str) -> bool:
    """Whether a URL is a web server's, which gives files but no list of them."""
    return url.startswith(("http://", "https://"))


def describe(url: str, manners: Manners) -> tuple[int, str]:
    """Bytes of a file, and what the server calls this version of it ('' if it does not). Raises: Broken."""
    return web.describe(url, manners) if is_web(url) else store.describe(url, manners)


def read(url: str, size: int, version: str, manners: Manners) -> Generator[bytes, None, None]:
    """The bytes of a file, of which size and version are as `describe` says.

    What fails is tried again. A file that is shorter than it should be, or changes meanwhile, is never taken for whole.
    Raises: Broken after the last byte that could be read.
    """
    return web.read(url, size, version, manners) if is_web(url) else store.read(url, size, version, manners)
