"""The choices that tell one trunk from another."""

from dataclasses import dataclass
from typing import Literal

_SIZES = ("vocab_size", "layers", "width", "heads", "head_size", "mlp_width", "max_length", "position_offset")
_SIZES += ("token_types",)
_LARGEST, _MOST_LAYERS = 2**31 - 1, 10_000


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """The shape of a trunk. A family is a preset of these choices, not another model class."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    head_size: int
    mlp_width: int
    max_length: int
    """Longest input in tokens (rows of the position table, without the offset)."""
    attention: Literal["bidirectional", "causal"]
    norm_placement: Literal["before", "after"]
    """Normalise the input of each sub-layer, or the sum after it."""
    activation: Literal["gelu", "gelu_tanh"]
    norm_eps: float
    windows: tuple[int | None, ...] = (None,)
    """Attention window in tokens per layer, repeated over the layers; None attends to the whole document."""
    qkv_bias: bool = True
    position_offset: int = 0
    """First row of the position table in use (RoBERTa keeps the rows up to its padding id free)."""
    token_types: int = 0
    """Rows of the token-type table; 0 for none. Inputs without token types are of type 0."""

    def __post_init__(self) -> None:
        """Raises: ValueError for what is no size of a network."""
        whole = {name: getattr(self, name) for name in _SIZES}
        whole |= {f"window of layer {layer}": window for layer, window in enumerate(self.windows) if window is not None}
        for name, value in whole.items():
            least = 0 if name in ("position_offset", "token_types") else 1
            if type(value) is not int or not least <= value <= _LARGEST:
                raise ValueError(f"{name} is {value!r:.40}, not a whole number from {least} to {_LARGEST:,}")
        if type(self.norm_eps) not in (int, float) or not 0 <= self.norm_eps < 1:
            raise ValueError(f"norm_eps is {self.norm_eps!r:.40}, not a number from 0 to 1")
        if self.layers > _MOST_LAYERS:
            raise ValueError(f"layers is {self.layers:,}, and {_MOST_LAYERS:,} is the most")

    def window(self, layer: int) -> int | None:
        """The attention window of one layer, in tokens, the token itself included."""
        return self.windows[layer % len(self.windows)]
