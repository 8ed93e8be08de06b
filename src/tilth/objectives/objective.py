"""What an objective is, and what it makes of packed rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tilth.model.cross_entropy import Sample, linear_cross_entropy
from tilth.model.heads import VocabularyHead
from tilth.model.inputs import Inputs
from tilth.model.model import Model
from tilth.model.segments import runs_on_segments
from tilth.recipe import Recipe
from tilth.tokens.packing import Framing, Packing
from tilth.tokens.shards import ShardSplit
from tilth.tokens.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Predictions:
    """What one head has to predict.

    places (N,): where in the flattened (B * S) batch; targets (N,): the right token or class. Both int64.
    """

    places: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows made ready for the model: what it reads, and what each head has to predict.

    The main head's predictions come first. tokens: real tokens read, padding left out. documents: numbers of the
    documents in it, for the log. sample: words that stand for the vocabulary where there are gradients, if not all do;
    it lies on the model's device.
    """

    weights: ClassVar[Mapping[str, float]] = {}
    """How often a head's mean loss counts in the whole loss, where it is not once."""

    inputs: Inputs
    predictions: dict[str, Predictions]
    tokens: int
    documents: np.ndarray
    sample: Sample | None = field(default=None, kw_only=True)

    @property
    def counts(self) -> dict[str, int]:
        """How many predictions each head makes."""
        return {head: len(predictions.targets) for head, predictions in self.predictions.items()}

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device; the copy does not wait when the memory is pinned."""
        return self._moved(self.inputs.to(device), lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self, device: torch.device) -> "Batch":
        """The same batch in memory from which a GPU copies by itself."""
        return self._moved(self.inputs.pinned(device), torch.Tensor.pin_memory)

    def _moved(self, inputs: Inputs, move: Callable[[Tensor], Tensor]) -> "Batch":
        moved = {
            head: Predictions(move(predictions.places), move(predictions.targets))
            for head, predictions in self.predictions.items()
        }
        return replace(self, inputs=inputs, predictions=moved)

    def without_predictions(self) -> "Batch":
        """The batch as one that adds nothing to the loss, to the gradient, or to what is counted."""
        nothing = {
            head: Predictions(predictions.places[:0], predictions.targets[:0])
            for head, predictions in self.predictions.items()
        }
        return replace(self, predictions=nothing, tokens=0, documents=self.documents[:0])

    def loss_sums(self, model: Model, dtype: torch.dtype) -> dict[str, Tensor]:
        """The sum of the loss of each head's predictions, in nats, as float32 scalars.

        Sums, not means, so that accumulation over micro-batches and averaging over processes are exact: divide by the
        count of the whole step. The last block, if it can, and the heads are computed only at the places to predict.
        """
        places = torch.cat([predictions.places for predictions in self.predictions.values()])
        hidden = model.encode(self.inputs, dtype, places).split(list(self.counts.values()))
        return {
            name: cross_entropy_sum(model, name, hidden_ND, predictions.targets, self.sample)
            for (name, predictions), hidden_ND in zip(self.predictions.items(), hidden, strict=True)
        }

    def loss(self, sums: Mapping[str, Tensor], counts: Mapping[str, float]) -> Tensor:
        """The loss to minimise: the mean of each head by its weight. counts: predictions of each in the whole step."""
        means = [self.weights.get(head, 1.0) * total / max(1, counts[head]) for head, total in sums.items()]
        return torch.stack(means).sum()


class Objective(Protocol):
    """Corrupts rows and says what to predict.

    `make_batch` is a pure function of its arguments and the seed: equal rows and epochs give equal bytes, in any
    order, on any number of processes. title: what it is called in words. heads: the model's heads it trains.
    """

    title: ClassVar[str]
    heads: ClassVar[tuple[str, ...]]
    framing: Framing
    row_length: int
    """Places in a row, for `Packing`."""

    def __init__(self, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        """Raises: UsageError when the tokenizer lacks a token it needs."""
        ...

    def make_batch(self, packing: Packing, indexes: np.ndarray, epochs: np.ndarray, seed: int) -> Batch:
        """The batch of some rows. indexes, epochs: int64 (B,), the rows' numbers and the epoch of each."""
        ...

    def bits_per_byte(self, loss: float, split: ShardSplit) -> float:
        """Bits for a byte of raw text, from the main head's mean loss in nats."""
        ...

    @classmethod
    def blank_batch(cls, recipe: Recipe, rows: int, device: torch.device) -> Batch:
        """A batch of full rows with as many predictions as it makes of them, every id 0: what a step holds."""
        ...


def cross_entropy_sum(
    model: Model, name: str, hidden_ND: Tensor, targets_N: Tensor, sample: Sample | None = None
) -> Tensor:
    """The sum of the cross-entropy of a head's predictions, in nats, as a float32 scalar."""
    head = model.heads[name]
    if isinstance(head, VocabularyHead):
        features_ND, weight_VD, fused = head.features(hidden_ND), head.token_weight, model.trunk.compiled
        return linear_cross_entropy(features_ND, weight_VD, head.bias, targets_N, fused, sample)
    return F.cross_entropy(head(hidden_ND).float(), targets_N, reduction="sum")


def blank_inputs(recipe: Recipe, rows: int, device: torch.device) -> Inputs:
    """Full rows of id 0: each one piece for devices that attend piece by piece, and two for others, where rows of one
    need less memory than most do."""
    tokens, positions, documents = (blank((rows, recipe.data.length), device) for _ in range(3))
    bounds = torch.empty(0, dtype=torch.int32, device=device) if runs_on_segments(device) else None
    if bounds is None:
        documents[:, recipe.data.length // 2 :] = 1
    return Inputs(tokens, positions, documents, bounds=bounds)


def blank(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Zeros, int64."""
    return torch.zeros(shape, dtype=torch.int64, device=device)


def blank_predictions(count: int, inputs: Inputs) -> Predictions:
    """As many predictions of 0, at places that are spread evenly over the rows."""
    device, num_tokens = inputs.tokens.device, inputs.tokens.numel()
    return Predictions(torch.arange(count, device=device) * num_tokens // count, blank((count,), device))


def row_inputs(
    tokens_BS: np.ndarray, positions_BS: np.ndarray, documents_BS: np.ndarray, cross_documents: bool
) -> Inputs:
    """Packed rows as the model's inputs; with cross_documents a row is read as one document."""
    if cross_documents:
        documents_BS = np.where(documents_BS >= 0, 0, -1)
        positions_BS = np.where(documents_BS >= 0, np.arange(tokens_BS.shape[1]), 0)
    return Inputs(torch.from_numpy(tokens_BS), torch.from_numpy(positions_BS), torch.from_numpy(documents_BS))
