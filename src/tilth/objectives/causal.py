"""Causal language modelling (Radford et al. 2018, section 3.1): predict each token from those before it."""

import math
from typing import ClassVar

import numpy as np
import torch

from tilth.errors import UsageError
from tilth.objectives.objective import Batch, Predictions, blank_inputs, blank_predictions, row_inputs
from tilth.recipe import Recipe
from tilth.tokens.packing import Framing, Packing
from tilth.tokens.shards import ShardSplit
from tilth.tokens.tokenizer import TextTokenizer


class Causal:
    """A document is read as end-of-text, its tokens, end-of-text; every transition is predicted once an epoch."""

    title: ClassVar[str] = "causal language modelling"
    heads: ClassVar[tuple[str, ...]] = ("causal",)

    def __init__(self, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        """Raises: UsageError when the tokenizer has no end-of-text token."""
        end = tokenizer.special.eot
        if end is None:
            raise UsageError(
                "causal language modelling needs an end-of-text token: use tokenizer.kind=byte_bpe or characters"
            )
        self.framing = Framing(document_prefix=(end,), document_suffix=(end,), overlap=1)
        self.row_length = recipe.data.length + 1
        self.cross_documents = recipe.data.cross_documents
        self.pad = end

    def make_batch(self, packing: Packing, indexes: np.ndarray, epochs: np.ndarray, seed: int) -> Batch:
        rows = packing.rows(indexes)
        tokens, positions, documents = rows.dense(self.pad)
        continues = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
        inputs = row_inputs(
            np.ascontiguousarray(tokens[:, :-1]),
            np.ascontiguousarray(positions[:, :-1]),
            np.ascontiguousarray(documents[:, :-1]),
            self.cross_documents,
        )
        places = torch.from_numpy(np.flatnonzero(continues))
        targets = torch.from_numpy(tokens[:, 1:][continues])
        return Batch(
            inputs, {"causal": Predictions(places, targets)}, int((documents[:, :-1] >= 0).sum()), rows.documents
        )

    def bits_per_byte(self, loss: float, split: ShardSplit) -> float:
        """The end of each document is predicted too, and paid for."""
        return loss * (split.num_tokens + split.num_documents) / split.num_bytes / math.log(2)

    @classmethod
    def blank_batch(cls, recipe: Recipe, rows: int, device: torch.device) -> Batch:
        inputs = blank_inputs(recipe, rows, device)
        count = inputs.tokens.numel()
        return Batch(inputs, {"causal": blank_predictions(count, inputs)}, count, np.zeros(0, np.int64))
