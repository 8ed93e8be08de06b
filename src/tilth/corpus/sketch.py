"""MinHash sketches (Broder 1997, "On the resemblance and containment of documents") of many documents at once.

A document is the set of its shingles: runs of five words of its normalised text. The share of permutations under which
two documents have the same minimum estimates the Jaccard similarity of their sets. Minima are gathered in bands
(Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", 3.4): with `rows` minima in each of `bands` bands, two
documents of similarity J share a band with probability 1 - (1 - J^rows)^bands.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow.compute import MatchSubstringOptions, ReplaceSubstringOptions, call_function

from tilth.corpus.languages import UNSPACED
from tilth.corpus.records import fixed_rows
from tilth.corpus.rolling import inverse_powers, powers
from tilth.key import Key, mix

MAX_BYTES = 1_000_000
"""How much of a document its sketch reads, from the start."""

SLICE_BYTES = 1_000_000
"""Text that is hashed together: the arrays of a slice stay near the processor."""

_MAY_START_UNSPACED = np.zeros(256, bool)
_MAY_START_UNSPACED[[0xE0, 0xE1, *range(0xE3, 0xEA), 0xEF, 0xF0]] = True
"""Bytes with which a character of `UNSPACED` begins in UTF-8; quotation marks and dashes begin with others."""

_PRIME = np.uint64(0x100000001B3)
_SPACE = ord(" ")


@dataclass(frozen=True)
class Bands:
    """How minima are gathered: `bands` bands of `rows` minima each."""

    bands: int
    rows: int


GROUPS = Bands(8, 4)
"""What one split may not divide: joined with probability 0.4 at a similarity of 0.5, 0.89 at 0.7 and 0.98 at 0.8."""

NEAR = Bands(14, 8)
"""Near-duplicates, as FineWeb (Penedo et al. 2024, 3.5) joins them: 0.56 at 0.7, 0.92 at 0.8, and 0.05 at 0.5."""


def sketcher(shingle: int, near: bool) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that replaces the column `normalised` by the bands of each document, values of 8 bytes each.

    shingle: words in a shingle. The column `sketch` holds the bands of `GROUPS` and, with `near`, then those of `NEAR`.
    """
    layouts = [GROUPS, NEAR] if near else [GROUPS]
    count = max(layout.bands * layout.rows for layout in layouts)
    salts = _salts(count)
    width = sum(layout.bands for layout in layouts)

    def sketch(batch: pa.RecordBatch) -> pa.RecordBatch:
        hashed = shingle_hashes(batch["normalised"], shingle)
        parts = [_gather(_minima(hashes, starts, salts), layouts) for hashes, starts in hashed]
        values = np.concatenate(parts).astype("<u8").tobytes() if parts else b""
        column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(8 * width), batch.num_rows, [None, pa.py_buffer(values)]
        )
        return batch.drop_columns(["normalised"]).append_column("sketch", column)

    return sketch


def band_values(column: pa.Array) -> np.ndarray:
    """The column `sketch` as uint64 (documents, bands)."""
    return fixed_rows(column).view("<u8")


def shingle_hashes(texts: pa.Array, shingle: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The hashes of all shingles, in slices of documents that follow one another.

    texts: strings with single spaces between words. A document with fewer words than a shingle is one shingle. Where a
    text has characters of scripts without spaces between words, each of them is a word.
    Yields (hashes, starts): uint64 hashes of the slice's shingles, and where each of its documents starts in them.
    """
    texts = _spaced(texts)
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    content = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    ends = np.minimum(offsets[1:], offsets[:-1] + MAX_BYTES)
    first = 0
    while first < len(texts):
        last = first + 1
        while last < len(texts) and ends[last] - offsets[first] <= SLICE_BYTES:
            last += 1
        base = offsets[first]
        yield _hash_slice(content[base : ends[last - 1]], offsets[first:last] - base, ends[first:last] - base, shingle)
        first = last


def _spaced(texts: pa.Array) -> pa.Array:
    """The texts with spaces around each character of `UNSPACED`."""
    if not _MAY_START_UNSPACED[np.frombuffer(texts.buffers()[2] or b"", np.uint8)].any():
        return texts
    found = call_function("match_substring_regex", [texts], MatchSubstringOptions(f"[{UNSPACED}]"))
    apart = texts.filter(found)
    for pattern, replacement in ((f"([{UNSPACED}])", r" \1 "), (" +", " "), ("^ | $", "")):
        apart = call_function("replace_substring_regex", [apart], ReplaceSubstringOptions(pattern, replacement))
    return call_function("replace_with_mask", [texts, found, apart])


def _hash_slice(
    content: np.ndarray, starts: np.ndarray, ends: np.ndarray, shingle: int
) -> tuple[np.ndarray, np.ndarray]:
    sums = np.zeros(len(content) + 1, np.uint64)
    np.cumsum((content.astype(np.uint64) + np.uint64(1)) * powers(len(content)), out=sums[1:])
    spaces = np.flatnonzero(content == _SPACE)
    after = np.searchsorted(spaces, ends)
    before = np.searchsorted(spaces, starts)
    words = after - before + 1
    firsts = np.cumsum(words) - words
    word_starts, word_ends = np.empty((2, int(words.sum())), np.int64)
    inner = np.ones(len(word_starts), bool)
    inner[firsts] = False
    word_starts[firsts], word_starts[inner] = starts, _between(spaces, before, after) + 1
    inner = np.ones(len(word_ends), bool)
    lasts = firsts + words - 1
    inner[lasts] = False
    word_ends[lasts], word_ends[inner] = ends, _between(spaces, before, after)
    counts = np.maximum(words - shingle + 1, 1)
    shingle_starts = np.cumsum(counts) - counts
    document = np.repeat(np.arange(len(words)), counts)
    first_words = firsts[document] + np.arange(len(document)) - shingle_starts[document]
    last_words = np.minimum(first_words + shingle - 1, lasts[document])
    begin, end = word_starts[first_words], word_ends[last_words]
    return mix((sums[end] - sums[begin]) * inverse_powers(len(sums))[begin]), shingle_starts


def _between(values: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of sorted `values`, those in the ranges [before, after), which follow one another but may leave gaps."""
    counts = after - before
    offsets = np.repeat(before - (np.cumsum(counts) - counts), counts)
    return values[offsets + np.arange(len(offsets))]


def _salts(count: int) -> np.ndarray:
    """The multiplier, odd, and the addend of each permutation of the 32-bit numbers: uint32 (2, permutations)."""
    salts = Key(0, 0, "sketch").generator().integers(0, 2**32, size=(2, count), dtype=np.uint32)
    salts[0] |= np.uint32(1)
    return salts


def _minima(hashes: np.ndarray, starts: np.ndarray, salts: np.ndarray) -> np.ndarray:
    """The least value of each permutation in each document: uint32 (permutations, documents)."""
    values = (hashes >> np.uint64(32)).astype(np.uint32)
    permuted = np.empty_like(values)
    minima = np.empty((salts.shape[1], len(starts)), np.uint32)
    for index, (multiplier, addend) in enumerate(salts.T):
        np.multiply(values, multiplier, out=permuted)
        np.add(permuted, addend, out=permuted)
        np.minimum.reduceat(permuted, starts, out=minima[index])
    return minima


def _gather(minima: np.ndarray, layouts: list[Bands]) -> np.ndarray:
    """The bands of each document: uint64 (documents, bands of all layouts)."""
    columns = []
    for layout in layouts:
        for band in range(layout.bands):
            value = np.full(minima.shape[1], band, np.uint64)
            for row in minima[band * layout.rows : (band + 1) * layout.rows]:
                value = mix(value * _PRIME + row)
            columns.append(value)
    return np.stack(columns, axis=1)
