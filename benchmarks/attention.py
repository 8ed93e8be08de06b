"""Attention on this processor: two batched matrix products against `scaled_dot_product_attention`.

Forward and backward at 8,192 tokens, 4 heads of 64, with a bias for packed documents, as the trunk computes it. The two
alternate; the table holds medians of `--repeats` runs with the spread between quartiles. Decides
`tilth.model.layers.MATMUL_ATTENTION_MAX_LENGTH`.

    python benchmarks/attention.py
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import describe
from torch import Tensor

from tilth.model.precision import compute_dtype, keep_freed_memory

TOKENS, HEADS, HEAD_SIZE = 8192, 4, 64
RESULTS = Path(__file__).parent / "results" / "attention.md"


def matmul(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    scores = torch.matmul(q * HEAD_SIZE**-0.5, k.transpose(-1, -2)) + bias
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def seconds(attention: Callable[..., Tensor], length: int, dtype: torch.dtype) -> float:
    shape = (TOKENS // length, HEADS, length, HEAD_SIZE)
    q, k, v = (torch.randn(shape).to(dtype).requires_grad_() for _ in range(3))
    bias = torch.zeros(shape[0], 1, length, length, dtype=dtype)
    started = time.perf_counter()
    attention(q, k, v, bias).sum().backward()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    keep_freed_memory()
    dtype = compute_dtype("auto", torch.device("cpu"))
    lines = ["| length | matrix products, ms | fused, ms | fused / products |", "|---|---|---|---|"]
    for length in (64, 128, 256, 512, 1024):
        times: dict[str, list[float]] = {"matmul": [], "fused": []}
        for repeat in range(repeats + 1):
            for name, attention in (("matmul", matmul), ("fused", fused)):
                elapsed = seconds(attention, length, dtype) * 1000
                if repeat:
                    times[name].append(elapsed)
        cells = []
        for name in ("matmul", "fused"):
            low, middle, high = statistics.quantiles(times[name], n=4)
            cells.append(f"{middle:.0f} ({low:.0f}-{high:.0f})")
        ratio = statistics.median(times["fused"]) / statistics.median(times["matmul"])
        lines.append(f"| {length} | {cells[0]} | {cells[1]} | {ratio:.2f} |")
        print(lines[-1], flush=True)
    what = f"Forward and backward of {TOKENS:,} tokens, {HEADS} heads of {HEAD_SIZE}; medians (quartiles)."
    head = f"# Attention on the CPU\n\n{what}\n"
    RESULTS.write_text(f"{head}\nMachine: {describe()}.\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
