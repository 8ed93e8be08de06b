"""Words, lines and paragraphs of many documents at once, as arrays: the filters count and compare on these.

A word is a run of letters, marks, numbers and underscores: `\\w+` of Python's `re`, and the combining marks that `re`
leaves out, without which a word of Hindi or Thai falls to pieces. So `don't` is two words. Equal words have equal
hashes; a hash is a polynomial in 64 bits of the characters (Karp and Rabin 1987, "Efficient randomized
pattern-matching algorithms"), taken from one running sum over the text, then mixed.

Time is linear in the characters, and memory is about 60 bytes a character of the `Segments` at hand.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from tilth.corpus.rolling import inverse_powers, powers
from tilth.key import mix

MAX_CHARACTERS = 1_000_000
"""How much of a document the rules look at, from its start."""

OVERLAP = 5_000
"""Characters that two pieces of a longer document share: more than an n-gram has."""

GROUP_CHARACTERS = 200_000
"""Documents are gathered up to this size: large enough to make calls cheap, small enough for the processor's cache."""

WORD, LETTER, BLANK = 1, 2, 4

_NEXT = np.uint64(0xC2B2AE3D27D4EB4F)


class Words(NamedTuple):
    """Arrays (words,). starts, ends: places in `codes`. document: index. hashes: uint64, equal for equal words."""

    starts: np.ndarray
    ends: np.ndarray
    document: np.ndarray
    hashes: np.ndarray


class Lines(NamedTuple):
    """Arrays (lines,) of the lines that hold more than white space, without that around them; also of paragraphs."""

    starts: np.ndarray
    ends: np.ndarray
    document: np.ndarray
    hashes: np.ndarray


class Segments:
    """Some documents, by their first `MAX_CHARACTERS` characters.

    codes: the code points of all, unsigned, each document with a newline on either side. kinds: uint8, flags of each.
    count: how many documents.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        heads = [text[:MAX_CHARACTERS] for text in texts]
        self.count = len(heads)
        self.codes = _code_points("\n" + "".join(f"{head}\n" for head in heads))
        self.kinds = _kinds(self.codes)
        self._bounds = np.cumsum([1] + [len(head) + 1 for head in heads])

    @cached_property
    def words(self) -> Words:
        """All words in order."""
        edges = _edges(self.kinds & WORD)
        starts, ends = edges[::2], edges[1::2]
        return Words(starts, ends, self.document(starts), self._hashes(starts, ends))

    @cached_property
    def lines(self) -> Lines:
        """The lines in order."""
        edges = _edges(self.kinds & BLANK == 0)
        run_starts, run_ends = edges[::2], edges[1::2]  # runs between white space
        newlines = np.flatnonzero(self.codes == 10)
        line = np.searchsorted(newlines, run_starts)
        first = np.flatnonzero(np.diff(line, prepend=-1))
        last = np.append(first[1:], len(line)) - 1 if len(first) else first
        starts, ends = run_starts[first], run_ends[last]
        self._line_numbers = line[first]
        return Lines(starts, ends, self.document(starts), self._hashes(starts, ends))

    @cached_property
    def paragraphs(self) -> Lines:
        """Lines that no blank line divides, together."""
        lines = self.lines
        apart = np.diff(self._line_numbers, prepend=-2) > 1
        apart |= np.diff(lines.document, prepend=-1) != 0
        first = np.flatnonzero(apart)
        last = np.append(first[1:], len(apart)) - 1 if len(first) else first
        starts, ends = lines.starts[first], lines.ends[last]
        return Lines(starts, ends, lines.document[first], self._hashes(starts, ends))

    def ngrams(self, length: int) -> np.ndarray:
        """uint64 (words,): a hash of each word and the `length - 1` after it; see `whole` for which are of use."""
        hashes = self.words.hashes
        values = hashes.copy()
        for offset in range(1, length):
            values *= _NEXT
            values[:-offset] += hashes[offset:]
        return mix(values) if length > 1 else values

    def whole(self, length: int) -> np.ndarray:
        """bool (words,): whether the n-gram that starts at a word ends in the same document."""
        document = self.words.document
        inside = np.zeros(len(document), bool)
        if len(document) >= length:
            inside[: len(document) - length + 1] = document[length - 1 :] == document[: len(document) - length + 1]
        return inside

    def repeated(self, lines: Lines) -> tuple[np.ndarray, np.ndarray]:
        """float64 (count,) each: the share of a document's lines that occurred before in it, and of their characters.

        Lines without a word, such as `* * *`, divide a text and count neither as lines nor as repeated ones.
        """
        word_starts = self.words.starts
        said = np.searchsorted(word_starts, lines.ends) > np.searchsorted(word_starts, lines.starts)
        document, lengths = lines.document[said], (lines.ends - lines.starts)[said]
        keys = lines.hashes[said] + mix(document.astype(np.uint64) + np.uint64(1))
        order = np.argsort(keys, kind="stable")
        later = order[1:][keys[order[1:]] == keys[order[:-1]]]
        counts = self.per_document(document[later]) / np.maximum(self.per_document(document), 1)
        characters = self.per_document(document[later], lengths[later])
        return counts, characters / np.maximum(self.per_document(document, lengths), 1)

    def per_document(self, document: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """(count,): how many times each document occurs in `document`, or the sum of `weights` there."""
        return np.bincount(document, weights, self.count)

    def document(self, starts: np.ndarray) -> np.ndarray:
        """The index of the document that each character is in."""
        return np.searchsorted(self._bounds, starts, side="right") - 1

    def _hashes(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        sums = self._sums
        return mix((sums[ends] - sums[starts]) * inverse_powers(len(sums))[starts])

    @cached_property
    def _sums(self) -> np.ndarray:
        values = self.codes + np.uint64(1)
        values *= powers(len(values))
        sums = np.zeros(len(values) + 1, np.uint64)
        np.cumsum(values, out=sums[1:])
        return sums


def pieces(text: str) -> Iterator[str]:
    """The whole of a document in pieces that `Segments` takes whole; each begins with the end of the one before."""
    yield text[:MAX_CHARACTERS]
    for start in range(MAX_CHARACTERS - OVERLAP, len(text) - OVERLAP, MAX_CHARACTERS - OVERLAP):
        yield text[start : start + MAX_CHARACTERS]


def covered(starts: np.ndarray, length: int, count: int) -> np.ndarray:
    """bool (count,): whether a word is in one of the n-grams of `length` words that begin at `starts`."""
    steps = np.bincount(starts, minlength=count + 1) - np.bincount(starts + length, minlength=count + 1)
    return np.cumsum(steps)[:-1] > 0


def gather(texts: Sequence[str]) -> Iterator[Segments]:
    """The documents in order, in groups of about `GROUP_CHARACTERS`."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= GROUP_CHARACTERS:
            yield Segments(group)
            group, size = [], 0
    if group:
        yield Segments(group)


def word_hashes(text: str) -> np.ndarray:
    """uint64 (words,): the hashes that these words have in any document."""
    return Segments([text]).words.hashes


def _edges(inside: np.ndarray) -> np.ndarray:
    """Where runs of non-zero values start and end, in turn; the first and the last value are zero."""
    flags = inside.view(np.uint8)
    return np.flatnonzero(flags[1:] != flags[:-1]) + 1


def _code_points(text: str) -> np.ndarray:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    narrow = text.encode("utf-16-le", "surrogatepass")
    if len(narrow) == 2 * len(text):
        return np.frombuffer(narrow, "<u2")
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _kinds(codes: np.ndarray) -> np.ndarray:
    """uint8: the flags of each code point."""
    if codes.dtype.itemsize < 4:
        return _narrow_kinds()[codes]
    kinds = _narrow_kinds()[np.minimum(codes, 0xFFFF)]
    high = np.flatnonzero(codes > 0xFFFF)  # few, as a rule; a table of all 1.1 million would take tenths of a second
    found, place = np.unique(codes[high], return_inverse=True)
    kinds[high] = np.array([_kind(code) for code in found.tolist()], np.uint8)[place]
    return kinds


@cache
def _narrow_kinds() -> np.ndarray:
    """uint8 (65536,): the flags of the code points that UTF-16 writes as one unit."""
    return np.array([_kind(code) for code in range(2**16)], np.uint8)


def _kind(code: int) -> int:
    category = unicodedata.category(chr(code))[0]
    if category in "LMN":
        return WORD | LETTER if category == "L" else WORD
    if category in "CZ" and chr(code).isspace():
        return BLANK
    return WORD if code == ord("_") else 0
