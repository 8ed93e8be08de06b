"""Muon that orthogonalises matrices of one shape together."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

LARGEST = 2**18
"""Elements of a matrix, above which one alone keeps the processor busy and a stack only takes memory."""
MOST = 32
"""Matrices in a stack, so that the memory for it stays small beside the model."""


class BatchedMuon(torch.optim.Muon):
    """torch's Muon: the same update, but for rounding, and the same state.

    On small matrices its time goes to starting many small products, and each keeps one core busy; one batched product
    for all matrices of a shape takes a half to a third of it (benchmarks/muon.py).
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the parameters from their gradients."""
        assert closure is None, "a closure is never needed here"
        for group in self.param_groups:
            for parameters in _stacks([parameter for parameter in group["params"] if parameter.grad is not None]):
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        looked_ahead = []
        for parameter in parameters:
            assert parameter.grad is not None
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            momentum = self.state[parameter]["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            looked_ahead.append(parameter.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum)
        updates = orthogonalised(torch.stack(looked_ahead), group["ns_coefficients"], group["ns_steps"], group["eps"])
        # Liu et al. 2025 ("Muon is Scalable"), section 2.2: updates of the size of AdamW's.
        assert group["adjust_lr_fn"] == "match_rms_adamw"
        rate = group["lr"] * 0.2 * max(parameters[0].shape) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonalised(
    matrices_NIO: Tensor, coefficients: tuple[float, float, float], iterations: int, eps: float
) -> Tensor:
    """The matrices (N x I x O) with their singular values moved towards 1, in bfloat16.

    The quintic Newton-Schulz iteration of Jordan et al. 2024 ("Muon"), in the order that torch's has it.
    """
    a, b, c = coefficients
    is_tall = matrices_NIO.size(1) > matrices_NIO.size(2)
    values = matrices_NIO.bfloat16()
    if is_tall:
        values = values.mT
    values = values / values.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # no singular value above 1
    for _ in range(iterations):
        gram = values @ values.mT
        values = torch.baddbmm(values, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), values, beta=a)
    return values.mT if is_tall else values


def _stacks(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters that are updated together, in an order that depends on their shapes and places only."""
    shaped = sorted(enumerate(parameters), key=lambda item: (tuple(item[1].shape), item[0]))
    for shape, group in groupby(shaped, key=lambda item: item[1].shape):
        alike = [parameter for _, parameter in group]
        most = MOST if shape.numel() <= LARGEST else 1
        for first in range(0, len(alike), most):
            yield alike[first : first + most]
