"""Muon that orthogonalises maps of one shape together."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

WIDEST = {"cpu": 256, "cuda": 4096, "mps": 256}
"""Rows and columns beyond which a matrix alone keeps the device busy, and a batched product is the slower one."""
MOST = 32
"""Matrices in a stack, so that the memory for it stays small beside the model."""
UPDATE_SIZE = 0.2
"""Root mean square of an update at a rate of 1: about that of AdamW's (Liu et al. 2025, "Muon is Scalable", section
2.2), so that one rate serves both."""


class BatchedMuon(torch.optim.Muon):
    """torch's Muon, but for three things. It orthogonalises the maps that one matrix joins each by itself, those of one
    shape together, and then gives all rows of an update the size of AdamW's.

    Jordan et al. 2024 ("Muon") keep queries, keys and values apart; by heads a model learns faster still
    (benchmarks/NOTES.md). On small matrices the time goes to starting many small products, and each keeps one core
    busy: one batched product for all maps of a shape takes less (benchmarks/muon.py). What is orthogonal and taller
    than wide has rows of all sizes, so that some neurons would learn faster than others; Li et al. 2025 ("NorMuon")
    divide each row by a running mean of its size, here that of the step is enough.
    """

    def __init__(self, matrices: Sequence[Tensor], parts: Sequence[Sequence[int]], **settings: Any) -> None:
        """parts: for each matrix, the rows of each of the maps that it joins."""
        super().__init__(list(matrices), **settings)
        self._parts = dict(zip(matrices, parts, strict=True))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the parameters from their gradients."""
        assert closure is None, "a closure is never needed here"
        for group in self.param_groups:
            assert group["nesterov"]
            maps: list[_Map] = []
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                if "momentum_buffer" not in self.state[matrix]:
                    self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
                whole = (matrix, matrix.grad, self.state[matrix]["momentum_buffer"])
                maps += map(_Map, *(tensor.split(list(self._parts[matrix])) for tensor in whole))
            for alike in _stacks(maps):
                _update(alike, group)


class _Map(NamedTuple):
    weight: Tensor
    gradient: Tensor
    momentum: Tensor


def _update(maps: list[_Map], group: dict[str, Any]) -> None:
    shape = maps[0].weight.shape
    together = maps[0].weight.new_empty(len(maps), *shape)
    for ahead, (_, gradient, momentum) in zip(together, maps, strict=True):
        momentum.lerp_(gradient, 1 - group["momentum"])
        torch.lerp(gradient, momentum, group["momentum"], out=ahead)
    directions = together if len(maps) > 1 else together[0]
    updates = orthogonalised(directions, group["ns_coefficients"], group["ns_steps"], group["eps"]).view(-1, *shape)
    sizes = updates.norm(dim=-1, keepdim=True, dtype=torch.float32).clamp_(min=group["eps"])
    updates.mul_(UPDATE_SIZE * shape[1] ** 0.5 / sizes)
    for (weight, _, _), update in zip(maps, updates, strict=True):
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], iterations: int, eps: float) -> Tensor:
    """A matrix, or a stack of them, with the singular values moved towards 1, in bfloat16.

    The quintic Newton-Schulz iteration of Jordan et al. 2024 ("Muon"), in the order that torch's has it.
    """
    a, b, c = coefficients
    is_tall = matrices.size(-2) > matrices.size(-1)
    values = matrices.bfloat16()
    if is_tall:
        values = values.mT
    values = values / values.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)  # no singular value above 1
    add_product = torch.addmm if values.dim() == 2 else torch.baddbmm
    for _ in range(iterations):
        gram = values @ values.mT
        values = add_product(values, add_product(gram, gram, gram, beta=b, alpha=c), values, beta=a)
    return (values.mT if is_tall else values).contiguous()


def _stacks(maps: list[_Map]) -> Iterator[list[_Map]]:
    """Maps that are updated together, in an order that depends on their shapes and places only."""
    shaped = sorted(enumerate(maps), key=lambda item: (tuple(item[1].weight.shape), item[0]))
    for shape, group in groupby(shaped, key=lambda item: item[1].weight.shape):
        alike = [each for _, each in group]
        most = MOST if min(shape) <= WIDEST[alike[0].weight.device.type] else 1
        for first in range(0, len(alike), most):
            yield alike[first : first + most]
