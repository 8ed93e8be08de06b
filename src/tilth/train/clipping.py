"""Gradients of a limited size."""

from collections.abc import Iterable

import torch
from torch import Tensor

from tilth.train.sharded import is_sharded


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> float:
    """Scale the gradients so that their norm, over all parameters and processes, is at most `largest`; returns the norm
    before."""
    parameters = list(parameters)
    norm = torch.nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])
    found = float(norm.full_tensor() if is_sharded(norm) else norm)
    if found > largest:  # otherwise a pass over all gradients would multiply them by one
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return found
