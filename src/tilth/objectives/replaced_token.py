"""Replaced-token detection (Clark et al. 2020, section 3).

A small generator learns to fill in masked tokens. What it draws for them is put in their place, and the model learns to
tell at every token whether it is the original one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tilth.key import Key
from tilth.model.heads import VocabularyHead
from tilth.model.inputs import Inputs
from tilth.model.model import Model
from tilth.objectives.masked import Masked, Masking
from tilth.objectives.objective import Batch, Predictions, blank_predictions, cross_entropy_sum
from tilth.recipe import Recipe
from tilth.tokens.packing import Packing
from tilth.tokens.shards import ShardSplit
from tilth.tokens.tokenizer import TextTokenizer

DETECTION_WEIGHT = 50.0
"""What the loss of detection counts beside the generator's (Clark et al. 2020, appendix A)."""

DRAWN_LOGITS = 2**25
"""Probabilities held in float32 at once."""


class ReplacedToken(Masked):
    """Masked tokens for the generator, replaced ones for the model; every real token is learnt from."""

    title: ClassVar[str] = "replaced-token detection"
    heads: ClassVar[tuple[str, ...]] = ("replaced_token",)

    def __init__(self, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        super().__init__(recipe, tokenizer)
        # All chosen tokens are masked: the model never sees the mask, so that none has to be left as it is for it.
        self.masking = Masking(recipe, tokenizer, masked=1.0, random=0.0)

    def make_batch(self, packing: Packing, indexes: np.ndarray, epochs: np.ndarray, seed: int) -> Batch:
        batch = super().make_batch(packing, indexes, epochs, seed)
        masked = batch.predictions["masked"]
        width = batch.inputs.tokens.shape[1]
        draws_BS = [
            Key(seed, int(index), f"replacement {self.masking.copy(int(epoch))}").generator().random(width, np.float32)
            for index, epoch in zip(indexes, epochs, strict=True)
        ]
        draws_N = torch.from_numpy(np.concatenate(draws_BS))[masked.places]
        real = torch.from_numpy(np.flatnonzero(batch.inputs.documents.numpy() >= 0))
        # Whether they are replaced is known once the generator has drawn.
        detection = Predictions(real, torch.zeros_like(real))
        return ReplacedTokenBatch(
            batch.inputs, {"masked": masked, "replaced_token": detection}, batch.tokens, batch.documents, draws_N
        )

    def bits_per_byte(self, loss: float, split: ShardSplit) -> float:
        """The generator's: how hard the replacements are, not how well the model tells them."""
        return super().bits_per_byte(loss, split)

    @classmethod
    def blank_batch(cls, recipe: Recipe, rows: int, device: torch.device) -> Batch:
        batch = super().blank_batch(recipe, rows, device)
        draws_N = torch.zeros(batch.counts["masked"], device=device)
        predictions = batch.predictions | {"replaced_token": blank_predictions(batch.tokens, batch.inputs)}
        return ReplacedTokenBatch(batch.inputs, predictions, batch.tokens, batch.documents, draws_N)


@dataclass(frozen=True)
class ReplacedTokenBatch(Batch):
    """Rows with masked tokens. draws (N,): a uniform number from [0, 1) for each, by which it is replaced."""

    weights: ClassVar[Mapping[str, float]] = {"replaced_token": DETECTION_WEIGHT}

    draws: Tensor

    def _moved(self, inputs: Inputs, move: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(super()._moved(inputs, move), draws=move(self.draws))

    def without_predictions(self) -> "Batch":
        return replace(super().without_predictions(), draws=self.draws[:0])

    def loss_sums(self, model: Model, dtype: torch.dtype) -> dict[str, Tensor]:
        """The generator's cross-entropy at masked tokens, and that of the model's verdict on every token."""
        generator = model.generator
        assert generator is not None
        head, masked, detection = generator.heads["masked"], *self.predictions.values()
        assert isinstance(head, VocabularyHead)
        chosen_ND = generator.encode(self.inputs, dtype, masked.places)
        replacements_N = draw_tokens(head, chosen_ND, self.draws)
        tokens_BS, replaced_BS = self.inputs.tokens.clone(), torch.zeros_like(self.inputs.tokens)
        tokens_BS.view(-1)[masked.places] = replacements_N
        # A draw of the original token is an original token.
        replaced_BS.view(-1)[masked.places] = (replacements_N != masked.targets).long()
        hidden_ND = model.encode(replace(self.inputs, tokens=tokens_BS), dtype, detection.places)
        logits_N = model.heads["replaced_token"](hidden_ND).float()
        labels_N = replaced_BS.view(-1)[detection.places].float()
        return {
            "masked": cross_entropy_sum(generator, "masked", chosen_ND, masked.targets),
            "replaced_token": F.binary_cross_entropy_with_logits(logits_N, labels_N, reduction="sum"),
        }


@torch.no_grad()
def draw_tokens(head: VocabularyHead, hidden_ND: Tensor, draws_N: Tensor) -> Tensor:
    """A token of each row from the head's probabilities, by a uniform number from [0, 1): the first whose cumulative
    probability is above it. Returns (N,) int64.

    Probabilities are added up as whole numbers of 2**-40, which gives the same sums in any order: on a GPU too.
    """
    tokens = []
    rows = max(1, DRAWN_LOGITS // len(head.token_weight))
    for hidden, draws in zip(hidden_ND.split(rows), draws_N.split(rows), strict=True):
        cumulative = (torch.softmax(head(hidden).float(), dim=-1) * 2.0**40).long().cumsum_(dim=-1)
        limits = (draws[:, None].double() * cumulative[:, -1:]).long()
        tokens.append(torch.searchsorted(cumulative, limits, right=True)[:, 0])
    return torch.cat(tokens)
