"""Masked language modelling (Devlin et al. 2019, section 3.1; Liu et al. 2019, section 4.1)."""

import math
from typing import ClassVar

import numpy as np
import torch

from tilth.errors import UsageError
from tilth.key import Key
from tilth.objectives.objective import Batch, Predictions, blank_inputs, blank_predictions, row_inputs
from tilth.recipe import Recipe
from tilth.tokens.packing import Framing, Packing
from tilth.tokens.shards import ShardSplit
from tilth.tokens.tokenizer import TextTokenizer

MASKED, RANDOM = 0.8, 0.1
"""BERT's shares of the chosen tokens that become the mask token and a random token; the rest stay (section 3.1)."""


class Masking:
    """Chooses the tokens of a row to predict, and hides them.

    With `fixed` masks a row gets one of `duplicates` maskings, in turn by epoch, as BERT's data is made once; with
    `fresh` masks another in every epoch, as RoBERTa does. The draws depend on (seed, row, copy or epoch) alone.
    """

    def __init__(
        self, recipe: Recipe, tokenizer: TextTokenizer, masked: float = MASKED, random: float = RANDOM
    ) -> None:
        """masked, random: of the chosen tokens, the shares that become the mask token and a random token.

        Raises: UsageError when the tokenizer has no mask token.
        """
        if tokenizer.special.mask is None or tokenizer.special.cls is None or tokenizer.special.sep is None:
            raise UsageError(
                "masked language modelling needs mask, start and separator tokens: "
                "use tokenizer.kind=wordpiece or byte_bpe"
            )
        self.rate = recipe.objective.rate
        self.copies = recipe.objective.duplicates if recipe.objective.masks == "fixed" else None
        self.masked, self.random = masked, random
        self.mask = tokenizer.special.mask
        self.ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), list(tokenizer.special_ids))
        self.is_special = np.zeros(tokenizer.vocab_size, dtype=bool)
        self.is_special[list(tokenizer.special_ids)] = True

    def copy(self, epoch: int) -> int:
        """Which masking of a row an epoch sees."""
        return epoch if self.copies is None else epoch % self.copies

    def apply(
        self, tokens_BS: np.ndarray, real_BS: np.ndarray, indexes: np.ndarray, epochs: np.ndarray, seed: int
    ) -> tuple[np.ndarray, Predictions]:
        """Returns (corrupted tokens (B, S), what to predict). real: where there is no padding. At least one
        token a row is chosen.
        """
        width = tokens_BS.shape[1]
        draws = [
            Key(seed, int(index), f"mask {self.copy(int(epoch))}").generator().random((3, width))
            for index, epoch in zip(indexes, epochs, strict=True)
        ]
        choice, action, replacement = np.stack(draws, axis=1)
        eligible = real_BS & ~self.is_special[tokens_BS]
        eligible_counts = eligible.sum(1)
        wanted = np.minimum(eligible_counts, np.maximum(1, np.rint(self.rate * eligible_counts))).astype(np.int64)
        ranked = np.argsort(np.where(eligible, choice, 2.0), axis=1, kind="stable")
        chosen = np.zeros_like(eligible)
        np.put_along_axis(chosen, ranked, np.arange(width) < wanted[:, None], axis=1)
        random_tokens = self.ordinary[(replacement * len(self.ordinary)).astype(np.int64)]
        corrupted = np.where(chosen & (action < self.masked), self.mask, tokens_BS)
        replaced = chosen & (action >= self.masked) & (action < self.masked + self.random)
        corrupted = np.where(replaced, random_tokens, corrupted)
        return corrupted, Predictions(torch.from_numpy(np.flatnonzero(chosen)), torch.from_numpy(tokens_BS[chosen]))


class Masked:
    """Masked language modelling on packed pieces of documents, each framed as one text."""

    title: ClassVar[str] = "masked language modelling"
    heads: ClassVar[tuple[str, ...]] = ("masked",)

    def __init__(self, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        self.masking = Masking(recipe, tokenizer)
        special = tokenizer.special
        assert special.cls is not None and special.sep is not None
        self.framing = Framing(piece_prefix=(special.cls,), piece_suffix=(special.sep,))
        self.row_length = recipe.data.length
        self.cross_documents = recipe.data.cross_documents
        self.pad = special.pad or 0

    def make_batch(self, packing: Packing, indexes: np.ndarray, epochs: np.ndarray, seed: int) -> Batch:
        rows = packing.rows(indexes)
        tokens, positions, documents = rows.dense(self.pad)
        real = documents >= 0
        corrupted, predictions = self.masking.apply(tokens, real, indexes, epochs, seed)
        inputs = row_inputs(corrupted, positions, documents, self.cross_documents)
        return Batch(inputs, {"masked": predictions}, int(real.sum()), rows.documents)

    def bits_per_byte(self, loss: float, split: ShardSplit) -> float:
        """As if every token cost what a masked one does: comparable between masked models of one masking rate only."""
        return loss * split.num_tokens / split.num_bytes / math.log(2)

    @classmethod
    def blank_batch(cls, recipe: Recipe, rows: int, device: torch.device) -> Batch:
        count = max(1, round(recipe.objective.rate * rows * recipe.data.length))
        inputs = blank_inputs(recipe, rows, device)
        return Batch(inputs, {"masked": blank_predictions(count, inputs)}, inputs.tokens.numel(), np.zeros(0, np.int64))
