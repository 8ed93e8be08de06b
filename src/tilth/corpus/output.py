"""Where a corpus is made: what may be replaced there, and why it cannot be written."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tilth.corpus.reader import CARD, is_corpus
from tilth.corpus.settings import TRANSPORT, CorpusSettings
from tilth.corpus.sources import INSTALLED_DOCS
from tilth.errors import UsageError
from tilth.files import fingerprint, read_json
from tilth.urls import is_url

FAILED = "failed.json"
PLACES = "places.sha256"

_NOT_DECIDING = {"max_rejected", *TRANSPORT}
"""Settings that only decide whether there is a corpus; the others change what is in it."""


def check_out(out: Path) -> None:
    """Raises: UsageError when `out` is a file, or holds other things than a corpus or a failed build."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose another --out")
    if not out.exists() or is_corpus(out):
        return
    foreign = {path.name for path in out.iterdir()} - {FAILED, "rejected"}
    if foreign:
        names = ", ".join(sorted(foreign)[:3])
        raise UsageError(f"{out} is not a corpus and holds other things ({names}); choose an empty or new --out")


def places_hash(sources: Iterable[str]) -> str:
    """A hash of where sources lie, their order aside. A card, equal on all machines, leaves that out."""
    named = [each if is_url(each) or each == INSTALLED_DOCS else os.path.abspath(each) for each in sources]
    return fingerprint(sorted(named))


def are_elsewhere(corpus: Path, sources: Iterable[str]) -> bool:
    """Whether a corpus was made from sources in other places; False where it does not say."""
    path = corpus / PLACES
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace").strip() != places_hash(sources)


def check_replaces(out: Path, sources: Iterable[str], given: Iterable[str], settings: CorpusSettings) -> None:
    """Refuse to replace a corpus by one that is not a newer build of the same.

    sources: names, as on the card; their order does not matter. given: where they lie, as they were given.
    Raises: UsageError when `out` holds a corpus of other sources or other settings.
    """
    if not is_corpus(out):
        return
    card = read_json(out / CARD)
    choose = "choose another --out, or pass --overwrite"
    try:
        names = [str(source["source"]) for source in card["sources"]]
        # A setting that a card does not name is newer than it, and was as its default is.
        before = {**CorpusSettings().model_dump(), **card["settings"]}
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{out} holds a corpus whose card does not say what it was made from; {choose}") from None
    if sorted(names) != sorted(sources):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise UsageError(f"{out} holds a corpus of other sources ({shown}); {choose}")
    if are_elsewhere(out, given):
        raise UsageError(f"{out} holds a corpus of sources of the same names in other places; {choose}")
    now = settings.model_dump(exclude=_NOT_DECIDING)
    if differ := [f"{name} was {before[name]}" for name in now if before[name] != now[name]]:
        raise UsageError(f"{out} holds a corpus of other settings ({', '.join(differ)}); {choose}")


def explain(error: OSError, out: Path) -> str:
    """What to tell a person of a corpus that could not be written to `out`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = shutil.disk_usage(out.parent).free
        return (
            f"no space left while writing {out} ({where / 1e6:,.0f} MB free): the build needs about the size of the "
            "text; free some or choose another --out. Nothing that was there before has changed"
        )
    return f"cannot write {out}: {error.strerror or error}; choose another --out"
