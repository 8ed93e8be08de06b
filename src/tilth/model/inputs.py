"""What a trunk reads: rows of tokens in which several documents may be packed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tilth.model.segments import piece_bounds, runs_on_segments


@dataclass(frozen=True)
class Inputs:
    """A batch of B rows of S tokens. All tensors but `bounds` are int64 of shape (B, S).

    tokens: token ids. positions: position of a token in its piece; restarts at 0 in every packed piece.
    documents: number of the piece within its row, -1 at padding; attention sees only equal numbers.
    token_types: segment of each token (BERT's sentence A or B), or None for all zero.
    bounds: `documents` as `piece_bounds` puts it, for devices that attend piece by piece; None on others.
    """

    tokens: Tensor
    positions: Tensor
    documents: Tensor
    token_types: Tensor | None = None
    bounds: Tensor | None = None

    def to(self, device: torch.device) -> "Inputs":
        """The same batch on another device; the copy does not wait when the memory is pinned."""
        return self._bounded(device)._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self, device: torch.device) -> "Inputs":
        """The same batch in memory from which a GPU copies by itself, with the bounds that it needs."""
        return self._bounded(device)._moved(Tensor.pin_memory)

    def _bounded(self, device: torch.device) -> "Inputs":
        """With bounds where a device needs them, which are found on the CPU: a GPU would have to be waited for."""
        if self.bounds is not None or not runs_on_segments(device) or self.documents.device.type != "cpu":
            return self
        return replace(self, bounds=piece_bounds(self.documents))

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "Inputs":
        return replace(self, **{name: move(value) for name, value in vars(self).items() if value is not None})

    @classmethod
    def of_rows(cls, tokens: Tensor, lengths: Tensor | None = None) -> "Inputs":
        """One piece per row. tokens (B, S); lengths (B,): real tokens of each row, the rest being padding."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if lengths is None:
            return cls(tokens, positions, torch.zeros_like(tokens))
        return cls(tokens, positions, torch.where(positions < lengths[:, None], 0, -1))

    @classmethod
    def from_pieces(
        cls, pieces: Sequence[Sequence[int]], length: int | None, pad: int
    ) -> tuple["Inputs", Tensor, Tensor, Tensor]:
        """Pack token lists into as few rows as first-fit decreasing finds.

        length: tokens in a row; None takes the longest piece. pad: the id that fills the rest.
        Returns (inputs, row (P,), first (P,), last (P,)): where each piece's first and last token lie.
        """
        assert pieces and all(pieces), "every piece needs at least one token"
        length = length or max(map(len, pieces))
        room: list[int] = []
        members: list[list[int]] = []
        for index in sorted(range(len(pieces)), key=lambda index: -len(pieces[index])):
            size = len(pieces[index])
            assert size <= length, f"a piece of {size} tokens does not fit in a row of {length}"
            row = next((row for row, free in enumerate(room) if free >= size), len(room))
            if row == len(room):
                room.append(length)
                members.append([])
            room[row] -= size
            members[row].append(index)
        width = length - min(room)
        tokens = torch.full((len(room), width), pad, dtype=torch.int64)
        positions = torch.zeros_like(tokens)
        documents = torch.full_like(tokens, -1)
        row_of, first, last = (torch.zeros(len(pieces), dtype=torch.int64) for _ in range(3))
        for row, indexes in enumerate(members):
            start = 0
            for number, index in enumerate(indexes):
                stop = start + len(pieces[index])
                tokens[row, start:stop] = torch.tensor(pieces[index])
                positions[row, start:stop] = torch.arange(stop - start)
                documents[row, start:stop] = number
                row_of[index], first[index], last[index] = row, start, stop - 1
                start = stop
        return cls(tokens, positions, documents), row_of, first, last
