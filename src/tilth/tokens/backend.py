"""What `tokenizers` encodes, as arrays."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer


def encode_with_ends(backend: Tokenizer, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each text, its token ids and the characters they end at, both int64 (tokens,)."""
    encoded = []
    for encoding in backend.encode_batch(texts, add_special_tokens=False):
        ids = np.array(encoding.ids, dtype=np.int64)
        ends = np.fromiter(chain.from_iterable(encoding.offsets), dtype=np.int64, count=2 * len(ids))[1::2]
        encoded.append((ids, ends))
    return encoded
