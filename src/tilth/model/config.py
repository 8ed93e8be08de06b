"""The choices that tell one trunk from another."""

from dataclasses import dataclass
from typing import Literal


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

    def window(self, layer: int) -> int | None:
        """The attention window of one layer, in tokens, the token itself included."""
        return self.windows[layer % len(self.windows)]
