"""Watches each attention and feed-forward layer for signs of death or explosion, every few steps.

Names: a layer is `blocks.<number>.attention` or `blocks.<number>.mlp`. Shapes: N tokens, D width.
"""

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tilth.model.model import Model
from tilth.train.monitor import Finding

EVERY = 20
"""Steps between two looks; each costs a copy of the matrices and a few norms."""
_TOKENS = 1024
_REMEMBERED, _NEEDED = 8, 3
DEAD_SHARE, DEAD_LOOKS = 1e-4, 2
EXPLODING_ACTIVATION, EXPLODING_GRADIENT, EXPLODING_UPDATE = 30.0, 100.0, 1.0
EXPLODED_ACTIVATION = 10_000.0


@dataclass
class Look:
    """One layer at one step.

    activation: root mean square of its output. spread: the same of what varies between tokens. gradient: norm over its
    matrices. update: norm of their change, as a share of their own norm.
    """

    activation: float
    spread: float
    gradient: float
    update: float


@dataclass
class LayerMonitor:
    """Judges looks. What it remembers is part of a checkpoint.

    dead: what a layer puts out hardly varies between tokens, or its matrices hardly get a gradient (less than 1e-4 of
    the median layer's), at two looks in a row: it no longer computes, or no longer learns. Between the layers of
    healthy models these figures differ by less than a factor of 100.
    exploding: the update is as large as the weights; or the output is 30 times, or the gradient 100 times, the median
    of the layer's last 8 looks (3 at least); or the output is 10,000 times that of its first look. In healthy runs an
    update is a few percent of the weights, and an output grows some tenfold.
    Each is named once for a layer until a look without it.
    """

    first: dict[str, float] = field(default_factory=dict)
    activations: dict[str, list[float]] = field(default_factory=dict)
    gradients: dict[str, list[float]] = field(default_factory=dict)
    dead_looks: dict[str, int] = field(default_factory=dict)
    exploding: list[str] = field(default_factory=list)

    def take(self, looks: dict[str, Look]) -> list[Finding]:
        """Look at all layers of a step."""
        spread = statistics.median(look.spread for look in looks.values())
        gradient = statistics.median(look.gradient for look in looks.values())
        died, exploded = [], []
        for name, look in looks.items():
            dead = look.spread < DEAD_SHARE * spread or look.gradient < DEAD_SHARE * gradient
            self.dead_looks[name] = self.dead_looks.get(name, 0) + 1 if dead else 0
            if self.dead_looks[name] == DEAD_LOOKS:
                died.append(f"{name} (varies by {look.spread:.2g}, gradient {look.gradient:.2g})")
            reasons = self._explosions(name, look)
            if reasons and name not in self.exploding:
                exploded.append(f"{name} ({', '.join(reasons)})")
            self.exploding = [*(other for other in self.exploding if other != name), *([name] if reasons else [])]
            for memory, value in ((self.activations, look.activation), (self.gradients, look.gradient)):
                if math.isfinite(value):
                    memory[name] = [*memory.get(name, []), value][-_REMEMBERED:]
        findings = []
        if died:
            findings.append(
                Finding(
                    "dead",
                    f"dead layers: {', '.join(died)}, where the median layer varies by {spread:.2g} and has a gradient "
                    f"of {gradient:.2g}. Lower train.lr; a rewind or another seed brings them back",
                )
            )
        if exploded:
            findings.append(Finding("exploding", f"exploding layers: {', '.join(exploded)}. Lower train.lr"))
        return findings

    def _explosions(self, name: str, look: Look) -> list[str]:
        reasons = []
        if look.update > EXPLODING_UPDATE:
            reasons.append(f"an update {look.update:.2g} times the weights")
        first = self.first.setdefault(name, look.activation)
        if look.activation > EXPLODED_ACTIVATION * first > 0:
            reasons.append(f"output {look.activation / first:.0f} times what it was at first")
        for what, memory, value, limit in (
            ("output", self.activations, look.activation, EXPLODING_ACTIVATION),
            ("gradient", self.gradients, look.gradient, EXPLODING_GRADIENT),
        ):
            known = memory.get(name, [])
            if len(known) >= _NEEDED and value > limit * statistics.median(known) > 0:
                reasons.append(f"{what} {value / statistics.median(known):.0f} times what it was")
        return reasons

    def state(self) -> dict[str, Any]:
        """What to keep in a checkpoint, as JSON."""
        return asdict(self)


class LayerProbe:
    """Takes the looks of one step: entered for its first forward pass, read after its gradients and its update.

    It looks at the model's own trunk, not at the generator that replaced-token detection has beside it.
    """

    def __init__(self, model: Model) -> None:
        self._layers = {
            f"blocks.{number}.{name}": layer
            for number, block in enumerate(model.trunk.blocks)
            for name, layer in block.named_children()
            if name in ("attention", "mlp")
        }
        self._outputs: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        self._compiled = [trunk for trunk in model.trunks() if trunk.compiled]

    def __enter__(self) -> None:
        """Look at what passes through the layers."""
        for trunk in self._compiled:  # a compiled step would be compiled anew for each hook
            trunk.compiled = False
        self._hooks = [layer.register_forward_hook(self._taker(name)) for name, layer in self._layers.items()]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for trunk in self._compiled:
            trunk.compiled = True

    def _taker(self, name: str) -> Any:
        def take(_: nn.Module, __: Any, output: Tensor) -> None:
            tokens_ND = output.detach().flatten(0, -2)[:_TOKENS].float()
            size = tokens_ND.square().mean()
            # A single token, where the last block has but one to pass on, says nothing of what varies.
            spread = tokens_ND.var(dim=0, correction=0).mean() if len(tokens_ND) > 1 else size
            self._outputs[name] = torch.stack([size, spread]).sqrt()

        return take

    def before_update(self) -> None:
        """Note the gradients, and the weights that the update will change."""
        self._weights = {name: [matrix.detach().clone() for matrix in _matrices(layer)] for name, layer in self._items}
        self._gradients = {
            name: _norm([matrix.grad for matrix in _matrices(layer) if matrix.grad is not None])
            for name, layer in self._items
        }

    def after_update(self) -> dict[str, Look]:
        """The looks, by layer."""
        figures = []
        for name, layer in self._items:
            before = self._weights[name]
            changes = [new.detach() - old for new, old in zip(_matrices(layer), before, strict=True)]
            update = _norm(changes) / _norm(before).clamp_min(1e-12)
            figures.append(torch.stack([*self._outputs[name], self._gradients[name], update]))
        rows = torch.stack(figures).tolist()
        return {name: Look(*row) for (name, _), row in zip(self._items, rows, strict=True)}

    @property
    def _items(self) -> list[tuple[str, nn.Module]]:
        return list(self._layers.items())


def _matrices(layer: nn.Module) -> list[Tensor]:
    # Biases get a gradient even where nothing else does.
    return [parameter for parameter in layer.parameters() if parameter.dim() == 2]


def _norm(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    return torch.stack([tensor.float().norm() for tensor in tensors]).norm()
