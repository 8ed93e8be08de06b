"""WordPiece with a memory of words: the ids of `tokenizers`, many times as fast on ordinary text
(benchmarks/tokenizer.py)."""

import re
import string
import sys
from collections.abc import Sequence
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from tilth.tokens.ranges import ranges

_BLANKS, _MARKS = " \t\n\r", string.punctuation
_CHUNK = re.compile(f"[^{_BLANKS}{re.escape(_MARKS)}]+|[{re.escape(_MARKS)}]")
# Where nothing of this sets words apart, as in Chinese, a chunk is a sentence or more, and hardly ever comes again.
_LONG_CHUNK = re.compile(f"[^{_BLANKS}{re.escape(_MARKS)}]{{200}}")
_OTHER, _BLANK, _MARK = range(3)
_KINDS = np.zeros(128, dtype=np.int8)  # of ASCII; its last character stands for all beyond
_KINDS[[ord(blank) for blank in _BLANKS]] = _BLANK
_KINDS[[ord(mark) for mark in _MARKS]] = _MARK
_MOST_BYTES = 1 << 28
_ENTRY_BYTES = 120
"""What a chunk takes in memory beside its text and tokens."""


class WordPiece:
    """A WordPiece tokenizer that encodes each different chunk of text once: a mark of ASCII's punctuation, or what
    stands between marks or blanks.

    Nothing that normalises or splits text for BERT looks across either, so that a chunk has the same ids anywhere.
    Threads may share it.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._lock = Lock()
        self._forget()

    def __reduce__(self) -> tuple[type["WordPiece"], tuple[Tokenizer]]:
        return WordPiece, (self._backend,)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int64 (tokens,)."""
        return [tokens[:, 0].astype(np.int64) for tokens in self._encode(texts, with_ends=False)]

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each text, its token ids and the characters they end at, both int64 (tokens,)."""
        encoded = self._encode(texts, with_ends=True)
        return [(tokens[:, 0].astype(np.int64), tokens[:, 1].astype(np.int64)) for tokens in encoded]

    def _encode(self, texts: Sequence[str], with_ends: bool) -> list[np.ndarray]:
        """The (id, end) of each token of each text; without ends, what stands in their place means nothing."""
        has_words = [_LONG_CHUNK.search(text) is None for text in texts]
        words = [text for text, fits in zip(texts, has_words, strict=True) if fits]
        known = iter(self._look_up(words, with_ends))
        others = [text for text, fits in zip(texts, has_words, strict=True) if not fits]
        encodings = iter(self._backend.encode_batch(others, add_special_tokens=False))
        return [next(known) if fits else _tokens([next(encodings)]) for fits in has_words]

    def _look_up(self, texts: list[str], with_ends: bool) -> list[np.ndarray]:
        chunks = [_CHUNK.findall(text) for text in texts]
        with self._lock:
            if self._bytes > _MOST_BYTES:
                self._forget()
            self._learn(list(set(chain.from_iterable(chunks)).difference(self._numbers)))
            number = self._numbers.__getitem__
            numbers = [np.fromiter(map(number, part), dtype=np.int64, count=len(part)) for part in chunks]
            # What others learn later goes behind these rows.
            places, tokens = self._places.rows, self._tokens.rows
        encoded = []
        for text, own in zip(texts, numbers, strict=True):
            begins, counts = places[own].astype(np.int64).T
            of_text = tokens[ranges(begins, counts)]
            if with_ends:
                of_text[:, 1] += np.repeat(_chunk_starts(text), counts)
            encoded.append(of_text)
        return encoded

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        # Of each chunk, the row of its first token and how many tokens it has; of each token, its id and its end.
        self._places, self._tokens = _Table(), _Table()
        self._bytes = 0

    def _learn(self, chunks: list[str]) -> None:
        """A chunk is known only once all else is in place, so that after an interrupt nothing is wrong."""
        if not chunks:
            return
        encodings = self._backend.encode_batch(chunks, add_special_tokens=False)
        tokens = _tokens(encodings)
        counts = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
        begins = len(self._tokens.rows) + np.cumsum(counts) - counts
        first = len(self._places.rows)
        self._tokens.extend(tokens)
        self._places.extend(np.stack([begins, counts], axis=1))
        self._bytes += sum(map(sys.getsizeof, chunks)) + _ENTRY_BYTES * len(chunks) + tokens.nbytes
        self._numbers.update(zip(chunks, range(first, first + len(chunks)), strict=True))


class _Table:
    """int32 (rows, 2), with room for more: to add a few rows to many takes no copy of the many."""

    def __init__(self) -> None:
        self._room, self._used = np.empty((1024, 2), dtype=np.int32), 0

    @property
    def rows(self) -> np.ndarray:
        return self._room[: self._used]

    def extend(self, rows: np.ndarray) -> None:
        used = self._used + len(rows)
        if used > len(self._room):
            larger = np.empty((2 * used, 2), dtype=np.int32)
            larger[: self._used] = self.rows
            self._room = larger
        self._room[self._used : used] = rows
        self._used = used


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


def _tokens(encodings: Sequence[Encoding]) -> np.ndarray:
    """The (id, end) of each token, int32 (tokens, 2)."""
    rows = [(index, end) for each in encodings for index, (_, end) in zip(each.ids, each.offsets, strict=True)]
    return np.array(rows, dtype=np.int32).reshape(-1, 2)


def _chunk_starts(text: str) -> np.ndarray:
    """The character that each chunk of a text starts at, int64 (chunks,)."""
    if text.isascii():
        points = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    else:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    kinds = _KINDS[np.minimum(points, 127)]
    before = np.concatenate([[_BLANK], kinds[:-1]])[: len(kinds)]
    return np.flatnonzero((kinds == _MARK) | ((kinds == _OTHER) & (before != _OTHER)))
