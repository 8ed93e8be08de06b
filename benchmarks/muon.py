"""Muon's update on the CPU: torch's, one matrix after the other, and ours, the maps of one shape together.

Four blocks of the given width: in each a square map, two four times as long, and queries, keys and values of each head
of 64, which torch's has as parameters of their own. Torch's multiplies in bfloat16 everywhere, ours in float32 where
the processor has no units for that. The two alternate; the table holds medians of `--repeats` updates
with the spread between quartiles.

    python benchmarks/muon.py
"""

import argparse
import statistics
import time

import torch
from machine import add_results, describe, write_table

from tilth.train.batched_muon import BatchedMuon

BLOCKS = 4


def optimizer(kind: type[torch.optim.Muon | BatchedMuon], width: int) -> torch.optim.Muon | BatchedMuon:
    joined = [(3 * width // 64, 64, width), (1, width, width), (1, 4 * width, width), (1, width, 4 * width)]
    parameters, counts = [], []
    for maps, rows, columns in BLOCKS * joined:
        together = 1 if kind is torch.optim.Muon else maps
        for _ in range(maps // together):
            parameters.append(torch.nn.Parameter(torch.randn(together * rows, columns)))
            parameters[-1].grad = torch.randn_like(parameters[-1])
            counts.append(together)
    if kind is torch.optim.Muon:
        return torch.optim.Muon(parameters, lr=1e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    return BatchedMuon(parameters, counts, lr=1e-3, weight_decay=0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    repeats = arguments.repeats
    lines = ["| width | torch's, ms | together, ms | torch's / together |", "|---|---|---|---|"]
    for width in (128, 256, 512, 768):
        times: dict[type, list[float]] = {torch.optim.Muon: [], BatchedMuon: []}
        optimizers = {kind: optimizer(kind, width) for kind in times}
        for repeat in range(repeats + 1):
            for kind in times:
                started = time.perf_counter()
                optimizers[kind].step()
                if repeat:
                    times[kind].append(1000 * (time.perf_counter() - started))
        cells = []
        for values in times.values():
            low, middle, high = statistics.quantiles(values, n=4)
            cells.append(f"{middle:.1f} ({low:.1f}-{high:.1f})")
        ratio = statistics.median(times[torch.optim.Muon]) / statistics.median(times[BatchedMuon])
        lines.append(f"| {width} | {cells[0]} | {cells[1]} | {ratio:.2f} |")
        print(lines[-1], flush=True)
    write_table(arguments.results, __doc__, f"Machine: {describe()}.", lines)


if __name__ == "__main__":
    main()
