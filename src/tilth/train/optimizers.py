"""Optimizers: AdamW, or Muon for the hidden matrices with AdamW for the rest."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tilth.model.layers import Linear
from tilth.model.model import TABLE_RATE, Model
from tilth.recipe import TrainSettings
from tilth.train.adamw import AdamW, Optimizer
from tilth.train.batched_muon import BatchedMuon
from tilth.train.distributed import World
from tilth.train.parallel import gathered, spread
from tilth.train.sharded import is_sharded

if TYPE_CHECKING:
    from tilth.train.whole_matrix_muon import WholeMatrixMuon

ADAM_BETAS = (0.9, 0.98)
"""RoBERTa's (Liu et al. 2019, section 3.1): a shorter memory of squared gradients is steadier at high rates."""


class Optimizers:
    """One or two optimizers that step together, with state by parameter name.

    Muon (Jordan et al. 2024) has updates scaled to the size of AdamW's (Liu et al. 2025, "Muon is Scalable"), so that
    one learning rate serves both; queries, keys and values of each head, and what a gate lets pass, are matrices of
    their own to it. Tables to which blocks add take a multiple of that rate. Weight decay acts on matrices and tables
    only.
    """

    def __init__(self, model: Model, settings: TrainSettings, world: World | None = None) -> None:
        self.world = world or World()
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        named = list(model.named_parameters())
        matrices = [p for name, p in named if settings.optimizer == "muon" and _is_hidden_matrix(name, p)]
        tables = [p for name, p in named if name.startswith("trunk.embeddings.") and p.dim() >= 2]
        taken = {*matrices, *tables}
        others = [p for _, p in named if p not in taken]
        table_rate = TABLE_RATE if model.config.adds_to_tables else 1.0
        groups = [
            {"params": tables, "times": table_rate, "weight_decay": settings.weight_decay},
            {"params": [p for p in others if p.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.parts: list[Optimizer] = [AdamW(groups, ADAM_BETAS)]
        self.sharded_muon: WholeMatrixMuon | None = None
        if matrices:
            joined = joined_maps(model)
            maps = [joined[matrix] for matrix in matrices]
            rates = (settings.lr, settings.weight_decay)
            if is_sharded(matrices[0]):
                from tilth.train import whole_matrix_muon

                self.sharded_muon = whole_matrix_muon.WholeMatrixMuon(matrices, maps, self.world, *rates)
            self.parts.append(self.sharded_muon or BatchedMuon(matrices, maps, *rates))
        self.peak = settings.lr
        self.set_rate(1.0)

    def set_rate(self, share: float) -> float:
        """Set the learning rate to a share of its peak; returns the rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.peak * share * group.get("times", 1.0)
        return self.peak * share

    def step(self) -> None:
        """Update the parameters from their gradients and clear those."""
        for part in self.parts:
            part.step()
            part.zero_grad()

    def clear(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Every state tensor, whole, as `<parameter name>/<state name>`, on the first process; all must call it."""
        local = {
            f"{self.names[parameter]}/{key}": value
            for part in self.parts
            if part is not self.sharded_muon
            for parameter, state in part.state.items()
            for key, value in state.items()
        }
        found = gathered(local, self.world)
        if self.sharded_muon is not None:
            for index, matrix in enumerate(self.sharded_muon.sharded):
                momentum = self.sharded_muon.momentum(index)
                if self.world.is_first:
                    found[f"{self.names[matrix]}/momentum_buffer"] = momentum.cpu()
        return found

    def load_state(self, tensors: dict[str, Tensor] | None) -> None:
        """Restore a copy of what `state` gave, bit for bit, on any number of processes.

        tensors: given on the first process, None on the others.
        """
        names = self.world.share(sorted(tensors or {}))
        tensors = tensors or {}
        for part in self.parts:
            if part is self.sharded_muon:
                continue
            for group in part.param_groups:
                for parameter in group["params"]:
                    prefix = f"{self.names[parameter]}/"
                    part.state[parameter] = {
                        name.removeprefix(prefix): spread(tensors.get(name), _like(name, parameter), self.world)
                        for name in names
                        if name.startswith(prefix)
                    }
        for index, matrix in enumerate(self.sharded_muon.sharded if self.sharded_muon else ()):
            name = f"{self.names[matrix]}/momentum_buffer"
            if self.sharded_muon is not None and name in names:
                whole = torch.empty(matrix.shape, device=matrix.device)
                self.sharded_muon.set_momentum(index, spread(tensors.get(name), whole, self.world))


def joined_maps(module: nn.Module) -> dict[Tensor, int]:
    """How many maps of one shape each matrix of a linear layer joins."""
    return {layer.weight: layer.maps for layer in module.modules() if isinstance(layer, Linear)}


def _like(name: str, parameter: Tensor) -> Tensor:
    """A tensor of the shape, type and place of a parameter's state of that name."""
    return torch.empty((), device=parameter.device) if name.endswith("/step") else parameter


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return name.removeprefix("generator.").startswith("trunk.blocks.") and parameter.dim() == 2
