"""Attention on the CPU: two batched matrix products against `scaled_dot_product_attention`.

Forward and backward of 8,192 tokens, 4 heads of 64: with a bias that all rows share, as the trunk makes it where each
is one document, or without one, by the kernel that passes over the future (`is_causal`). They alternate; the table
holds medians of `--repeats` runs with the spread between quartiles, and ratios to the products. Decides
`tilth.model.layers.MATMUL_ATTENTION_MAX_LENGTH` and `CAUSAL_KERNEL_MIN_LENGTH`.

    python benchmarks/attention.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from machine import add_results, describe, write_table
from torch import Tensor

from tilth.model.precision import compute_dtype, keep_freed_memory

TOKENS, HEADS, HEAD_SIZE = 8192, 4, 64


def matmul(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    scores = torch.matmul(q * HEAD_SIZE**-0.5, k.transpose(-1, -2)) + bias
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def causal(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


WAYS = {"matrix products": matmul, "fused": fused, "fused, causal": causal}


def seconds(attention: Callable[..., Tensor], length: int, dtype: torch.dtype) -> float:
    shape = (TOKENS // length, HEADS, length, HEAD_SIZE)
    q, k, v = (torch.randn(shape).to(dtype).requires_grad_() for _ in range(3))
    bias = torch.zeros(1, 1, length, length, dtype=dtype)
    started = time.perf_counter()
    attention(q, k, v, bias).sum().backward()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_results(parser, __file__)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    keep_freed_memory()
    dtype = compute_dtype("auto", torch.device("cpu"))
    ratios = "fused / products | causal / products"
    lines = [f"| length | {', ms | '.join(WAYS)}, ms | {ratios} |", "|---|---|---|---|---|---|"]
    for length in (64, 128, 256, 512, 1024):
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for repeat in range(arguments.repeats + 1):
            for name, attention in WAYS.items():
                elapsed = seconds(attention, length, dtype) * 1000
                if repeat:
                    times[name].append(elapsed)
        cells = []
        for found in times.values():
            low, middle, high = statistics.quantiles(found, n=4)
            cells.append(f"{middle:.0f} ({low:.0f}-{high:.0f})")
        products, *others = (statistics.median(found) for found in times.values())
        cells += [f"{other / products:.2f}" for other in others]
        lines.append(f"| {length} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    write_table(arguments.results, __doc__, f"Machine: {describe()}. Medians (quartiles).", lines)


if __name__ == "__main__":
    main()
