"""Attention over packed pieces on a GPU: each piece by itself, where a mask would have computed and discarded the rest.

Shapes: B rows, S tokens, H heads, K head size, P pieces.
"""

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Segments(NamedTuple):
    """Which tokens attend to which, among the rows laid end to end.

    bounds (P + 1,): int32, where each piece begins, and the end; equal neighbours are empty pieces. No numbers at all
    where each row is one piece. longest: tokens in a piece at most. window: how many tokens each sees to its left and
    to its right, -1 for all.
    """

    bounds: Tensor
    longest: int
    window: tuple[int, int]


def piece_bounds(documents_BS: Tensor) -> Tensor:
    """Where the runs of one document begin in the flattened rows, and the end, int32; empty where each row is one run.

    The end is repeated up to a power of two, so that few sizes occur and a compiled step serves all of them.
    """
    starts_BS = torch.ones_like(documents_BS, dtype=torch.bool)
    starts_BS[:, 1:] = documents_BS[:, 1:] != documents_BS[:, :-1]
    starts = starts_BS.flatten().nonzero().flatten()
    if len(starts) == len(documents_BS):
        return torch.empty(0, dtype=torch.int32)
    capacity = 1 << len(starts).bit_length()
    return F.pad(starts, (0, capacity + 1 - len(starts)), value=documents_BS.numel()).to(torch.int32)


@cache
def runs_on_segments(device: torch.device) -> bool:
    """Whether a device has the kernel: FlashAttention (Dao 2023), for CUDA from compute capability 8.0 on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_segments(q_BHSK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, segments: Segments) -> Tensor:
    """Scaled dot-product attention within each piece, in a 16-bit type. Returns (B, H, S, K)."""
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest, window = segments
    rows, _, length, _ = q_BHSK.shape
    if not len(bounds) and window in ((-1, 0), (-1, -1)):  # the kernel for rows of one length is the faster one
        return F.scaled_dot_product_attention(q_BHSK, k_BHSK, v_BHSK, is_causal=window == (-1, 0))
    if not len(bounds):
        bounds = length * torch.arange(rows + 1, device=q_BHSK.device, dtype=torch.int32)
    q, k, v = (part.transpose(1, 2).flatten(0, 1) for part in (q_BHSK, k_BHSK, v_BHSK))
    mixed = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=window)
    assert isinstance(mixed, Tensor)
    return mixed.unflatten(0, (rows, length)).transpose(1, 2)
