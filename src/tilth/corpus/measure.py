"""How long documents are."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Sizes:
    """Of each document, int64 (documents,). words: runs of characters other than ASCII white space."""

    bytes: np.ndarray
    characters: np.ndarray
    words: np.ndarray


def measure(texts: pa.Array) -> Sizes:
    """Bytes (UTF-8), characters and words of each text."""
    nonspace = pc.MatchSubstringOptions(r"\S+")
    columns = (
        pc.call_function("binary_length", [texts]),
        pc.call_function("utf8_length", [texts]),
        pc.call_function("count_substring_regex", [texts], nonspace),
    )
    return Sizes(*(column.to_numpy().astype(np.int64) for column in columns))
