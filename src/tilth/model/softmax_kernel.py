"""The loss of rows of logits and its gradient, as one GPU kernel in Triton.

What torch.compile makes of the same formulas took nearly twice as long on an H200 (benchmarks/NOTES.md).
"""

import torch
import triton  # pyright: ignore[reportMissingImports] - comes with torch where there is a GPU
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

BLOCK, WARPS = 4096, 32
"""Columns read at once, and the warps that do it: so many that a second-level cache holds the rows under way."""


def softmax_losses(logits_NC: Tensor, words: int, targets_N: Tensor, into_gradient: bool) -> Tensor:
    """The cross-entropy of each row (N,), float32. into_gradient: the row's first columns become its gradient.

    logits (N, C): of the words, and of columns after them that belong to none and are left as they are. targets (N,):
    each below `words`, which is not checked.
    """
    losses_N = torch.empty(len(targets_N), dtype=torch.float32, device=logits_NC.device)
    if len(targets_N):
        with torch.cuda.device_of(logits_NC):  # Triton starts kernels on the current device
            _kernel[(len(targets_N),)](  # pyright: ignore[reportIndexIssue] - Triton's way to say how many run
                logits_NC, logits_NC.stride(0), targets_N, losses_N, words, into_gradient, BLOCK, num_warps=WARPS
            )
    return losses_N


@triton.jit
def _kernel(
    logits,
    stride,
    targets,
    losses,
    words: tl.constexpr,
    into_gradient: tl.constexpr,
    block: tl.constexpr,
):
    """One row: each lane keeps a maximum and a sum of its own, which are put together at the end."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row).to(tl.int32)
    of_target = tl.load(logits + target).to(tl.float32)
    columns = tl.arange(0, block)
    largests, totals = tl.zeros([block], tl.float32) + of_target, tl.zeros([block], tl.float32)
    for first in range(0, words, block):
        places = first + columns
        values = tl.load(logits + places, mask=places < words, other=float("-inf")).to(tl.float32)
        larger = tl.maximum(largests, values)
        totals = totals * tl.exp(largests - larger) + tl.exp(values - larger)
        largests = larger
    largest = tl.max(largests, 0)
    log_total = largest + tl.log(tl.sum(totals * tl.exp(largests - largest), 0))
    tl.store(losses + row, log_total - of_target)
    if into_gradient:
        for first in range(0, words, block):
            places = first + columns
            values = tl.load(logits + places, mask=places < words, other=float("-inf")).to(tl.float32)
            # One is subtracted before the gradient is rounded: see `cross_entropy._loss_and_gradient`.
            gradient = tl.exp(values - log_total) - tl.where(places == target, 1.0, 0.0)
            tl.store(logits + places, gradient.to(logits.dtype.element_ty), mask=places < words)
