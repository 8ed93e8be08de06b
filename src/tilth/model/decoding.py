"""The next token of each row from one new token of each: what `Trunk.forward` and the causal head compute, with all
that stays the same from step to step made ready before.

A step of a small model takes less than a millisecond, of which modules, casts and masks would be the larger part.
Shapes: those of `tilth.model.layers`, without S.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilth.model.config import TrunkConfig
from tilth.model.cpu_bfloat16 import has_onednn_linear
from tilth.model.heads import VocabularyHead
from tilth.model.layers import Block, Cache, Rotation, rotate, rotation
from tilth.model.model import Model
from tilth.model.trunk import Embeddings

Map = Callable[[Tensor], Tensor]

TRANSPOSE_FROM = 64
"""Tokens to read from which on a transposed copy of the weights pays for itself, where it does (`_reads_columns`)."""


class Decoder:
    """Reads one token of each row at a time; for all causal families. It keeps the weights that the model had, on a CPU
    mostly as a copy in another order.
    """

    def __init__(self, model: Model, cache: Cache, padding: list[int], length: int, dtype: torch.dtype) -> None:
        """cache: of the `length` columns read so far, to be extended. padding: how many of each row's first columns are
        none. dtype: the type to compute in.
        """
        config, head, embeddings = model.config, model.heads["causal"], model.trunk.embeddings
        final_norm, blocks = model.trunk.final_norm, list(model.trunk.blocks)
        assert isinstance(head, VocabularyHead) and isinstance(embeddings, Embeddings) and final_norm is not None
        assert model.trunk.projection is None and embeddings.norm is None and embeddings.token_types is None
        device, rows = embeddings.tokens.weight.device, len(padding)
        self._column, self._dtype, self._device = length, dtype, device
        self._last_position = config.max_length - 1
        self._positions_B = torch.tensor([length - before for before in padding], device=device)
        self._tokens_VD = embeddings.tokens.weight
        self._table_PD = None if embeddings.positions is None else embeddings.positions.weight
        bias_B11T = None
        if any(padding):
            columns_T = torch.arange(cache.capacity, device=device)
            is_none_BT = columns_T < torch.tensor(padding, device=device)[:, None]
            bias_B11T = torch.zeros(is_none_BT.shape, dtype=dtype, device=device)
            bias_B11T = bias_B11T.masked_fill_(is_none_BT, torch.finfo(dtype).min)[:, None, None]
        all_positions = torch.arange(min(cache.capacity, config.max_length), device=device)[None]
        self._turns: dict[float, Rotation] = {}
        for theta in set(config.rope_thetas):
            cosines, sines = rotation(all_positions, config.head_size, theta, dtype)
            self._turns[theta] = cosines[0, 0], sines[0, 0]
        is_long = cache.capacity - length >= TRANSPOSE_FROM
        linear = _transposed_linear if is_long and _reads_columns(device, rows, dtype) else partial(_linear, rows=rows)
        self._blocks = [
            _block_step(block, config, layer, cache, bias_B11T, rows, dtype, linear)
            for layer, block in enumerate(blocks)
        ]
        self._final_norm = _norm(final_norm, dtype)
        self._head = linear(head.token_weight.to(dtype), None)

    def read(self, tokens: list[int]) -> Tensor:
        """The logits (B, V) of what follows a token of each row."""
        tokens_B, positions_B = torch.tensor(tokens, device=self._device), self._positions_B
        hidden_BD = self._tokens_VD.index_select(0, tokens_B)
        if self._table_PD is not None:
            hidden_BD = hidden_BD + self._table_PD.index_select(0, positions_B)
        hidden_BD = hidden_BD.to(self._dtype)
        turns: dict[float | None, Rotation | None] = {None: None}
        for theta, (cosines_PK, sines_PK) in self._turns.items():
            turns[theta] = cosines_PK[positions_B][:, None], sines_PK[positions_B][:, None]
        for step in self._blocks:
            hidden_BD = step(hidden_BD, self._column, turns)
        self._column += 1
        # A row whose text is done goes on beside the others; its positions end with the context.
        self._positions_B = (positions_B + 1).clamp_(max=self._last_position)
        return self._head(self._final_norm(hidden_BD))


def _block_step(
    block: nn.Module, config: TrunkConfig, layer: int, cache: Cache, bias_B11T: Tensor | None, rows: int,
    dtype: torch.dtype, make_linear: Callable[[Tensor, Tensor | None], Map],
) -> Callable[[Tensor, int, dict[float | None, Rotation | None]], Tensor]:  # fmt: skip
    """What computes a block from hidden vectors (B, D), the new tokens' column, and the rotation for each base."""
    assert isinstance(block, Block)
    attention = block.attention
    normed, mlp_normed = _norm(block.attention_norm, dtype), _norm(block.mlp_norm, dtype)
    qkv, out, up, down = (
        make_linear(linear.weight.to(dtype), None if linear.bias is None else linear.bias.to(dtype))
        for linear in (attention.qkv, attention.out, block.mlp.up, block.mlp.down)
    )
    query_norm = None if attention.query_norm is None else _norm(attention.query_norm, dtype)
    key_norm = None if attention.key_norm is None else _norm(attention.key_norm, dtype)
    activate = block.mlp.activate
    kv_heads, size = config.num_kv_heads, config.head_size
    parts = [config.heads, kv_heads, kv_heads]
    # Queries that share a head of keys are as several queries of that head: each sees all.
    grouped = (rows, kv_heads, config.heads // kv_heads, size)
    keys, values = cache.keys[layer], cache.values[layer]
    window, theta = config.window(layer), config.rope_theta(layer)

    def step(hidden_BD: Tensor, column: int, turns: dict[float | None, Rotation | None]) -> Tensor:
        q_BHK, k_BHK, v_BHK = qkv(normed(hidden_BD)).view(rows, -1, size).split(parts, 1)
        if query_norm is not None and key_norm is not None:
            q_BHK, k_BHK = query_norm(q_BHK), key_norm(k_BHK)
        turn = turns[theta]
        if turn is not None:
            q_BHK, k_BHK = rotate(q_BHK, turn), rotate(k_BHK, turn)
        keys.select(2, column).copy_(k_BHK)
        values.select(2, column).copy_(v_BHK)
        first = 0 if window is None else max(0, column + 1 - window)
        seen = column + 1 - first
        mixed = F.scaled_dot_product_attention(
            q_BHK.view(grouped), keys.narrow(2, first, seen), values.narrow(2, first, seen),
            None if bias_B11T is None else bias_B11T.narrow(3, first, seen).contiguous(),
        )  # fmt: skip
        hidden_BD = hidden_BD + out(mixed.reshape(rows, -1))
        return hidden_BD + down(activate(up(mlp_normed(hidden_BD))))

    return step


def _linear(weight: Tensor, bias: Tensor | None, rows: int) -> Map:
    """A linear map of some rows, on a CPU with its weights copied in the order that suits them, once."""
    multiplies_rows = rows > 1 or weight.dtype == torch.bfloat16
    if weight.device.type == "cpu" and multiplies_rows and has_onednn_linear(weight.dtype):
        # In the order in which oneDNN multiplies, to which each call would bring them anew (as torch.compile does).
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        return lambda values: torch.ops.mkldnn._linear_pointwise(values, packed, bias, "none", [], "")
    return lambda values: F.linear(values, weight, bias)


def _reads_columns(device: torch.device, rows: int, dtype: torch.dtype) -> bool:
    """Whether one row is multiplied faster by transposed weights: with AVX2, weights whose rows are summed over were
    read at half the speed; with AVX-512 it makes little difference.
    """
    has_avx2_at_most = torch.backends.cpu.get_cpu_capability() == "AVX2"
    return device.type == "cpu" and rows == 1 and dtype == torch.float32 and has_avx2_at_most


def _transposed_linear(weight: Tensor, bias: Tensor | None) -> Map:
    """A linear map of one row, with its weights copied so that what they multiply a number by lies together."""
    transposed = weight.T.contiguous()
    if bias is None:
        return lambda row: row @ transposed
    return lambda row: torch.addmm(bias, row, transposed)


def _norm(norm: nn.Module, dtype: torch.dtype) -> Map:
    """A norm with its weights cast once."""
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    shape, weight = list(norm.normalized_shape), norm.weight.to(dtype)
    if isinstance(norm, nn.RMSNorm):
        return lambda values: torch.rms_norm(values, shape, weight, norm.eps)
    bias = None if norm.bias is None else norm.bias.to(dtype)
    return lambda values: torch.layer_norm(values, shape, weight, bias, norm.eps)
