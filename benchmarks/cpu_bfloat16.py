"""Operations in bfloat16 on this processor: ours (`tilth.model.cpu_bfloat16`) against torch's.

Forward and backward of 4,096 tokens, 256 wide, the weights cast as a layer casts them. The two alternate; times are
medians of --repeats runs with the spread between quartiles, ratios medians over the runs. Errors are those of the
gradients of the weight and of the bias against float64, as a share of their mean size, where the gradient that comes in
has a mean of half its deviation.

    python benchmarks/cpu_bfloat16.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from machine import add_results, describe, write_table
from torch import Tensor

from tilth.model import cpu_bfloat16
from tilth.model.precision import keep_freed_memory

ROWS, LENGTH, WIDTH, HEADS = 16, 256, 256, 4
EPS = 1e-5

Operation = Callable[..., Tensor]


def cast(operation: Operation) -> Operation:
    """As torch computes it: weights and biases in the type of the values."""
    return lambda values, *weights: operation(values, *(weight.to(values.dtype) for weight in weights))


def rotated(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """As `tilth.model.layers.rotate` has it elsewhere."""
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


HIDDEN, HEADED, INNER = (ROWS, LENGTH, WIDTH), (ROWS, HEADS, LENGTH, WIDTH // HEADS), (ROWS, LENGTH, 4 * WIDTH)
_ANGLES = torch.arange(LENGTH)[:, None] * 10_000 ** -torch.linspace(0, 1, WIDTH // HEADS // 2)
TURN = _ANGLES.cos().bfloat16(), _ANGLES.sin().bfloat16()
OPERATIONS: dict[str, tuple[tuple[int, ...], tuple[tuple[int, ...], ...], Operation, Operation]] = {
    "linear map, 256 to 1,024, with a bias": (
        HIDDEN, ((4 * WIDTH, WIDTH), (4 * WIDTH,)), cpu_bfloat16.linear, cast(F.linear),
    ),
    "layer norm": (
        HIDDEN, ((WIDTH,), (WIDTH,)), lambda values, weight, bias: cpu_bfloat16.layer_norm(values, weight, bias, EPS),
        cast(lambda values, weight, bias: F.layer_norm(values, weight.shape, weight, bias, EPS)),
    ),
    "RMS norm": (
        HIDDEN, ((WIDTH,),), lambda values, weight: cpu_bfloat16.rms_norm(values, weight, EPS),
        cast(lambda values, weight: F.rms_norm(values, weight.shape, weight, EPS)),
    ),
    "rotation of 4 heads": (
        HEADED, (), lambda values: cpu_bfloat16.rotate(values, *TURN), lambda values: rotated(values, *TURN),
    ),
    "4 heads of keys from 2": (
        (ROWS, HEADS // 2, LENGTH, WIDTH // HEADS), (), lambda values: cpu_bfloat16.repeat_heads(values, 2),
        lambda values: values.repeat_interleave(2, 1),
    ),
    "GELU by tanh of 1,024 columns": (INNER, (), F.gelu, lambda values: F.gelu(values, approximate="tanh")),
}  # fmt: skip
"""(shape of the values, shapes of the weights, ours, torch's); the last as `tilth.model.layers.MLP.activate` has it."""


def run(operation: Operation, parts: list[Tensor], gradient: Tensor) -> tuple[float, list[Tensor]]:
    """(milliseconds, gradients of the weights)."""
    leaves = [part.clone().requires_grad_() for part in parts]
    started = time.perf_counter()
    operation(*leaves).backward(gradient)
    elapsed = (time.perf_counter() - started) * 1000
    return elapsed, [leaf.grad for leaf in leaves[1:] if leaf.grad is not None]


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    lines = [
        "| operation | ours, ms | torch's, ms | torch's / ours | errors of gradients, ours | torch's |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, (shape, weights, ours, torchs) in OPERATIONS.items():
        parts = [torch.randn(shape).bfloat16(), *(torch.randn(size) for size in weights)]
        gradient = (torch.randn_like(torchs(*parts)) + 0.5).bfloat16()
        true = run(torchs, [part.double() for part in parts], gradient.double())[1]
        times: dict[str, list[float]] = {"ours": [], "torch's": []}
        errors = dict.fromkeys(times, "")
        for _ in range(arguments.repeats):
            for system, operation in (("ours", ours), ("torch's", torchs)):
                elapsed, found = run(operation, parts, gradient)
                times[system].append(elapsed)
                shares = [(a.double() - b).abs().mean() / b.abs().mean() for a, b in zip(found, true, strict=True)]
                errors[system] = ", ".join(f"{share:.1%}" for share in shares)
        ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
        cells = [name, *map(spread, times.values()), f"{ratio:.1f}", *errors.values()]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    write_table(arguments.results, __doc__, f"Machine: {describe('bfloat16')}.", lines)


if __name__ == "__main__":
    main()
