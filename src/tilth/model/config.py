"""The choices that tell one trunk from another."""

import math
from dataclasses import dataclass, replace
from typing import Literal

_SIZES = ("vocab_size", "layers", "width", "heads", "head_size", "mlp_width", "max_length", "position_offset")
_SIZES += ("token_types", "kv_heads", "embedding_width")
_OPTIONAL = ("position_offset", "token_types", "kv_heads", "embedding_width")
_LARGEST, MOST_LAYERS = 2**31 - 1, 10_000


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
    """Longest input in tokens (with learned positions, rows of their table without the offset)."""
    attention: Literal["bidirectional", "causal"]
    norm_placement: Literal["before", "after"]
    """Normalise the input of each sub-layer, or the sum after it."""
    activation: Literal["gelu", "gelu_tanh", "geglu", "swiglu"]
    """Of the feed-forward layer; geglu and swiglu gate one half of it with the other (Shazeer 2020)."""
    norm_eps: float
    norm: Literal["layer", "rms"] = "layer"
    embedding_norm: bool = False
    """With norm_placement before: normalise the embeddings, and not again at the first block's attention."""
    windows: tuple[int | None, ...] = (None,)
    """Attention window in tokens per layer, repeated over the layers; None attends to the whole document. To each side
    where attention is bidirectional."""
    rope_thetas: tuple[float, ...] = ()
    """Base of rotary positions per layer, repeated over the layers (Su et al. 2021); empty for a table of positions."""
    kv_heads: int = 0
    """Heads of keys and values, each shared by a group of query heads (Ainslie et al. 2023); 0 for as many as heads."""
    qk_norm: bool = False
    """RMS-normalise each head's queries and keys (Henry et al. 2020; Dehghani et al. 2023)."""
    bias: bool = True
    """Biases in norms and in linear layers but those of queries, keys and values."""
    qkv_bias: bool = True
    tied: bool = True
    """Score the vocabulary with the token table (Press and Wolf 2017), not with a matrix of its own."""
    embedding_width: int = 0
    """Width of the tables, projected to that of the blocks (Lan et al. 2020, section 3.1); 0 for the same."""
    position_offset: int = 0
    """First row of the position table in use (RoBERTa keeps the rows up to its padding id free)."""
    token_types: int = 0
    """Rows of the token-type table; 0 for none. Inputs without token types are of type 0."""

    generator_size: float = 0.0
    """Width of the generator that replaced-token detection trains beside the trunk, as a share of its own (Clark et al.
    2020, section 3.2); 0 for none."""

    def __post_init__(self) -> None:
        """Raises: ValueError for what is no size of a network."""
        whole = {name: getattr(self, name) for name in _SIZES}
        whole |= {f"window of layer {layer}": window for layer, window in enumerate(self.windows) if window is not None}
        for name, value in whole.items():
            least = 0 if name in _OPTIONAL else 1
            if type(value) is not int or not least <= value <= _LARGEST:
                raise ValueError(f"{name} is {value!r:.40}, not a whole number from {least} to {_LARGEST:,}")
        if type(self.norm_eps) not in (int, float) or not 0 <= self.norm_eps < 1:
            raise ValueError(f"norm_eps is {self.norm_eps!r:.40}, not a number from 0 to 1")
        if not all(type(theta) in (int, float) and 0 < theta < math.inf for theta in self.rope_thetas):
            raise ValueError(f"rope_thetas is {self.rope_thetas!r:.40}, not numbers above 0")
        if self.rope_thetas and self.head_size % 2:
            raise ValueError(f"rotary positions turn pairs, and the head size {self.head_size} is odd")
        if self.heads % self.num_kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.num_kv_heads} heads of keys and values evenly")
        if type(self.generator_size) not in (int, float) or not 0 <= self.generator_size <= 1:
            raise ValueError(f"generator_size is {self.generator_size!r:.40}, not a number from 0 to 1")
        if self.layers > MOST_LAYERS:
            raise ValueError(f"layers is {self.layers:,}, and {MOST_LAYERS:,} is the most")

    @property
    def num_kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def adds_to_tables(self) -> bool:
        """Whether the blocks add to the embeddings as the tables have them, so that these weigh by their size."""
        return self.norm_placement == "before" and not self.embedding_norm

    @property
    def table_width(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_width or self.width

    def window(self, layer: int) -> int | None:
        """The attention window of one layer, in tokens, the token itself included."""
        return self.windows[layer % len(self.windows)]

    def rope_theta(self, layer: int) -> float | None:
        """The base of one layer's rotary positions; None where positions are learned."""
        return self.rope_thetas[layer % len(self.rope_thetas)] if self.rope_thetas else None

    def generator(self) -> "TrunkConfig":
        """The trunk of the generator: as deep, with a share of the heads and of all widths, on the same tables."""
        heads = max(1, round(self.heads * self.generator_size))
        return replace(
            self,
            heads=heads,
            width=self.width * heads // self.heads,
            mlp_width=self.mlp_width * heads // self.heads,
            embedding_width=self.table_width,
            generator_size=0.0,
        )
