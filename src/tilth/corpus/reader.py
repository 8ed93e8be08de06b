"""Open a corpus and iterate over its documents."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from tilth.errors import TilthError, UsageError
from tilth.files import fingerprint, read_json, sha256_file
from tilth.settings import check_record

CARD = "card.json"
FORMAT = "tilth corpus"
FORMAT_VERSION = 2

SplitName = Literal["train", "validation"]


class _Part(BaseModel):
    path: str = Field(pattern=r"^(train|validation)/part-[0-9]+\.parquet$")
    size: int = Field(ge=0)
    sha256: str


class _Source(BaseModel):
    source: str


class _Card(BaseModel):
    """What readers rely on."""

    fingerprint: str = Field(min_length=1)
    kept: int = Field(ge=0)
    files: list[_Part]
    sources: list[_Source]


@dataclass(frozen=True)
class Document:
    """One unit of raw data."""

    id: str
    text: str
    source: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """A complete corpus folder. card: what is in it, where from, and what was dropped and why."""

    path: Path
    card: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """A hash of the ids and texts of both splits, in order."""
        return self.card["fingerprint"]

    def documents(self, split: SplitName) -> Iterator[Document]:
        """The documents of a split, always in the same order, in memory bounded by a row group (8 MB or one document).

        Raises: TilthError when a file is damaged; ValueError for another split.
        """
        import pyarrow as pa
        import pyarrow.parquet as parquet

        if split not in ("train", "validation"):
            raise ValueError(f"a corpus has the splits train and validation, not {split!r}")
        for part in self.card["files"]:
            if not part["path"].startswith(f"{split}/"):
                continue
            path = self.path / part["path"]
            if sha256_file(path) != part["sha256"]:
                raise TilthError(f"{path} does not match its SHA-256 on the card; restore it or build the corpus again")
            try:
                with parquet.ParquetFile(path) as file:
                    for index in range(file.num_row_groups):
                        table = file.read_row_group(index, columns=["id", "text", "source", "metadata"])
                        for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
                            yield Document(row[0], row[1], row[2], json.loads(row[3]))
            except (OSError, ValueError, pa.ArrowException) as error:
                raise TilthError(f"{path} is damaged ({error}); build the corpus again") from None


def seal(card: dict[str, Any]) -> dict[str, Any]:
    """The card with a checksum of all it says, which `open_corpus` compares."""
    said = {name: value for name, value in card.items() if name != "checksum"}
    return {**said, "checksum": fingerprint(said)}


def is_corpus(path: str | Path) -> bool:
    """Whether `path` is a folder that `tilth corpus build` finished."""
    try:
        card = json.loads((Path(path) / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(card, dict) and card.get("format") == FORMAT


def open_corpus(path: str | Path) -> Corpus:
    """Open a corpus folder.

    Raises: UsageError when there is nothing; TilthError when it is not one, was written by another version of the
    format, lacks a file, or its card was
    changed.
    """
    path = Path(path)
    if not is_corpus(path):
        if not path.exists():
            raise UsageError(f"{path} does not exist; make a corpus: tilth corpus build SOURCE --out DIR")
        raise TilthError(f"{path} is not a corpus; make one: tilth corpus build SOURCE --out DIR")
    card = read_json(path / CARD)
    found = card.get("format_version")
    if found != FORMAT_VERSION:
        raise TilthError(f"{path} has format version {found}, this Tilth reads {FORMAT_VERSION}; build it again")
    check_record(_Card, card, path / CARD, "restore it or build the corpus again")
    if card != seal(card):
        raise TilthError(f"{path / CARD} does not match its checksum; restore it or build the corpus again")
    for part in card["files"]:
        file = path / part["path"]
        size = file.stat().st_size if file.is_file() else None
        if size != part["size"]:
            what = "is missing" if size is None else f"has {size:,} bytes where the card says {part['size']:,}"
            raise TilthError(f"{file} {what}; restore it or build the corpus again")
    return Corpus(path, card)
