"""The parts of a block.

Shapes: B rows, S query tokens, T key tokens, D width, H heads, K head size, F feed-forward width.
Parameters are float32; each layer computes in the type of its input.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilth.model import cpu_bfloat16
from tilth.model.chosen import Chosen
from tilth.model.config import TrunkConfig
from tilth.model.segments import Segments, attend_segments

MATMUL_ATTENTION_MAX_LENGTH = 1024
"""On a CPU, attention as two batched matrix products was faster up to this length in bfloat16, and in float32 little
slower (see benchmarks/attention.py)."""
CAUSAL_KERNEL_MIN_LENGTH = 256
"""On a CPU in float32, rows from this length on, whose tokens see all of their past, go to the kernel that passes over
the future. It was the faster way at every length (see benchmarks/attention.py); of shorter rows attention is a small
part."""


def dropout(values: Tensor, rate: float, training: bool) -> Tensor:
    """Set a share of the values to 0 in training and scale up the rest (Srivastava et al. 2014).

    On the CPU, where torch draws one number after another, four values share a draw of 64 bits, which takes half the
    time; `rate` is then rounded to a multiple of 1/65,536.
    """
    if not training or rate == 0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, rate)
    dropped = min(65_535, round(rate * 65_536))
    draws = torch.empty(values.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = draws[: values.numel()].view(values.shape) >= dropped - 32_768
    return values * kept.to(values.dtype).mul_(65_536 / (65_536 - dropped))


class Linear(nn.Linear):
    """A linear map that computes in the type of its input; or several of one shape and input, joined into a product."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, maps: int = 1) -> None:
        """outputs: of all the maps together, each of which gives an equal share in turn."""
        assert outputs % maps == 0
        super().__init__(inputs, outputs, bias=bias)
        self.maps = maps

    def forward(self, input: Tensor) -> Tensor:
        if cpu_bfloat16.applies_to(input):
            return cpu_bfloat16.linear(input, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation that computes in the type of its input."""

    def forward(self, input: Tensor) -> Tensor:
        if cpu_bfloat16.applies_to(input):
            return cpu_bfloat16.layer_norm(input, self.weight, self.bias, self.eps)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, self.weight.to(input.dtype), bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square normalisation (Zhang and Sennrich 2019) that computes in the type of its input."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        if cpu_bfloat16.applies_to(input):
            assert self.eps is not None
            return cpu_bfloat16.rms_norm(input, self.weight, self.eps)
        return F.rms_norm(input, self.normalized_shape, self.weight.to(input.dtype), self.eps)


def make_norm(config: TrunkConfig, width: int | None = None) -> nn.Module:
    """The trunk's kind of norm. width: by default the trunk's."""
    if config.norm == "rms":
        return RMSNorm(width or config.width, config.norm_eps)
    return LayerNorm(width or config.width, eps=config.norm_eps, bias=config.bias)


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines (B, 1, S, K/2) by which `rotate` turns the vectors of tokens."""


def rotation(positions_BS: Tensor, head_size: int, theta: float, dtype: torch.dtype) -> Rotation:
    """Rotary position embeddings (Su et al. 2021): pair i turns by position x theta ** (-2 i / head size)."""
    pairs = torch.arange(0, head_size, 2, device=positions_BS.device)
    angles_B1SK = positions_BS[:, None, :, None] * theta ** -(pairs / head_size)
    return angles_B1SK.cos().to(dtype), angles_B1SK.sin().to(dtype)


def rotate(values_BHSK: Tensor, turn: Rotation) -> Tensor:
    """Turn each pair of dimensions, one from each half of a head, by its token's angle."""
    cosines, sines = turn
    if cpu_bfloat16.applies_to(values_BHSK):
        return cpu_bfloat16.rotate(values_BHSK, cosines, sines)
    first, second = values_BHSK.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def repeat_heads(values_BHSK: Tensor, times: int) -> Tensor:
    """Each head some times in a row."""
    if cpu_bfloat16.applies_to(values_BHSK):
        return cpu_bfloat16.repeat_heads(values_BHSK, times)
    return values_BHSK.repeat_interleave(times, 1)


class Cache:
    """Keys and values (B, H, capacity, K) of the tokens a causal model has read, per layer, so that each new token
    costs one step (`tilth.model.decoding`).

    capacity: the most tokens of a row that it will hold.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def start(self, keys_BHSK: Tensor, values_BHSK: Tensor) -> None:
        """Hold what the next layer made of the rows' first S tokens."""
        for held, fresh_BHSK in ((self.keys, keys_BHSK), (self.values, values_BHSK)):
            rows, heads, length, size = fresh_BHSK.shape
            held.append(fresh_BHSK.new_empty(rows, heads, self.capacity, size))
            held[-1][:, :, :length] = fresh_BHSK


def attention_bias(documents_BS: Tensor, causal: bool, window: int | None, dtype: torch.dtype) -> Tensor:
    """What to add to attention scores so that a token sees only its own document, its past, and its window.

    Padding (document -1) sees padding, so that no row is empty. Returns (B, 1, S, S) of `dtype`, 0 where allowed and a
    large negative number elsewhere; one row of documents serves all rows that are like it.
    """
    allowed_BSS = documents_BS[:, :, None] == documents_BS[:, None, :]
    places_S = torch.arange(documents_BS.shape[1], device=documents_BS.device)
    distance_SS = places_S[:, None] - places_S[None, :]
    if causal:
        allowed_BSS = allowed_BSS & (distance_SS >= 0)
    if window is not None:
        allowed_BSS = allowed_BSS & (distance_SS.abs() < window)
    bias = torch.zeros(allowed_BSS.shape, dtype=dtype, device=documents_BS.device)
    return bias.masked_fill_(~allowed_BSS, torch.finfo(dtype).min)[:, None]


Mask = Tensor | Segments | Literal["causal"] | None
"""What limits attention, if anything: a bias to add to the scores (`attention_bias`), pieces that each attend to
themselves, or the future alone, unseen by all tokens of a row."""


def attend(q_BHSK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask: Mask, rate: float) -> Tensor:
    """Scaled dot-product attention, scores divided by the square root of K.

    rate: dropout, 0 with segments and with "causal". Returns (B, H, S, K).
    """
    if isinstance(mask, Segments):
        assert rate == 0
        return attend_segments(q_BHSK, k_BHTK, v_BHTK, mask)
    if isinstance(mask, str):
        assert rate == 0
        return F.scaled_dot_product_attention(q_BHSK, k_BHTK, v_BHTK, is_causal=True)
    if q_BHSK.device.type == "cpu" and k_BHTK.shape[2] <= MATMUL_ATTENTION_MAX_LENGTH:
        scores_BHST = torch.matmul(q_BHSK * q_BHSK.shape[-1] ** -0.5, k_BHTK.transpose(-1, -2))
        if mask is not None:
            scores_BHST += mask
        weights_BHST = torch.softmax(scores_BHST, dim=-1)
        return torch.matmul(dropout(weights_BHST, rate, training=True), v_BHTK)
    return F.scaled_dot_product_attention(q_BHSK, k_BHTK, v_BHTK, attn_mask=mask, dropout_p=rate)


class Attention(nn.Module):
    """Multi-head self-attention with one product for queries, keys and values (Vaswani et al. 2017, section 3.2).

    With fewer heads of keys and values than of queries, consecutive query heads share one.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        inner, of_each_head = config.heads * config.head_size, config.heads + 2 * config.num_kv_heads
        self.heads, self.head_size = config.heads, config.head_size
        self.kv_heads = config.num_kv_heads
        self.qkv = Linear(config.width, of_each_head * config.head_size, bias=config.qkv_bias, maps=of_each_head)
        self.query_norm = RMSNorm(config.head_size, config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_size, config.norm_eps) if config.qk_norm else None
        self.out = Linear(inner, config.width, bias=config.bias)
        self.dropout = 0.0

    def forward(
        self,
        hidden_BSD: Tensor,
        mask: Mask,
        turn: Rotation | None = None,
        cache: Cache | None = None,
        chosen: Chosen | None = None,
    ) -> Tensor:
        """What all tokens gather (B, S, D), or the chosen ones (N, D)."""
        q_BHSK, k_BHTK, v_BHTK = self._project(hidden_BSD)
        if self.query_norm is not None and self.key_norm is not None:
            q_BHSK, k_BHTK = self.query_norm(q_BHSK), self.key_norm(k_BHTK)
        if turn is not None:
            q_BHSK, k_BHTK = rotate(q_BHSK, turn), rotate(k_BHTK, turn)
        if cache is not None:
            cache.start(k_BHTK, v_BHTK)
        if chosen is not None:
            assert not isinstance(mask, Segments | str)
            q_BHSK, mask = chosen.take_by_row(q_BHSK), None if mask is None else chosen.take_by_row(mask)
        if self.kv_heads < self.heads:
            k_BHTK, v_BHTK = (repeat_heads(part, self.heads // self.kv_heads) for part in (k_BHTK, v_BHTK))
        mixed_BHSK = attend(q_BHSK, k_BHTK, v_BHTK, mask, self.dropout if self.training else 0.0)
        return self.out(mixed_BHSK.transpose(1, 2).flatten(2) if chosen is None else chosen.in_order(mixed_BHSK))

    def _project(self, hidden_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, S, K), and keys and values with as many heads as those have."""
        rows, length, _ = hidden_BSD.shape
        qkv = self.qkv(hidden_BSD).view(rows, length, -1, self.head_size)
        q_BHSK, k_BHSK, v_BHSK = qkv.transpose(1, 2).split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        return q_BHSK, k_BHSK, v_BHSK


_GATES = {"geglu": F.gelu, "swiglu": F.silu}


class MLP(nn.Module):
    """The position-wise feed-forward layer, gated or not (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.gate = _GATES.get(config.activation)
        maps = 2 if self.gate else 1
        self.up = Linear(config.width, maps * config.mlp_width, bias=config.bias, maps=maps)
        self.down = Linear(config.mlp_width, config.width, bias=config.bias)
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"

    def forward(self, hidden_BSD: Tensor) -> Tensor:
        return self.down(self.activate(self.up(hidden_BSD)))

    def activate(self, inner: Tensor) -> Tensor:
        """Between the linear maps, for any leading dimensions."""
        if self.gate is None:
            if self.approximate == "tanh" and cpu_bfloat16.applies_to(inner):
                # A third of the time, and nearer to the approximation than its terms rounded one by one would be.
                return F.gelu(inner)
            return F.gelu(inner, approximate=self.approximate)
        gate, passed = inner.chunk(2, dim=-1)
        return self.gate(gate) * passed


class Block(nn.Module):
    """Attention and feed-forward, each with a residual sum, normalised before (GPT-2) or after (BERT)."""

    def __init__(self, config: TrunkConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config)
        # Where the embeddings are normalised already, the first block takes them as they are (ModernBERT).
        self.attention_norm = nn.Identity() if config.embedding_norm and layer == 0 else make_norm(config)
        self.mlp = MLP(config)
        self.mlp_norm = make_norm(config)
        self.norm_before = config.norm_placement == "before"
        self.dropout = 0.0

    def forward(
        self,
        hidden_BSD: Tensor,
        mask: Mask,
        turn: Rotation | None = None,
        cache: Cache | None = None,
        chosen: Chosen | None = None,
    ) -> Tensor:
        """New vectors of all tokens (B, S, D), or of the chosen ones (N, D)."""
        read_BSD = self.attention_norm(hidden_BSD) if self.norm_before else hidden_BSD
        gathered = self._drop(self.attention(read_BSD, mask, turn, cache, chosen))
        hidden = (hidden_BSD if chosen is None else chosen.take(hidden_BSD)) + gathered
        if self.norm_before:
            return hidden + self._drop(self.mlp(self.mlp_norm(hidden)))
        hidden = self.attention_norm(hidden)
        return self.mlp_norm(hidden + self._drop(self.mlp(hidden)))

    def _drop(self, hidden: Tensor) -> Tensor:
        return dropout(hidden, self.dropout, self.training)
