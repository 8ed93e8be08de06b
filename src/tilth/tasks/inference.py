"""Features and logits of many texts, in packed batches, when nothing is learned."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tilth.model.model import Model
from tilth.tasks.task import Task

TOKENS_AT_ONCE = 8192
"""Tokens in one forward pass."""


@torch.no_grad()
def all_features(
    task: Task,
    model: Model,
    pieces: Sequence[list[int]],
    pad: int,
    dtype: torch.dtype = torch.float32,
    update: Callable[[float], None] = lambda done: None,
) -> Tensor:
    """What the head reads for each of N >= 1 texts, (N, D) float32 on the model's device, computed in `dtype`.

    The model must be in evaluation mode. update: called with the number of texts done.
    """
    assert not model.training
    order = sorted(range(len(pieces)), key=lambda index: -len(pieces[index]))
    parts = []
    done = 0
    for indexes in _batches(order, pieces):
        parts.append(task.features(model, [pieces[index] for index in indexes], pad, dtype).float())
        done += len(indexes)
        update(done)
    features = torch.cat(parts)
    return torch.empty_like(features).index_copy_(0, torch.tensor(order, device=features.device), features)


@torch.no_grad()
def all_logits(
    task: Task,
    model: Model,
    pieces: Sequence[list[int]],
    pad: int,
    dtype: torch.dtype = torch.float32,
    update: Callable[[float], None] = lambda done: None,
) -> Tensor:
    """Scores of the labels for each of N texts, (N, C) float32 on the CPU. As `all_features` otherwise."""
    return task.logits(model, all_features(task, model, pieces, pad, dtype, update)).cpu()


def _batches(order: Sequence[int], pieces: Sequence[list[int]]) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for index in order:
        if batch and size + len(pieces[index]) > TOKENS_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += len(pieces[index])
    yield batch
