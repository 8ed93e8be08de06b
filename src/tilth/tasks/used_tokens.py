"""A token table of the tokens that occur, so that a step of fine-tuning does not pass over the rows of all others.

Those rows get no gradient, but their zeros would be summed, clipped and fed to the optimizer with the rest: some 5,000
of the 30,522 rows of a BERT's table, or of the 250,000 of a multilingual model's, occur in a few thousand texts. All
that is not the same is that these rows no longer decay.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from tilth.model.model import Model
from tilth.model.trunk import Embeddings

Pieces = Sequence[Sequence[int]]


class UsedTokens:
    """The tokens that occur in some pieces, and the places of these in a table of their own."""

    def __init__(self, pieces: Pieces, also: int, vocab_size: int) -> None:
        """also: a token id that counts as occurring."""
        occurs = np.zeros(vocab_size, dtype=bool)
        occurs[also] = True
        for ids in pieces:
            occurs[ids] = True
        self.ids = np.flatnonzero(occurs)
        self.places = np.cumsum(occurs) - 1

    def renumbered(self, pieces: Pieces) -> list[list[int]]:
        """Pieces with places instead of token ids."""
        return [self.places[ids].tolist() for ids in pieces]

    @contextmanager
    def alone_in(self, model: Model) -> Iterator[None]:
        """Put their rows in place of the token table of `model`, which gets them back at the end, as they are then."""
        embeddings = model.trunk.embeddings
        assert isinstance(embeddings, Embeddings)  # a generator's are not its own, and it is not fine-tuned
        table = embeddings.tokens
        rows = torch.from_numpy(self.ids).to(table.weight.device)
        embeddings.tokens = nn.Embedding.from_pretrained(table.weight.detach()[rows], freeze=False)
        try:
            yield
        finally:
            with torch.no_grad():
                table.weight[rows] = embeddings.tokens.weight
            embeddings.tokens = table
