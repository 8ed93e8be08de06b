"""Some documents of a corpus, each as likely as any other: what figures are told from that need not be exact."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
    drawn = draw(read_some(paths, seed, ["id", "source", "metadata"]), most, Key(seed, 0, "corpus sample"))
    return [
        Sampled(row["id"], row["text"], row["characters"], origin(row["source"], names), json.loads(row["metadata"]))
        for row in drawn
    ]


def read_some(paths: Sequence[Path], seed: int = 0, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Rows of at most `ROW_GROUPS` row groups of a corpus's files, in a random order of groups.

    A row has the `columns`, `text` (an excerpt) and `characters` (of the whole text).
    Raises: TilthError when a file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        groups = [(path, index) for path in paths for index in range(parquet.read_metadata(path).num_row_groups)]
        order = sorted(range(len(groups)), key=lambda number: Key(seed, number, "row groups").digest())
        for path, index in (groups[number] for number in order[:ROW_GROUPS]):
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(256, [index], ["text", *columns], use_threads=False):
                    for row in batch.to_pylist():
                        yield {**row, "text": excerpt(row["text"], EXCERPT), "characters": len(row["text"])}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TilthError(f"the corpus is damaged ({error}); restore it or build it again") from None


def origin(path: str, names: Sequence[str]) -> str:
    """The name of the source that a document comes from, by the path it has from its source on.

    names: of the corpus's sources, which are the last parts of what was given: a name, or a pattern.
    """
    first = path.partition("/")[0]
    if first in names:
        return first
    matching = [name for name in names if fnmatchcase(first, name)]
    return matching[0] if matching else names[0] if len(names) == 1 else first
