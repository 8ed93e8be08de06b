"""Loss on documents that the run does not train on."""

from dataclasses import dataclass

import torch

from tilth.model.model import Model
from tilth.objectives.objective import Batch, loss_sums


@dataclass(frozen=True)
class HeldOut:
    """Mean loss in nats per prediction: of all heads together, and of each."""

    loss: float
    parts: dict[str, float]


@torch.inference_mode()
def held_out_loss(model: Model, batches: list[Batch], device: torch.device, dtype: torch.dtype) -> HeldOut:
    """Evaluate fixed batches, dropout off; leaves the model's mode as it was."""
    was_training = model.training
    model.eval()
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for batch in batches:
        for head, total in loss_sums(model, batch.to(device), dtype).items():
            sums[head] = sums.get(head, 0.0) + float(total)
            counts[head] = counts.get(head, 0) + batch.counts[head]
    model.train(was_training)
    parts = {head: sums[head] / max(1, counts[head]) for head in sums}
    return HeldOut(sum(parts.values()), parts)
