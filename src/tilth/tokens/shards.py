"""Shards: the token ids of a corpus in memory-mapped files, with the boundaries of its documents and sentences.

    SHARDS/manifest.json              format, fingerprints, counts, and the size and SHA-256 of every other file
    SHARDS/train-00000.ids ...        token ids end to end, uint16 or uint32; documents may continue in the next file
    SHARDS/train.offsets              int64 (documents + 1,): where each document's tokens start
    SHARDS/train.bytes                int64 (documents,): length of each document's raw UTF-8 text
    SHARDS/train.sentences            int64 (sentences,): positions of the tokens that start a sentence
    SHARDS/train.names                each document's id as a JSON string, one a line
and the same for validation. All numbers are little-endian; a position counts tokens from the start of the split.
"""

import contextlib
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tilth.errors import TilthError
from tilth.files import read_json, reason, sha256_file, whole_folder, write_json
from tilth.progress import progress_bar
from tilth.settings import check_record
from tilth.tokens.ranges import ranges
from tilth.tokens.remote import RemoteFolder, default_cache
from tilth.tokens.shard_writer import SplitWriter
from tilth.tokens.text import TextTokenizer
from tilth.tokens.verification import Verification
from tilth.urls import is_url

if TYPE_CHECKING:
    from tilth.corpus.reader import Corpus, SplitName

FORMAT_VERSION = 1
SHARD_TOKENS = 1 << 26
SPLITS: "tuple[SplitName, ...]" = ("train", "validation")
_BATCH_CHARACTERS = 1 << 21
_BATCH_DOCUMENTS = 1 << 13


class _File(BaseModel):
    bytes: int = Field(ge=0)
    sha256: str


class _Split(BaseModel):
    documents: int = Field(ge=0)
    tokens: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sentences: int = Field(ge=0)
    files: dict[str, _File]


class _Splits(BaseModel):
    model_config = ConfigDict(extra="forbid")
    train: _Split
    validation: _Split


class _Manifest(BaseModel):
    """What readers rely on."""

    corpus: str
    tokenizer: str
    vocab_size: int = Field(ge=1)
    dtype: Literal["<u2", "<u4"]
    shard_tokens: int = Field(ge=1)
    splits: _Splits


def write_shards(
    corpus: "Corpus", tokenizer: TextTokenizer, out: Path | str, progress: bool = True, shard_tokens: int = SHARD_TOKENS
) -> "Shards":
    """Tokenize both splits of a corpus into the folder `out`, which appears only when it is whole.

    Documents are streamed in batches, so memory does not grow with the corpus. Documents without any token are left out
    and counted in the manifest. Raises: TilthError when the training split has no tokens.
    """
    out = Path(out)
    dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
    manifest: dict[str, Any] = {
        "format": "tilth shards",
        "version": FORMAT_VERSION,
        "corpus": corpus.fingerprint,
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "dtype": dtype,
        "shard_tokens": shard_tokens,
    }
    try:
        with whole_folder(out) as folder, contextlib.ExitStack() as open_files:
            writers = [SplitWriter(folder, split, dtype, shard_tokens) for split in SPLITS]
            for writer in writers:
                open_files.callback(writer.close)  # also when a document cannot be read
            _write_documents(corpus, tokenizer, writers, progress)
            manifest["splits"] = {writer.split: writer.close() for writer in writers}
            if manifest["splits"]["train"]["tokens"] == 0:
                raise TilthError(f"the training split of {corpus.path} has no tokens; add documents with text to it")
            write_json(folder / "manifest.json", manifest)
    except OSError as error:
        raise TilthError(
            f"cannot write shards to {out}: {reason(error, out)}; free some space or choose another folder"
        ) from None
    return open_shards(out)


def open_shards(
    path: Path | str,
    corpus_fingerprint: str | None = None,
    tokenizer_fingerprint: str | None = None,
    verify: bool = False,
    cache: Path | None = None,
) -> "Shards":
    """Open a folder of shards; nothing but its manifest is read.

    path: a folder, or any URL of fsspec, whose files are downloaded to `cache` when they are first used.
    The size of every file is checked, and its SHA-256 when it is first used (see `Shards.verification`); verify: that
    of every file now.
    Raises: TilthError when the folder is missing or damaged, of another format, or made from another corpus or
    tokenizer than the ones given; the message says which.
    """
    remote = RemoteFolder(str(path), cache or default_cache()) if is_url(path) else None
    path = Path(path) if remote is None else remote.path
    if not (path / "manifest.json").is_file():
        raise TilthError(f"no shards at {path}: it has no manifest.json")
    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != "tilth shards":
        raise TilthError(f"{path} is not a folder of shards: its manifest.json says otherwise")
    if manifest.get("version") != FORMAT_VERSION:
        raise TilthError(
            f"the shards in {path} differ in format: version {manifest.get('version')}, and this Tilth reads"
            f" version {FORMAT_VERSION}; make them again"
        )
    check_record(_Manifest, manifest, path / "manifest.json", "make the shards again")
    expected = {"corpus": corpus_fingerprint, "tokenizer": tokenizer_fingerprint}
    differ = [name for name, value in expected.items() if value is not None and value != manifest[name]]
    if differ:
        was = ", ".join(f"{name} {manifest[name]} instead of {expected[name]}" for name in differ)
        raise TilthError(
            f"the shards in {path} were made from another {' and another '.join(differ)} ({was});"
            " make them again, or give what they were made from"
        )
    for name, split in manifest["splits"].items():
        for file in split["files"]:
            if Path(file).name != file:
                raise TilthError(f"{path / 'manifest.json'} names a file outside its folder: {file!r}")
        _check_sizes(path, name, split, manifest)
        for file, entry in split["files"].items():
            if remote is None or verify:
                found = path / file if remote is None else remote.fetch(file, entry)
                _check_size(found, entry)
                if verify:
                    _check_hash(found, entry)
    return Shards(path, manifest, remote)


class Shards:
    """An opened folder of shards.

    verification: compares the files with their SHA-256 as they come into use, large ones in a thread; to be asked
    before anything made of them is kept.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], remote: RemoteFolder | None = None) -> None:
        """remote: where the files come from that are not yet in `path`."""
        self.path = path
        self.manifest = manifest
        self.remote = remote
        self.verification = Verification()

    def split(self, name: "SplitName") -> "ShardSplit":
        """One split, `train` or `validation`."""
        return ShardSplit(self.path, name, self.manifest, self.verification, self.remote)


class ShardSplit:
    """The documents of one split, end to end: a position counts tokens from the split's start.

    Every array is mapped when it is first used, not loaded: only the pages that are read take memory.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        manifest: dict[str, Any],
        verification: Verification,
        remote: RemoteFolder | None = None,
    ) -> None:
        counts = manifest["splits"][name]
        self.path = path
        self.name = name
        self.num_documents: int = counts["documents"]
        self.num_tokens: int = counts["tokens"]
        self.num_bytes: int = counts["bytes"]
        self._vocab_size: int = manifest["vocab_size"]
        self._verification, self._remote = verification, remote
        self._files: dict[str, dict[str, Any]] = counts["files"]
        self._shard_tokens: int = manifest["shard_tokens"]
        self._dtype: str = manifest["dtype"]
        self._shard_names = sorted(file for file in self._files if file.endswith(".ids"))
        self._shards: dict[int, np.ndarray] = {}

    @cached_property
    def document_starts(self) -> np.ndarray:
        """int64 (documents + 1,): the position of each document's first token, and the end of the last.

        Raises: TilthError when they are no such positions.
        """
        starts = self._map(f"{self.name}.offsets", "<i8")
        if starts[0] != 0 or starts[-1] != self.num_tokens or (starts[1:] < starts[:-1]).any():
            raise TilthError(f"{self.path / self.name}.offsets is damaged: make the shards again")
        return starts

    @cached_property
    def document_bytes(self) -> np.ndarray:
        """int64 (documents,): the length of each document's raw UTF-8 text."""
        return self._map(f"{self.name}.bytes", "<i8")

    @cached_property
    def _sentences(self) -> np.ndarray:
        return self._map(f"{self.name}.sentences", "<i8")

    def tokens(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Token ids of many ranges, end to end.

        starts, lengths: int64 (N,), positions and counts within the split. Returns int64 (sum of lengths,).
        Raises: TilthError when one is outside the vocabulary.
        """
        positions = ranges(starts, lengths)
        shards, within = np.divmod(positions, self._shard_tokens)
        ids = np.empty(len(positions), dtype=np.int64)
        for shard in np.flatnonzero(np.bincount(shards)):  # sorting them all would take longer than the rest
            chosen = shards == shard
            ids[chosen] = self._shard(int(shard))[within[chosen]]
        if len(ids) and ids.max() >= self._vocab_size:
            raise TilthError(
                f"the {self.name} shards in {self.path} are damaged: they hold token {ids.max()}, and the vocabulary "
                f"has {self._vocab_size}; make them again"
            )
        return ids

    def sentence_starts(self, start: int, length: int) -> np.ndarray:
        """Where sentences start in the range, counted from its first token: int64, increasing, in [0, length)."""
        first, last = np.searchsorted(self._sentences, [start, start + length])
        return self._sentences[first:last] - start

    def document_names(self, documents: Sequence[int]) -> list[str]:
        """The corpus ids of a few documents, for messages: it reads the list of names from its start."""
        wanted = set(documents)
        found: dict[int, str] = {}
        with open(self._file(f"{self.name}.names"), encoding="utf-8", errors="replace") as file:
            lines = itertools.islice(file, max(wanted, default=-1) + 1)
            for number, line in enumerate(lines):
                if number in wanted:
                    with contextlib.suppress(ValueError):
                        found[number] = str(json.loads(line))
        return [found.get(document, f"document {document} (its name is damaged)") for document in documents]

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            self._shards[number] = self._map(self._shard_names[number], self._dtype)
        return self._shards[number]

    def _map(self, name: str, dtype: str) -> np.ndarray:
        path = self._verified(name)
        try:
            return _map(path, dtype)
        except FileNotFoundError:
            self._verification.wait()  # says so, where it was found damaged, and removed, in the meantime
            raise

    def _verified(self, name: str) -> Path:
        """A file whose SHA-256 is compared, at once or in a thread. Raises: TilthError when it is found damaged."""
        entry = self._files[name]
        path = self._file(name)
        compare = functools.partial(_check_hash, path, entry)
        if self._remote is not None:
            compare = functools.partial(self._remote.check, name, entry)
        self._verification.begin(path, entry["bytes"], compare)
        return path

    def _file(self, name: str) -> Path:
        return self.path / name if self._remote is None else self._remote.fetch(name, self._files[name])


def _write_documents(corpus: "Corpus", tokenizer: TextTokenizer, writers: list[SplitWriter], progress: bool) -> None:
    documents = tokens = 0
    with progress_bar("Tokenizing", corpus.card["kept"], "documents", shown=progress) as update:
        for writer in writers:
            for batch in _batches(corpus, writer.split):
                encoded = tokenizer.encode_with_ends([text for _, text in batch])
                for (name, text), (ids, ends) in zip(batch, encoded, strict=True):
                    writer.add(name, text, ids, ends)
                    tokens += len(ids)
                documents += len(batch)
                update(documents, tokens=f"{tokens:,}")


def _batches(corpus: "Corpus", split: "SplitName") -> Iterator[list[tuple[str, str]]]:
    """The (id, text) of a split's documents, in batches of bounded size."""
    batch: list[tuple[str, str]] = []
    size = 0
    for document in corpus.documents(split):
        batch.append((document.id, document.text))
        size += len(document.text)
        if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _map(path: Path, dtype: str) -> np.ndarray:
    """A read-only mapping of a raw array; an empty file, which cannot be mapped, gives an empty array."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


def _check_sizes(path: Path, name: str, split: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Whether the files that a split names are those that its counts ask for."""
    size, full = np.dtype(manifest["dtype"]).itemsize, manifest["shard_tokens"]
    shards = max(1, -(-split["tokens"] // full))
    expected = {
        f"{name}.offsets": 8 * (split["documents"] + 1),
        f"{name}.bytes": 8 * split["documents"],
        f"{name}.sentences": 8 * split["sentences"],
    }
    # Compared as a count first: a damaged one could ask for more names than memory holds.
    if shards == sum(file.endswith(".ids") for file in split["files"]):
        expected |= {
            f"{name}-{shard:05d}.ids": size * min(full, split["tokens"] - shard * full) for shard in range(shards)
        }
        sizes = {file: entry["bytes"] for file, entry in split["files"].items() if file != f"{name}.names"}
        if sizes == expected and f"{name}.names" in split["files"]:
            return
    raise TilthError(f"{path / 'manifest.json'} is damaged: its counts and its files differ; make the shards again")


def _check_size(path: Path, entry: dict[str, Any]) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != entry["bytes"]:
        found = "is missing" if size is None else f"has {size} bytes, not {entry['bytes']}"
        raise TilthError(f"{path} {found}: {_damaged(path)}")


def _check_hash(path: Path, entry: dict[str, Any]) -> None:
    try:
        is_whole = sha256_file(path) == entry["sha256"]
    except OSError as error:
        raise TilthError(f"cannot read {path}: {error.strerror or error}; {_damaged(path)}") from None
    if not is_whole:
        raise TilthError(f"{path} does not match its SHA-256 in manifest.json: {_damaged(path)}")


def _damaged(path: Path) -> str:
    return (
        f"the shards are damaged; restore the file, or remove {path.parent} and make them again "
        "(a run makes its own again with --resume)"
    )
