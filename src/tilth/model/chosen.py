"""Some of a batch's tokens: those of which the last block's vectors are wanted."""

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_CHOSEN_SHARE = 0.5
"""Of a batch's tokens. Above that it is no faster to compute the last block for them alone."""


@dataclass(frozen=True)
class Chosen:
    """N of the B x S tokens of a batch, in any order, and the same by row, as attention needs them. All int64.

    places (N,): where they are in the flattened (B * S) batch. by_row (B, M): where they are in each row, M being the
    most in one; what is left over is 0. slots (N,): where each is in the flattened `by_row`.
    """

    places: Tensor
    by_row: Tensor
    slots: Tensor

    @classmethod
    def of(cls, places_N: Tensor, rows: int, length: int) -> "Chosen":
        """Of at least one token. Tensors without values, with which memory is foretold, are as many in each row."""
        if type(places_N) is not Tensor:
            return cls(places_N, places_N.new_zeros(rows, -(-len(places_N) // rows)), places_N)
        row_N = places_N // length
        counts_B = torch.bincount(row_N, minlength=rows)
        order_N = torch.argsort(row_N, stable=True)
        number_N = torch.empty_like(row_N)
        number_N[order_N] = torch.arange(len(row_N)) - (counts_B.cumsum(0) - counts_B)[row_N[order_N]]
        by_row = torch.zeros(rows, int(counts_B.max()), dtype=torch.int64)
        slots_N = row_N * by_row.shape[1] + number_N
        by_row.view(-1)[slots_N] = places_N % length
        return cls(places_N, by_row, slots_N)

    def take(self, values_BSD: Tensor) -> Tensor:
        """Their vectors (N, D)."""
        return values_BSD.flatten(0, 1).index_select(0, self.places)

    def take_by_row(self, values_BHSK: Tensor) -> Tensor:
        """Their vectors by row (B, H, M, K); one row of values serves all rows."""
        index = self.by_row[:, None, :, None].expand(-1, values_BHSK.shape[1], -1, values_BHSK.shape[3])
        return values_BHSK.expand(len(self.by_row), -1, -1, -1).gather(2, index)

    def in_order(self, values_BHMK: Tensor) -> Tensor:
        """From vectors by row, theirs with all heads (N, H * K)."""
        return values_BHMK.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, self.slots)
