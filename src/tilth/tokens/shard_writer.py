"""Writing the files of one split of a shard folder, hashed while they are written."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tilth.tokens.sentences import sentence_starts

if TYPE_CHECKING:
    from tilth.corpus.reader import SplitName


class _Output:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115
        self._hash = hashlib.sha256()

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.size += len(content)

    def close(self) -> dict[str, Any]:
        self._file.close()
        return {"bytes": self.size, "sha256": self._hash.hexdigest()}


class SplitWriter:
    """Appends documents to the files of one split; `counts` says what is in them so far."""

    def __init__(self, folder: Path, split: "SplitName", dtype: str, shard_tokens: int) -> None:
        self._folder = folder
        self.split: SplitName = split
        self._dtype = np.dtype(dtype)
        self._shard_tokens = shard_tokens
        self._outputs = {name: self._open(f"{split}.{name}") for name in ("offsets", "bytes", "sentences", "names")}
        self._shard = self._open(f"{split}-00000.ids")
        self._finished: dict[str, dict[str, Any]] = {}
        self._outputs["offsets"].write(np.int64(0).astype("<i8").tobytes())
        self.counts = {"documents": 0, "tokens": 0, "bytes": 0, "sentences": 0, "empty_documents": 0, "empty_bytes": 0}

    def _open(self, name: str) -> _Output:
        return _Output(self._folder / name)

    def add(self, name: str, text: str, ids: np.ndarray, ends: np.ndarray) -> None:
        """Append a document: its id, raw text, token ids and the characters they end at. Without ids, count it."""
        counts = self.counts
        size = len(text.encode())
        if len(ids) == 0:
            counts["empty_documents"] += 1
            counts["empty_bytes"] += size
            return
        sentences = sentence_starts(text, ends) + counts["tokens"]
        self._add_ids(ids)
        counts["documents"] += 1
        counts["tokens"] += len(ids)
        counts["bytes"] += size
        counts["sentences"] += len(sentences)
        self._outputs["offsets"].write(np.array([counts["tokens"]], dtype="<i8").tobytes())
        self._outputs["bytes"].write(np.array([size], dtype="<i8").tobytes())
        self._outputs["sentences"].write(sentences.astype("<i8").tobytes())
        self._outputs["names"].write(json.dumps(name).encode() + b"\n")

    def _add_ids(self, ids: np.ndarray) -> None:
        content = ids.astype(self._dtype)
        while len(content):
            room = self._shard_tokens - self._shard.size // self._dtype.itemsize
            if room == 0:
                self._finish(self._shard)
                number = sum(name.endswith(".ids") for name in self._finished)
                self._shard = self._open(f"{self.split}-{number:05d}.ids")
                room = self._shard_tokens
            self._shard.write(content[:room].tobytes())
            content = content[room:]

    def _finish(self, output: _Output) -> None:
        self._finished[output.path.name] = output.close()

    def close(self) -> dict[str, Any]:
        """Close the files; returns the split's entry of the manifest."""
        for output in (*self._outputs.values(), self._shard):
            self._finish(output)
        return self.counts | {"files": dict(sorted(self._finished.items()))}
