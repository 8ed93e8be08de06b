"""AdamW by torch's function for it, and what it shares with Muon.

torch's own optimizer classes import its compiler when the first one is made, for two seconds and more.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

FUSED_DEVICES = ("cpu", "cuda")
"""Where one kernel updates a parameter."""


class Optimizer:
    """What updates parameters from their gradients. Names are those of torch's optimizers.

    param_groups: dictionaries of `params`, `lr`, `weight_decay` and what a user adds. state: tensors by name of each
    parameter that was updated.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        self.param_groups = list(groups)
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def step(self) -> None:
        """Update the parameters that have gradients."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


class AdamW(Optimizer):
    """Loshchilov and Hutter 2019 ("Decoupled Weight Decay Regularization")."""

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], eps: float = 1e-8) -> None:
        super().__init__(groups)
        self.betas, self.eps = betas, eps

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have gradients."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moved:
                continue
            is_fused = moved[0].device.type in FUSED_DEVICES
            states = [self._state(parameter, is_fused) for parameter in moved]
            adamw(
                moved,
                [parameter.grad for parameter in moved],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=is_fused,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=self.eps,
                maximize=False,
            )

    def _state(self, parameter: Tensor, is_fused: bool) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            # The kernel counts where it computes; other code reads the count, for which a device would be waited for.
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device if is_fused else "cpu")
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state
