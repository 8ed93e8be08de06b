"""Optimizers: AdamW, or Muon for the hidden matrices with AdamW for the rest."""

import torch
from torch import Tensor, nn

from tilth.model.model import Model
from tilth.recipe import TrainSettings

ADAM_BETAS = (0.9, 0.98)
"""RoBERTa's (Liu et al. 2019, section 3.1): a shorter memory of squared gradients is steadier at high rates."""


class Optimizers:
    """One or two torch optimizers that step together, with state by parameter name.

    Muon (Jordan et al. 2024) is torch's, with updates scaled to the size of AdamW's (Liu et al. 2025, "Muon is
    Scalable"), so that one learning rate serves both. Weight decay acts on matrices and tables only.
    """

    def __init__(self, model: Model, settings: TrainSettings) -> None:
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        named = list(model.named_parameters())
        matrices = [p for name, p in named if settings.optimizer == "muon" and _is_hidden_matrix(name, p)]
        taken = set(matrices)
        decayed = [p for _, p in named if p not in taken and p.dim() >= 2]
        others = [p for _, p in named if p not in taken and p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = next(model.parameters()).device.type in ("cpu", "cuda")
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=settings.lr, betas=ADAM_BETAS, fused=fused)
        ]
        if matrices:
            self.parts.append(
                torch.optim.Muon(
                    matrices, lr=settings.lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )
        self.peak = settings.lr
        self.updating = False
        """Whether an update has begun and not ended: some parameters may be changed, others not."""

    def set_rate(self, share: float) -> float:
        """Set the learning rate to a share of its peak; returns the rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.peak * share
        return self.peak * share

    def step(self) -> None:
        """Update the parameters from their gradients and clear those."""
        self.updating = True
        for part in self.parts:
            part.step()
            part.zero_grad(set_to_none=True)
        self.updating = False

    def clear(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Every state tensor as `<parameter name>/<state name>`."""
        return {
            f"{self.names[parameter]}/{key}": value
            for part in self.parts
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore a copy of what `state` gave, bit for bit."""
        for part in self.parts:
            for group in part.param_groups:
                for parameter in group["params"]:
                    prefix = f"{self.names[parameter]}/"
                    part.state[parameter] = {
                        name.removeprefix(prefix): value.to(parameter.device, copy=True)
                        for name, value in tensors.items()
                        if name.startswith(prefix)
                    }


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return name.startswith("trunk.blocks.") and parameter.dim() == 2
