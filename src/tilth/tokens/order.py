"""Which rows a step trains on: a pure function of (seed, step), with no loader state to save or replay."""

import numpy as np

from tilth.key import Key, permute


def row_indexes(step: int, rows_per_step: int, num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one optimizer step, and the epoch each belongs to.

    Rows are dealt from an endless sequence in which every epoch is another permutation of `range(num_rows)`, so every
    row comes exactly once per epoch whatever the batch size, and a step may straddle two epochs.
    Returns (indexes, epochs), both int64 (rows_per_step,).
    """
    assert step >= 0 and rows_per_step > 0 and num_rows > 0
    positions = step * rows_per_step + np.arange(rows_per_step, dtype=np.int64)
    epochs, within = np.divmod(positions, num_rows)
    indexes = np.empty_like(positions)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        chosen = epochs == epoch
        indexes[chosen] = permute(within[chosen], num_rows, Key(seed, epoch, "row order"))
    return indexes, epochs
