"""WordPiece with a memory of words: the ids of `tokenizers`, many times as fast on ordinary text
(benchmarks/tokenizer.py)."""

import string
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tilth.tokens.backend import encode_with_ends
from tilth.tokens.chunk_memory import ChunkMemory, starts_by_kinds

_OTHER, _BLANK, _MARK = range(3)
_KINDS = bytes(
    _BLANK if chr(byte) in " \t\n\r" else _MARK if chr(byte) in string.punctuation else _OTHER for byte in range(256)
)
_CUTS = bytes(pair % 16 == _MARK or (pair % 16 == _OTHER and pair // 16 != _OTHER) for pair in range(256))
_JOINED_CHUNKS = 2048
"""Some 16,000 characters: in all, texts enough to give each thread of `tokenizers` work."""


def word_piece(backend: Tokenizer, parts: dict[str, Any]) -> ChunkMemory | None:
    """The fast form of a tokenizer, or None where something else than BERT's way decides its ids.

    parts: the tokenizer.json.

    A chunk is a mark of ASCII's punctuation, or what stands between marks or blanks, with the blanks after it. Nothing
    that normalises or splits text for BERT looks across either.
    """
    is_berts = (
        parts["model"]["type"] == "WordPiece"
        and (parts["normalizer"] or {}).get("type", "BertNormalizer") == "BertNormalizer"
        and (parts["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        and all(token["special"] for token in parts["added_tokens"])  # others are looked for inside texts
    )
    if not is_berts:
        return None
    starts = partial(starts_by_kinds, kinds=_KINDS, pairs=_CUTS)
    return ChunkMemory(starts, partial(_encode_chunks, backend), partial(encode_with_ends, backend))


def _encode_chunks(backend: Tokenizer, chunks: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Many chunks in one text, with a blank after each, so that `tokenizers` is asked for a few texts."""
    counts, of_ids, of_ends = [], [], []
    groups = [chunks[first : first + _JOINED_CHUNKS] for first in range(0, len(chunks), _JOINED_CHUNKS)]
    for group, (ids, ends) in zip(groups, encode_with_ends(backend, list(map("\n".join, groups))), strict=True):
        sizes = np.fromiter(map(len, group), dtype=np.int64, count=len(group)) + 1
        begins = np.cumsum(sizes) - sizes
        own = np.diff(np.searchsorted(ends, begins, side="right"), append=len(ends))
        counts.append(own)
        of_ids.append(ids)
        of_ends.append(ends - np.repeat(begins, own))
    return np.concatenate(counts), np.concatenate(of_ids), np.concatenate(of_ends)
