"""Text cut into chunks that have the same ids wherever they stand, so that each different one is encoded once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np

from tilth.processors import usable_processors
from tilth.tokens.ranges import ranges

LONGEST_CHUNK = 200
"""Bytes. Where nothing sets words apart, as in Chinese, a chunk is a sentence or more, and hardly ever comes again."""
_MOST_NEW = 0.5
"""Share of some texts' bytes that may be in chunks not yet known. Where most are, few will come again, and to learn
them takes twice as long as to encode the texts."""
_FEW_CHARACTERS = 1 << 11
"""Less text than this is encoded sooner than looked up."""
_MOST_BYTES = 1 << 28
"""What may be remembered before all is forgotten."""
_ENTRY_BYTES = 150
"""What a chunk takes in memory beside its text and tokens."""
_SHARE_CHARACTERS = 1 << 18
"""Text that is worth a thread of its own."""

EncodeWithEnds = Callable[[Sequence[str]], list[tuple[np.ndarray, np.ndarray]]]
"""Of each text, its token ids and the characters they end at, both int64 (tokens,)."""

EncodeChunks = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Of many chunks, how many tokens each has, int64 (chunks,), and of the tokens of all, end to end, their ids and the
characters of their chunk that they end at, both int64 (tokens,)."""


class ChunkMemory:
    """Encodes texts by their chunks, and remembers what each gave. Threads may share it."""

    def __init__(
        self, starts: Callable[[np.ndarray], np.ndarray], encode_chunks: EncodeChunks, encode_texts: EncodeWithEnds
    ) -> None:
        """starts: of the bytes of some UTF-8 (uint8), which begin a chunk (bool); the first of a text always does. The
        ids of a text must be those of its chunks, end to end.

        encode_chunks: what chunks are learnt by. encode_texts: what encodes texts of which nothing is to be remembered:
        a few characters, or those with a chunk that is too long, or with mostly new ones.
        """
        self._starts, self._encode_chunks, self._encode_texts = starts, encode_chunks, encode_texts
        self._lock = Lock()
        self._forget()

    def __reduce__(self) -> tuple[type["ChunkMemory"], tuple[Any, ...]]:
        return type(self), (self._starts, self._encode_chunks, self._encode_texts)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int64 (tokens,). Raises: UnicodeEncodeError for a lone surrogate."""
        return [ids for ids, _ in self._encode(texts, with_ends=False)]

    def encode_with_ends(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each text, its token ids and the characters they end at, both int64 (tokens,).

        Raises: UnicodeEncodeError for a lone surrogate.
        """
        return self._encode(texts, with_ends=True)

    def learn(self, text: str) -> None:
        """Remember the chunks of a text, although most may be new."""
        chunks, _ = _Cut([text], self._starts).different()
        with self._lock:
            self._learn([chunk for chunk in chunks if chunk not in self._numbers])

    def _encode(self, texts: Sequence[str], with_ends: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """Without ends, what stands in their place means nothing."""
        if sum(map(len, texts)) < _FEW_CHARACTERS:
            return self._encode_texts(texts)
        shares = _shares(texts)
        if len(shares) <= 1:
            return self._encode_share(texts, with_ends)
        with ThreadPoolExecutor(len(shares)) as pool:
            encoded = pool.map(lambda share: self._encode_share(share, with_ends), shares)
            return [each for share in encoded for each in share]

    def _encode_share(self, texts: Sequence[str], with_ends: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        cut = _Cut(texts, self._starts)
        if not cut.too_long.any():
            known = self._look_up(cut, with_ends)
            return self._encode_texts(texts) if known is None else known
        rest = [text for text, long in zip(texts, cut.too_long, strict=True) if not long]
        short = iter(self._encode_share(rest, with_ends) if rest else [])
        others = iter(self._encode_texts([text for text, long in zip(texts, cut.too_long, strict=True) if long]))
        return [next(others) if long else next(short) for long in cut.too_long]

    def _look_up(self, cut: "_Cut", with_ends: bool) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """None where most is new."""
        chunks, which = cut.different()
        with self._lock:
            if self._bytes > _MOST_BYTES:
                self._forget()
            new = [chunk for chunk in chunks if chunk not in self._numbers]
            if sum(map(len, new)) > _MOST_NEW * cut.bytes:
                return None
            self._learn(new)
            numbers = np.fromiter(map(self._numbers.__getitem__, chunks), dtype=np.int64, count=len(chunks))
            # What others learn later goes behind these rows.
            places, (ids, ends) = self._places.all, self._tokens.all
        begins, counts = places[:, numbers][:, which]
        of_texts = ranges(begins, counts)
        ids = ids[of_texts]
        ends = ends[of_texts] + np.repeat(cut.first_characters(), counts) if with_ends else ids
        bounds = np.concatenate([[0], np.cumsum(counts)])[cut.first_chunks[1:-1]]
        return list(zip(np.split(ids, bounds), np.split(ends, bounds), strict=True))

    def _forget(self) -> None:
        self._numbers: dict[bytes, int] = {}
        # Of each chunk, the place of its first token and how many tokens it has; of each token, its id and its end.
        self._places, self._tokens = _Pairs(), _Pairs()
        self._bytes = 0

    def _learn(self, chunks: list[bytes]) -> None:
        """A chunk is known only once all else is in place, so that after an interrupt nothing is wrong."""
        if not chunks:
            return
        counts, ids, ends = self._encode_chunks([chunk.decode() for chunk in chunks])
        begins = self._tokens.all.shape[1] + np.cumsum(counts) - counts
        first = self._places.all.shape[1]
        self._tokens.extend(ids, ends)
        self._places.extend(begins, counts)
        self._bytes += sum(map(len, chunks)) + _ENTRY_BYTES * len(chunks) + ids.nbytes + ends.nbytes
        self._numbers.update(zip(chunks, range(first, first + len(chunks)), strict=True))


class _Cut:
    """Texts end to end, cut into chunks.

    bytes: of all. first_chunks: int64 (texts + 1,): the number of each text's first chunk, and how many there are.
    too_long: bool (texts,): whether one of its chunks is.
    """

    def __init__(self, texts: Sequence[str], starts: Callable[[np.ndarray], np.ndarray]) -> None:
        encoded = [text.encode() for text in texts]
        self._content = b"".join(encoded)
        self._values = np.frombuffer(self._content, dtype=np.uint8)
        self.bytes = len(self._content)
        self._is_ascii = self.bytes == sum(map(len, texts))
        first_bytes = np.cumsum([0, *map(len, encoded)])
        begins = starts(self._values)
        begins[first_bytes[first_bytes < len(begins)]] = True
        self._offsets = np.append(np.flatnonzero(begins), len(begins))
        self.first_chunks = np.searchsorted(self._offsets, first_bytes)
        long = np.flatnonzero(np.diff(self._offsets) > LONGEST_CHUNK)
        self.too_long = np.zeros(len(texts), dtype=bool)
        self.too_long[np.searchsorted(self.first_chunks, long, side="right") - 1] = True

    def different(self) -> tuple[list[bytes], np.ndarray]:
        """The different chunks, and of each chunk of the texts, which of these it is."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._offsets), pa.py_buffer(self._content)]
        chunks = pa.Array.from_buffers(pa.large_binary(), len(self._offsets) - 1, buffers)
        found = chunks.dictionary_encode()
        return found.dictionary.to_pylist(), found.indices.to_numpy()

    def first_characters(self) -> np.ndarray:
        """The character of its text that each chunk starts at, int64 (chunks,)."""
        places = self._offsets[:-1]
        if not self._is_ascii:
            within_character = np.flatnonzero((self._values & 0xC0) == 0x80)
            places = places - np.searchsorted(within_character, places)
        of_texts = np.append(places, 0)[self.first_chunks[:-1]]  # texts of no chunk may come last
        return places - np.repeat(of_texts, np.diff(self.first_chunks))


class _Pairs:
    """int64 (2, entries), with room for more: to add a few to many takes no copy of the many."""

    def __init__(self) -> None:
        self._room, self._used = np.empty((2, 1024), dtype=np.int64), 0

    @property
    def all(self) -> np.ndarray:
        return self._room[:, : self._used]

    def extend(self, first: np.ndarray, second: np.ndarray) -> None:
        used = self._used + len(first)
        if used > self._room.shape[1]:
            larger = np.empty((2, 2 * used), dtype=np.int64)
            larger[:, : self._used] = self.all
            self._room = larger
        self._room[:, self._used : used] = first, second
        self._used = used


def starts_by_kinds(content: np.ndarray, kinds: bytes, pairs: bytes) -> np.ndarray:
    """Which bytes of some text begin a chunk, by their kind and that of the byte before: bool (bytes,).

    kinds: of each byte, below 16. pairs: of each two kinds, 16 times the first and the second, whether to cut.
    """
    of_bytes = np.frombuffer(content.tobytes().translate(kinds), dtype=np.uint8)
    cut = np.frombuffer(((of_bytes[:-1] << 4) | of_bytes[1:]).tobytes().translate(pairs), dtype=bool)
    return np.concatenate([np.ones(min(1, len(content)), dtype=bool), cut])


def _shares(texts: Sequence[str]) -> list[Sequence[str]]:
    """Consecutive texts for each thread, of about the same size."""
    ends = np.cumsum([len(text) for text in texts])
    threads = min(usable_processors(), len(texts), int(ends[-1]) // _SHARE_CHARACTERS)
    if threads <= 1:
        return [texts]
    bounds = [0, *np.searchsorted(ends, [ends[-1] * part / threads for part in range(1, threads)]), len(texts)]
    return [texts[begin:end] for begin, end in zip(bounds, bounds[1:], strict=False) if begin < end]
