"""Which of many hashes are in a given set, by a bit table before the exact search: most are not, and cost one look."""

import numpy as np


class HashSet:
    """A fixed set of 64-bit hashes. values: uint64, ascending, each once."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.unique(values.astype(np.uint64))
        bits = min(24, max(12, 3 + int(len(self.values)).bit_length()))
        self._mask = np.uint64(2**bits - 1)
        self._table = np.zeros(2**bits, bool)
        self._table[self.values & self._mask] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in `hashes` (uint64) members are, and which: positions, and indexes into `values`."""
        if not len(self.values):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        positions = np.flatnonzero(self._table[hashes & self._mask])
        found = np.minimum(np.searchsorted(self.values, hashes[positions]), len(self.values) - 1)
        exact = self.values[found] == hashes[positions]
        return positions[exact], found[exact]
