"""Muon that orthogonalises matrices of one shape together."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

WIDEST = {"cpu": 256, "cuda": 4096, "mps": 256}
"""Rows and columns beyond which a matrix alone keeps the device busy, and a batched product is the slower one."""
MOST = 32
"""Matrices in a stack, so that the memory for it stays small beside the model."""


class BatchedMuon(torch.optim.Muon):
    """torch's Muon: the same update, but for rounding, and the same state.

    On small matrices its time goes to starting many small products, and each keeps one core busy; one batched product
    for all matrices of a shape took 43 % of it at width 128, 59 % at 256 (benchmarks/muon.py).
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
        together = torch.stack(looked_ahead) if len(looked_ahead) > 1 else looked_ahead[0]
        updates = orthogonalised(together, group["ns_coefficients"], group["ns_steps"], group["eps"])
        # Liu et al. 2025 ("Muon is Scalable"), section 2.2: updates of the size of AdamW's.
        assert group["adjust_lr_fn"] == "match_rms_adamw"
        rate = group["lr"] * 0.2 * max(parameters[0].shape) ** 0.5
        for parameter, update in zip(parameters, updates.view(-1, *parameters[0].shape), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


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


def _stacks(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters that are updated together, in an order that depends on their shapes and places only."""
    shaped = sorted(enumerate(parameters), key=lambda item: (tuple(item[1].shape), item[0]))
    for shape, group in groupby(shaped, key=lambda item: item[1].shape):
        alike = [parameter for _, parameter in group]
        most = MOST if min(shape) <= WIDEST[alike[0].device.type] else 1
        for first in range(0, len(alike), most):
            yield alike[first : first + most]
