"""Some documents of a corpus, each as likely as any other: what figures are told from that need not be exact."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tilth.corpus.filters.classifier import EXCERPT
from tilth.corpus.filters.excerpt import excerpt
from tilth.corpus.reader import Corpus
from tilth.errors import TilthError
from tilth.key import Key, draw

SAMPLED = 10_000
"""Documents that figures are from."""

ROW_GROUPS = 100
"""Row groups (8 MB of text each) that a sample is drawn from: all of a corpus below 800 MB."""


SHOWN_CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class Sampled:
    """A document of a sample. text: an excerpt, where the whole has more than `EXCERPT` of its `characters`."""

    id: str
    text: str
    characters: int
    source: str
    metadata: dict[str, Any]

    def shown(self) -> dict[str, Any]:
        """What a page shows of the document."""
        return {
            "id": self.id,
            "source": self.source,
            "host": self.host,
            "characters": self.characters,
            "text": self.text[:SHOWN_CHARACTERS],
        }

    @property
    def host(self) -> str | None:
        """The host of the page's address, without `www.`; None where the metadata have no address."""
        url = self.metadata.get("url")
        try:
            host = urlsplit(url).hostname if isinstance(url, str) else None
        except ValueError:
            return None
        return host.removeprefix("www.") if host else None


def sample_corpus(corpus: Corpus, most: int = SAMPLED, seed: int = 0) -> list[Sampled]:
    """A seeded sample of both splits. Raises: TilthError when a file is damaged."""
    paths = [corpus.path / part["path"] for part in corpus.card["files"]]
    names = [source["source"] for source in corpus.card["sources"]]
    with _damage_told():
        count = sum(rows for _, _, rows in _row_groups(paths, seed))
    places = np.array(draw(range(count), most, Key(seed, 0, "corpus sample")), np.int64)
    order = np.argsort(places)
    rows = read_some(paths, seed, ["id", "source", "metadata"], places[order])
    drawn = dict(zip(order.tolist(), rows, strict=True))
    return [
        Sampled(row["id"], row["text"], row["characters"], origin(row["source"], names), json.loads(row["metadata"]))
        for row in (drawn[number] for number in range(len(drawn)))
    ]


def read_some(
    paths: Sequence[Path], seed: int = 0, columns: Sequence[str] = (), places: np.ndarray | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of at most `ROW_GROUPS` row groups of a corpus's files, in a random order of groups.

    A row has the `columns`, `text` (an excerpt) and `characters` (of the whole text). places: of the rows to give,
    sorted, among all of these groups.
    Raises: TilthError when a file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    start = 0
    with _damage_told():
        for path, index, _ in _row_groups(paths, seed):
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(256, [index], ["text", *columns], use_threads=False):
                    if places is not None:
                        first, end = np.searchsorted(places, (start, start + batch.num_rows))
                        batch, start = batch.take(pa.array(places[first:end] - start)), start + batch.num_rows
                    for row in batch.to_pylist():
                        yield {**row, "text": excerpt(row["text"], EXCERPT), "characters": len(row["text"])}


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TilthError(f"the corpus is damaged ({error}); restore it or build it again") from None


def _row_groups(paths: Sequence[Path], seed: int) -> list[tuple[Path, int, int]]:
    """The file, the number in it, and the rows of the groups that a sample is drawn from, in their random order."""
    import pyarrow.parquet as parquet

    groups = [
        (path, index, metadata.row_group(index).num_rows)
        for path in paths
        for metadata in [parquet.read_metadata(path)]
        for index in range(metadata.num_row_groups)
    ]
    order = sorted(range(len(groups)), key=lambda number: Key(seed, number, "row groups").digest())
    return [groups[number] for number in order[:ROW_GROUPS]]


def origin(path: str, names: Sequence[str]) -> str:
    """The name of the source that a document comes from, by the path it has from its source on.

    names: of the corpus's sources, which are the last parts of what was given: a name, or a pattern.
    """
    first = path.partition("/")[0]
    if first in names:
        return first
    matching = [name for name in names if fnmatchcase(first, name)]
    return matching[0] if matching else names[0] if len(names) == 1 else first
