"""WordPiece with a memory of what stands between blanks: the ids of `tokenizers`, many times as fast on ordinary text
(benchmarks/tokenizer.py)."""

import re
from collections.abc import Sequence
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tilth.tokens.ranges import ranges

_CHUNK = re.compile(r"[^ \t\n\r]+")
_MOST_CHARACTERS = 1 << 25
_ENTRY_CHARACTERS = 100
"""What an entry takes beside its own characters, counted in characters."""


class WordPiece:
    """A WordPiece tokenizer that encodes each different chunk of text, from one blank to the next, once.

    Nothing that normalises or splits text for BERT looks across a blank, so that a chunk has the same ids anywhere.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._lock = Lock()  # a server's threads share a tokenizer
        self._forget()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int64 (tokens,)."""
        with self._lock:
            return [self._ids[self._places(numbers)] for numbers in self._look_up(texts)]

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each text, its token ids and the characters they end at, both int64 (tokens,)."""
        encoded = []
        with self._lock:
            for text, numbers in zip(texts, self._look_up(texts), strict=True):
                places = self._places(numbers)
                begins = np.repeat(_chunk_starts(text), self._counts[numbers])
                encoded.append((self._ids[places], self._ends[places] + begins))
        return encoded

    def _look_up(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The number of each chunk of each text, int64 (chunks,)."""
        chunks = [_CHUNK.findall(text) for text in texts]
        new = list(set(chain.from_iterable(chunks)).difference(self._numbers))
        if self._size > _MOST_CHARACTERS:
            self._forget()
            new = list(set(chain.from_iterable(chunks)))
        self._learn(new)
        number = self._numbers.__getitem__
        return [np.fromiter(map(number, part), dtype=np.int64, count=len(part)) for part in chunks]

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        self._size = 0
        # Of each chunk, where its tokens begin in the two arrays below and how many they are.
        self._begins, self._counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._ids, self._ends = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    def _learn(self, chunks: list[str]) -> None:
        if not chunks:
            return
        encodings = self._backend.encode_batch(chunks, add_special_tokens=False)
        self._numbers.update(zip(chunks, range(len(self._numbers), len(self._numbers) + len(chunks)), strict=True))
        self._size += sum(map(len, chunks)) + _ENTRY_CHARACTERS * len(chunks)
        ids = [encoding.ids for encoding in encodings]
        ends = [end for encoding in encodings for _, end in encoding.offsets]
        counts = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        begins = len(self._ids) + np.cumsum(counts) - counts
        self._begins = np.concatenate([self._begins, begins])
        self._counts = np.concatenate([self._counts, counts])
        self._ids = np.concatenate([self._ids, np.fromiter(chain.from_iterable(ids), dtype=np.int64)])
        self._ends = np.concatenate([self._ends, np.array(ends, dtype=np.int64)])

    def _places(self, numbers: np.ndarray) -> np.ndarray:
        return ranges(self._begins[numbers], self._counts[numbers])


def word_piece(backend: Tokenizer, parts: dict[str, Any]) -> WordPiece | None:
    """The fast form of a tokenizer, or None where something else than BERT's way decides its ids.

    parts: the tokenizer.json.
    """
    is_berts = (
        parts["model"]["type"] == "WordPiece"
        and (parts["normalizer"] or {}).get("type", "BertNormalizer") == "BertNormalizer"
        and (parts["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        and all(token["special"] for token in parts["added_tokens"])  # others are looked for inside texts
    )
    return WordPiece(backend) if is_berts else None


def _chunk_starts(text: str) -> np.ndarray:
    """The character that each chunk of a text starts at, int64 (chunks,)."""
    if text.isascii():
        points = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    else:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    is_blank = (points == 32) | (points == 9) | (points == 10) | (points == 13)
    follows_blank = np.concatenate([np.ones(1, dtype=bool), is_blank[:-1]])[: len(is_blank)]
    return np.flatnonzero(~is_blank & follows_blank)
