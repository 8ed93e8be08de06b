"""Hashes of many parts of a sequence from one running sum (Karp and Rabin 1987).

The sum of `value[i] * BASE**i` over a part, times the inverse of the base to the power of the part's start, depends on
the part alone. All modulo 2^64; mix the result, for its low bits are weak.
"""

import numpy as np

BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(BASE, -1, 2**64)

_LEAST = 2**20
_tables: dict[int, np.ndarray] = {}


def powers(count: int) -> np.ndarray:
    """Powers of the base from 0 on: uint64 (count,)."""
    return _table(BASE, count)


def inverse_powers(count: int) -> np.ndarray:
    """Powers of the base's inverse from 0 on: uint64 (count,)."""
    return _table(_INVERSE, count)


def _table(base: int, count: int) -> np.ndarray:
    table = _tables.get(base)
    if table is None or len(table) < count:
        steps = np.full(max(count, _LEAST), base, np.uint64)
        steps[0] = 1
        table = _tables[base] = np.multiply.accumulate(steps)
    return table[:count]
