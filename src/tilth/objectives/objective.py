"""What an objective is, and what it makes of packed rows."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tilth.model.cross_entropy import linear_cross_entropy
from tilth.model.heads import VocabularyHead
from tilth.model.inputs import Inputs
from tilth.model.model import Model
from tilth.tokens.packing import Framing, Packing
from tilth.tokens.shards import ShardSplit


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

    tokens: real tokens read, padding left out. documents: numbers of the documents in it, for the log.
    """

    inputs: Inputs
    predictions: dict[str, Predictions]
    tokens: int
    documents: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """How many predictions each head makes."""
        return {head: len(predictions.targets) for head, predictions in self.predictions.items()}

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved = {
            head: Predictions(predictions.places.to(device), predictions.targets.to(device))
            for head, predictions in self.predictions.items()
        }
        return Batch(self.inputs.to(device), moved, self.tokens, self.documents)


class Objective(Protocol):
    """Corrupts rows and says what to predict.

    `make_batch` is a pure function of its arguments and the seed: equal rows and epochs give equal bytes, in any
    order, on any number of processes. heads: the model's heads it trains, the main one first.
    """

    heads: ClassVar[tuple[str, ...]]
    framing: Framing
    row_length: int
    """Places in a row, for `Packing`."""

    def make_batch(self, packing: Packing, indexes: np.ndarray, epochs: np.ndarray, seed: int) -> Batch:
        """The batch of some rows. indexes, epochs: int64 (B,), the rows' numbers and the epoch of each."""
        ...

    def bits_per_byte(self, loss: float, split: ShardSplit) -> float:
        """Bits for a byte of raw text, from the main head's mean loss in nats."""
        ...


def loss_sums(model: Model, batch: Batch, dtype: torch.dtype) -> dict[str, Tensor]:
    """The sum of the cross-entropy of each head's predictions, in nats, as float32 scalars.

    Sums, not means, so that accumulation over micro-batches and averaging over processes are exact: divide by the
    count of the whole step. The vocabulary projection is computed only at the places to predict.
    """
    hidden_ND = model.encode(batch.inputs, dtype).flatten(0, 1)
    sums: dict[str, Tensor] = {}
    for name, predictions in batch.predictions.items():
        head, chosen_ND = model.heads[name], hidden_ND[predictions.places]
        if isinstance(head, VocabularyHead):
            features_ND = head.features(chosen_ND)
            sums[name] = linear_cross_entropy(
                features_ND, head.token_weight, head.bias, predictions.targets, model.trunk.compiled
            )
        else:
            sums[name] = F.cross_entropy(head(chosen_ND).float(), predictions.targets, reduction="sum")
    return sums


def row_inputs(
    tokens_BS: np.ndarray, positions_BS: np.ndarray, documents_BS: np.ndarray, cross_documents: bool
) -> Inputs:
    """Packed rows as the model's inputs; with cross_documents a row is read as one document."""
    if cross_documents:
        documents_BS = np.where(documents_BS >= 0, 0, -1)
        positions_BS = np.where(documents_BS >= 0, np.arange(tokens_BS.shape[1]), 0)
    return Inputs(torch.from_numpy(tokens_BS), torch.from_numpy(positions_BS), torch.from_numpy(documents_BS))
