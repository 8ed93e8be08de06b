"""Loss on documents that the run does not train on."""

from dataclasses import dataclass

import torch

from tilth.objectives.objective import Batch
from tilth.train.parallel import Replica


@dataclass(frozen=True)
class HeldOut:
    """Mean loss in nats per prediction: of all heads together, by their weights, and of each."""

    loss: float
    parts: dict[str, float]


@torch.no_grad()  # not inference_mode, whose tensors FSDP could not use in training again
def held_out_loss(replica: Replica, batches: list[Batch]) -> HeldOut:
    """Evaluate fixed batches, of which every process has its share, dropout off; leaves the model's mode as it was."""
    was_training = replica.model.training
    replica.model.eval()
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for batch in batches:
        for head, total in replica.loss_sums(batch).items():
            sums[head] = sums.get(head, 0.0) + float(total)
            counts[head] = counts.get(head, 0) + batch.counts[head]
    replica.model.train(was_training)
    totals = replica.world.sum([*sums.values(), *counts.values()])
    parts = {head: totals[number] / max(1, totals[len(sums) + number]) for number, head in enumerate(sums)}
    weights = batches[0].weights if batches else {}
    return HeldOut(sum(weights.get(head, 1.0) * part for head, part in parts.items()), parts)
