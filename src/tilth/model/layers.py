"""The parts of a block.

Shapes: B rows, S query tokens, T key tokens, D width, H heads, K head size, F feed-forward width.
Parameters are float32; each layer computes in the type of its input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilth.model.config import TrunkConfig
from tilth.model.segments import Segments, attend_segments

MATMUL_ATTENTION_MAX_LENGTH = 1024
"""On a CPU, attention as two batched matrix products was faster up to this length (see benchmarks/attention.py), except
for the lone query of generation."""


def dropout(values: Tensor, rate: float, training: bool) -> Tensor:
    """Set a share of the values to 0 in training and scale up the rest (Srivastava et al. 2014).

    On the CPU, where torch draws one number after another, four values share a draw of 64 bits, which takes half the
    time; `rate` is then rounded to a multiple of 1/65,536.
    """
    if not training or rate == 0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, rate)
    dropped = round(rate * 65_536)
    draws = torch.empty(values.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = draws[: values.numel()].view(values.shape) >= dropped - 32_768
    return values * kept.to(values.dtype).mul_(65_536 / (65_536 - dropped))


class Linear(nn.Linear):
    """A linear map that computes in the type of its input."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation that computes in the type of its input."""

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(
            input, self.normalized_shape, self.weight.to(input.dtype), self.bias.to(input.dtype), self.eps
        )


class Cache:
    """Keys and values of the tokens a causal model has read, per layer, so that each new token costs one step.

    capacity: the most tokens of a row that it will hold.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self._capacity = capacity
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers
        self.documents_BT: Tensor | None = None
        self.is_padded = False

    @property
    def length(self) -> int:
        """Tokens held."""
        return 0 if self.documents_BT is None else self.documents_BT.shape[1]

    def read(self, documents_BS: Tensor) -> Tensor:
        """Note the documents of new tokens; returns those of all tokens (B, T)."""
        held = self.documents_BT
        if held is None:
            self.is_padded = bool((documents_BS != 0).any())
        self.documents_BT = documents_BS if held is None else torch.cat([held, documents_BS], dim=1)
        return self.documents_BT

    def extend(self, layer: int, keys_BHSK: Tensor, values_BHSK: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of the tokens last read to a layer; returns all of it (B, H, T, K)."""
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            rows, heads, _, size = keys_BHSK.shape
            keys = self._keys[layer] = keys_BHSK.new_empty(rows, heads, self._capacity, size)
            values = self._values[layer] = values_BHSK.new_empty(rows, heads, self._capacity, size)
        start = self.length - keys_BHSK.shape[2]
        keys[:, :, start : self.length] = keys_BHSK
        values[:, :, start : self.length] = values_BHSK
        return keys[:, :, : self.length], values[:, :, : self.length]


def attention_bias(
    query_documents_BS: Tensor, key_documents_BT: Tensor, causal: bool, window: int | None, dtype: torch.dtype
) -> Tensor:
    """What to add to attention scores so that a token sees only its own document, its past, and its window.

    Keys end where queries end: with a cache, T > S. Padding (document -1) sees padding, so that no row is empty.
    Returns (B, 1, S, T) of `dtype`, 0 where allowed and a large negative number elsewhere.
    """
    allowed_BST = query_documents_BS[:, :, None] == key_documents_BT[:, None, :]
    query_length, key_length = allowed_BST.shape[1:]
    device = allowed_BST.device
    keys_T = torch.arange(key_length, device=device)
    queries_S = keys_T[key_length - query_length :]
    distance_ST = queries_S[:, None] - keys_T[None, :]
    if causal:
        allowed_BST = allowed_BST & (distance_ST >= 0)
    if window is not None:
        allowed_BST = allowed_BST & (distance_ST.abs() < window)
    bias = torch.zeros(allowed_BST.shape, dtype=dtype, device=device)
    return bias.masked_fill_(~allowed_BST, torch.finfo(dtype).min)[:, None]


Mask = Tensor | Segments | None
"""What limits attention: a bias (B, 1, S, T) to add to the scores (`attention_bias`), pieces that each attend to
themselves, or None where every query sees every key."""


def attend(q_BHSK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask: Mask, rate: float) -> Tensor:
    """Scaled dot-product attention, scores divided by the square root of K.

    rate: dropout, 0 with segments. Returns (B, H, S, K).
    """
    if isinstance(mask, Segments):
        assert rate == 0
        return attend_segments(q_BHSK, k_BHTK, v_BHTK, mask)
    if q_BHSK.device.type == "cpu" and q_BHSK.shape[2] > 1 and k_BHTK.shape[2] <= MATMUL_ATTENTION_MAX_LENGTH:
        scores_BHST = torch.matmul(q_BHSK * q_BHSK.shape[-1] ** -0.5, k_BHTK.transpose(-1, -2))
        if mask is not None:
            scores_BHST = scores_BHST + mask
        weights_BHST = torch.softmax(scores_BHST, dim=-1)
        return torch.matmul(dropout(weights_BHST, rate, training=True), v_BHTK)
    return F.scaled_dot_product_attention(q_BHSK, k_BHTK, v_BHTK, attn_mask=mask, dropout_p=rate)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: TrunkConfig, layer: int) -> None:
        super().__init__()
        inner = config.heads * config.head_size
        self.heads, self.head_size, self.layer = config.heads, config.head_size, layer
        self.qkv = Linear(config.width, 3 * inner, bias=config.qkv_bias)
        self.out = Linear(inner, config.width)
        self.dropout = 0.0

    def forward(self, hidden_BSD: Tensor, mask: Mask, cache: Cache | None = None) -> Tensor:
        rows, length, _ = hidden_BSD.shape
        qkv = self.qkv(hidden_BSD).view(rows, length, 3, self.heads, self.head_size)
        q_BHSK, k_BHTK, v_BHTK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            k_BHTK, v_BHTK = cache.extend(self.layer, k_BHTK, v_BHTK)
        mixed_BHSK = attend(q_BHSK, k_BHTK, v_BHTK, mask, self.dropout if self.training else 0.0)
        return self.out(mixed_BHSK.transpose(1, 2).reshape(rows, length, -1))


class MLP(nn.Module):
    """The position-wise feed-forward layer."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.up = Linear(config.width, config.mlp_width)
        self.down = Linear(config.mlp_width, config.width)
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"

    def forward(self, hidden_BSD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(hidden_BSD), approximate=self.approximate))


class Block(nn.Module):
    """Attention and feed-forward, each with a residual sum, normalised before (GPT-2) or after (BERT)."""

    def __init__(self, config: TrunkConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.attention_norm = LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.mlp_norm = LayerNorm(config.width, eps=config.norm_eps)
        self.norm_before = config.norm_placement == "before"
        self.dropout = 0.0

    def forward(self, hidden_BSD: Tensor, mask: Mask, cache: Cache | None = None) -> Tensor:
        if self.norm_before:
            hidden_BSD = hidden_BSD + self._drop(self.attention(self.attention_norm(hidden_BSD), mask, cache))
            return hidden_BSD + self._drop(self.mlp(self.mlp_norm(hidden_BSD)))
        hidden_BSD = self.attention_norm(hidden_BSD + self._drop(self.attention(hidden_BSD, mask, cache)))
        return self.mlp_norm(hidden_BSD + self._drop(self.mlp(hidden_BSD)))

    def _drop(self, hidden_BSD: Tensor) -> Tensor:
        return dropout(hidden_BSD, self.dropout, self.training)
