"""A roofline: operations and bytes per token of each part of a training step, and how near it comes to the ceilings.

Counted from the shapes: a matrix product takes 6 operations a weight and token; attention 12 times layers, width and
length, half of that where it is causal. Bytes are what each kernel has to read and write once, in the compute type;
weights and their gradients are shared by the tokens of a pass, the optimizer's by those of an update. The ceilings are
measured: the product of two square matrices, and a copy that no cache holds. The CPU's times are the profiler's,
medians over steps of `bert-mini` at length 128; those of the H200 were measured before (NOTES.md), when the softmax
of words had no kernel of its own yet, for forward and backward passes of GPT-2 124M at length 1,024. Draws
docs/speed.svg.

    python benchmarks/roofline.py [--steps 8]
"""

import argparse
import os
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import add_results, describe, write_table
from torch.profiler import ProfilerActivity, profile

from tilth.evidence.svg import FONT_SIZE, HAIRLINE, INK, MUTED, SERIES, to_svg
from tilth.model.chosen import Chosen
from tilth.model.config import TrunkConfig
from tilth.model.families import FAMILIES
from tilth.model.inputs import Inputs
from tilth.model.model import Model, build_model
from tilth.model.precision import compute_dtype, keep_freed_memory
from tilth.model.threads import choose_threads, threads_in_words
from tilth.objectives.objective import Batch, Predictions
from tilth.recipe import load_recipe
from tilth.train.distributed import World
from tilth.train.optimizers import Optimizers, joined_maps

PLOT = Path(__file__).parents[1] / "docs" / "speed.svg"
VALUE = 2  # bytes of a value in bfloat16
BF16, F32, BANDWIDTH = "bfloat16", "float32", "copy"
H200 = {BF16: 772e12, BANDWIDTH: 4.3e12}
H200_TOKENS = 65_536
H200_SECONDS = {
    "matrix products": 63e-3, "attention": 23e-3, "softmax of words": 13e-3, "GELU": 7e-3, "norms": 5e-3,
    "sums, casts and the rest": 22e-3,
}  # fmt: skip
PRODUCTS = ("projections", "feed-forward", "vocabulary")


@dataclass(frozen=True)
class Work:
    """Operations and bytes for each token."""

    operations: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def times(self, number: float) -> "Work":
        """Of so many layers."""
        return Work(self.operations * number, self.bytes * number)

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.operations / self.bytes


def product(inner: int, outer: int, tokens_per_pass: int, share: float = 1.0) -> Work:
    """A linear map, forward and backward. share: of the tokens that it is applied to.

    A weight is read in float32, and in the compute type once for each pass; its gradient is written in float32.
    """
    weights = inner * outer
    return Work(6 * weights * share, 3 * VALUE * (inner + outer) * share + (8 + 2 * VALUE) * weights / tokens_per_pass)


def elementwise(values: float, operations: float, passes: float) -> Work:
    """operations, and passes over memory, for each of the values of a token."""
    return Work(operations * values, VALUE * passes * values)


def parts(config: TrunkConfig, length: int, predicted: float, tokens_per_pass: int, is_fused: bool) -> dict[str, Work]:
    """The work of each part of a forward and a backward pass: the last block passes on the predicted tokens alone.

    is_fused: attention keeps no scores in memory.
    """
    width, layers, tables = config.width, config.layers, 2 + bool(config.token_types)
    scores = config.heads * length
    is_causal = config.attention == "causal"
    needed = 0.5 if is_causal else 1.0
    blocks = layers - 1 + predicted
    norms = 2 * blocks + 1
    inner, words = config.mlp_width, config.vocab_size
    table_bytes = 12 * tables + 2 * VALUE + 4 * words / tokens_per_pass
    attention = elementwise(width, 12 * length * needed, 12)
    scores_kept = elementwise(0 if is_fused else scores, 0, 6)
    qkv, out = product(width, 3 * width, tokens_per_pass), product(width, width, tokens_per_pass)
    found = {
        "embedding": Work(2 * tables * width, table_bytes * width),
        "projections": qkv.times(layers) + out.times(blocks),
        "feed-forward": (product(width, inner, tokens_per_pass) + product(inner, width, tokens_per_pass)).times(blocks),
        "GELU": elementwise(inner, 20, 5).times(blocks),
        "attention": (attention + scores_kept).times(blocks),
        "norms": elementwise(width, 20, 5).times(norms),
        "vocabulary": product(width, words, tokens_per_pass, predicted),
        "softmax of words": elementwise(words * predicted, 10, 3),
    }
    if not is_causal:  # the head's dense layer and norm
        found["projections"] += product(width, width, tokens_per_pass, predicted)
        found["norms"] += elementwise(width * predicted, 20, 5)
    if not is_fused:
        found["softmax of scores"] = elementwise(scores * needed, 10, 7).times(blocks)
    return found


def optimizer(model: Model, tokens_per_update: int) -> Work:
    """Muon for the matrices of the blocks, AdamW for the rest."""
    operations = memory = 0.0
    joined = joined_maps(model.trunk.blocks)
    for weight in model.parameters():
        if weight not in joined:
            operations += 15 * weight.numel()
            memory += 28 * weight.numel()
            continue
        maps = joined[weight]
        short, long = sorted((weight.shape[0] // maps, weight.shape[1]))
        # Five iterations of X X', its square, and the product of both with X.
        operations += maps * 5 * (4 * short**2 * long + 2 * short**3)
        memory += 20 * weight.numel() + maps * 5 * VALUE * (4 * short * long + 5 * short**2)
    return Work(operations / tokens_per_update, memory / tokens_per_update)


def ceilings() -> dict[str, float]:
    """Operations a second of a product in each type, and bytes a second of a copy: the best of many."""
    found = {}
    for name, dtype in ((BF16, torch.bfloat16), (F32, torch.float32)):
        left, right = (torch.randn(1536, 1536).to(dtype) for _ in range(2))
        found[name] = 2 * 1536**3 / min(clock(lambda a=left, b=right: a @ b) for _ in range(15))
    source, target = (torch.ones(1 << 26) for _ in range(2))
    found[BANDWIDTH] = 2 * 4 * (1 << 26) / min(clock(lambda: target.copy_(source)) for _ in range(7))
    return found


def clock(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def batch(vocab_size: int, rows: int, length: int) -> Batch:
    """Full rows of random words, each one document, of which 15 % are predicted."""
    generator = np.random.default_rng(0)
    tokens = torch.from_numpy(generator.integers(0, vocab_size, (rows, length)))
    positions = torch.arange(length).expand(rows, length).contiguous()
    places = torch.from_numpy(np.sort(generator.permutation(rows * length)[: rows * length * 15 // 100]))
    inputs = Inputs(tokens, positions, torch.zeros_like(tokens))
    return Batch(
        inputs, {"masked": Predictions(places, tokens.flatten()[places])}, tokens.numel(), np.zeros(0, np.int64)
    )


def part_of(event: Any, config: TrunkConfig, length: int, counts: tuple[int, int], queries: tuple[int, int]) -> str:
    """Which part an operation of the profiler belongs to, by its name and the shapes it is given.

    counts: of all tokens and of those predicted. queries: of a row, in other blocks and in the last.
    """
    name, shapes = event.key, [shape for shape in event.input_shapes if shape]
    sides = {side for shape in shapes for side in shape}
    if "embedding" in name:
        return "embedding"
    if "gelu" in name:
        return "GELU"
    is_product = name in ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise")
    if "layer_norm" in name or "LayerNorm" in name or (is_product and any([1, count] in shapes for count in counts)):
        return "norms"  # the product sums the gradients of a norm's weight
    if is_product and any(len(shape) == 3 for shape in shapes):
        return "attention"
    if is_product and config.vocab_size in sides:
        return "vocabulary"
    if is_product:
        return "feed-forward" if config.mlp_width in sides else "projections"
    if config.vocab_size in sides:
        return "softmax of words"
    if any(len(shape) == 4 and shape[-1] == length and shape[-2] in queries for shape in shapes):
        return "softmax of scores"
    return "sums, casts and the rest"


def measure(steps: int) -> tuple[TrunkConfig, int, dict[str, Work], dict[str, float]]:
    """(shape, tokens a step, work, seconds a token) of bert-mini's parts on this CPU."""
    recipe = load_recipe("bert-mini", ["objective.name=masked"])
    length, tokens = recipe.data.length, recipe.train.batch_tokens
    config = replace(FAMILIES["bert"].sizes["mini"], vocab_size=recipe.tokenizer.vocab_size, max_length=length)
    model = build_model(FAMILIES["bert"], config, ("masked",), seed=0).train()
    dtype = compute_dtype("auto", torch.device("cpu"))
    optimizers = Optimizers(model, recipe.train, World())
    made = batch(config.vocab_size, tokens // length, length)
    places = made.predictions["masked"].places
    counts = (tokens, len(places))
    queries = (length, Chosen.of(places, tokens // length, length).by_row.shape[1])
    seconds: dict[str, list[float]] = defaultdict(list)
    for step in range(steps + 2):
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            sums = made.loss_sums(model, dtype)
            made.loss(sums, made.counts).backward()
        update = clock(lambda: optimizers.step())
        if step < 2:
            continue
        taken: dict[str, float] = defaultdict(float)
        for event in seen.key_averages(group_by_input_shape=True):
            taken[part_of(event, config, length, counts, queries)] += event.self_cpu_time_total / 1e6
        taken["optimizer"] = update
        for name, value in taken.items():
            seconds[name].append(value / tokens)
    work = parts(config, length, 0.15, tokens, is_fused=False) | {"optimizer": optimizer(model, tokens)}
    return config, tokens, work, {name: statistics.median(values) for name, values in seconds.items()}


def on_h200() -> tuple[dict[str, Work], dict[str, float]]:
    """(work, seconds a token) of GPT-2 124M on an H200, as its figures were taken: products in one sum."""
    config = FAMILIES["gpt2"].sizes["124m"]
    work = parts(config, 1024, 1.0, H200_TOKENS, is_fused=True)
    products = {"matrix products": sum((work[name] for name in PRODUCTS), Work(0, 0))}
    others = {name: part for name, part in work.items() if name not in PRODUCTS}
    return products | others, {name: value / H200_TOKENS for name, value in H200_SECONDS.items()}


def table(work: dict[str, Work], seconds: dict[str, float], peak: dict[str, float]) -> list[str]:
    """One row for each part: counted, at best, and measured."""
    lines = [
        "| part | operations a token | bytes a token | operations a byte | at the roof, ns a token | measured "
        "| share of the time | of the roof |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    whole = sum(seconds.values())
    for name in [*work, *(name for name in seconds if name not in work)]:
        counted, taken = work.get(name), seconds.get(name)
        cells = [name]
        best = None
        if counted is not None:
            best = max(counted.operations / peak[BF16], counted.bytes / peak[BANDWIDTH])
            cells += [
                f"{counted.operations:,.0f}",
                f"{counted.bytes:,.0f}",
                f"{counted.intensity:,.1f}",
                nanoseconds(best),
            ]
        else:
            cells += [""] * 4
        if taken is None:
            cells += [""] * 3
        else:
            cells += [nanoseconds(taken), f"{taken / whole:.0%}", f"{best / taken:.0%}" if best else ""]
        lines.append(f"| {' | '.join(cells)} |")
    operations = sum(work[name].operations for name in work if name in seconds)
    reached = f"{operations / whole / peak[BF16]:.0%} of the matrix peak"
    lines.append(f"| **all** | {operations:,.0f} | | | | {nanoseconds(whole)} | 100% | {reached} |")
    return lines


def nanoseconds(seconds: float) -> str:
    return f"{seconds * 1e9:,.3g}" if seconds < 1e-6 else f"{seconds * 1e9:,.0f}"


def together(work: dict[str, Work], seconds: dict[str, float]) -> tuple[dict[str, Work], dict[str, float]]:
    """The same with the matrix products in one sum, which alone would lie on one another in the drawing."""
    products = sum((work[name] for name in PRODUCTS), Work(0, 0))
    taken = sum(seconds[name] for name in PRODUCTS)
    return (
        {"matrix products": products} | {name: part for name, part in work.items() if name not in PRODUCTS},
        {"matrix products": taken} | {name: value for name, value in seconds.items() if name not in PRODUCTS},
    )


def draw(panels: list[tuple[str, dict[str, Work], dict[str, float], dict[str, float]]]) -> str:
    """A roofline for each machine: what could be reached by operations for each byte, and what is.

    A disc's area is the part's share of the time.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(920 / 72, 400 / 72))
    for panel, (title, work, seconds, peak) in enumerate(panels):
        axes = figure.add_axes((0.065 + 0.5 * panel, 0.13, 0.425, 0.78))
        low, high = 0.05, 100_000.0
        bottom, top = low * peak[BANDWIDTH] / 8, peak[BF16] * 3
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(bottom, top), axisbelow=True)
        axes.minorticks_off()
        axes.grid(color=HAIRLINE, linewidth=0.8)
        axes.tick_params(length=0, labelcolor=MUTED)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(title, loc="left", color=INK, fontsize=FONT_SIZE)
        axes.set_xlabel("operations a byte", color=MUTED)
        axes.plot([low, peak[BF16] / peak[BANDWIDTH], high], [low * peak[BANDWIDTH], peak[BF16], peak[BF16]], color=INK)
        above = {"textcoords": "offset points", "color": INK}
        axes.annotate(f"{peak[BF16] / 1e12:.3g} TFLOP/s", (high, peak[BF16]), (0, 6), ha="right", **above)
        axes.annotate(f"{peak[BANDWIDTH] / 1e9:,.0f} GB/s", (low, low * peak[BANDWIDTH]), (22, 4), **above)
        if F32 in peak:
            axes.plot([peak[F32] / peak[BANDWIDTH], high], [peak[F32]] * 2, color=MUTED, linestyle=(0, (5, 2)))
            axes.annotate("float32", (high, peak[F32]), (0, -14), textcoords="offset points", ha="right", color=MUTED)
        reached = {name: work[name].operations / seconds[name] for name in work if name in seconds}
        place = np.inf  # of the last name: the next stands below it, so that none lies on another
        for index, (name, y) in enumerate(sorted(reached.items(), key=lambda item: -item[1])):
            x = work[name].intensity
            share = seconds[name] / sum(seconds.values())
            colour, radius = SERIES[index % len(SERIES)], 2 + 25 * share**0.5
            axes.plot([x], [y], "o", markersize=2 * radius, color=colour, alpha=0.45, markeredgewidth=0)
            height = axes.transData.transform((x, y))[1]
            under_roof = axes.transData.transform((x, peak[BF16]))[1] - FONT_SIZE
            place = min(height, under_roof, place - 1.2 * FONT_SIZE)
            beside = (radius + 4, place - height - 0.35 * FONT_SIZE)
            axes.annotate(f"{name}, {share:.0%}", (x, y), beside, textcoords="offset points", color=colour)
    figure.axes[0].set_ylabel("operations a second", color=MUTED)
    return to_svg(figure, "speed", "Rooflines: operations a second by operations for each byte, of the parts of a step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--plot", type=Path, default=PLOT, help="the drawing to write")
    add_results(parser, __file__)
    arguments = parser.parse_args()
    keep_freed_memory()
    threads = choose_threads(torch.device("cpu"))
    before = ceilings()
    config, tokens, work, seconds = measure(arguments.steps)
    peak = {name: max(rate, before[name]) for name, rate in ceilings().items()}
    h200_work, h200_seconds = on_h200()
    found = (
        f"Products {peak[BF16] / 1e12:.2f} TFLOP/s in bfloat16, {peak[F32] / 1e12:.2f} in float32; copy "
        f"{peak[BANDWIDTH] / 1e9:.1f} GB/s."
    )
    lines = [
        f"bert-mini ({config.layers} layers, {config.width} wide, {config.vocab_size:,} words) at length 128, "
        f"{tokens:,} tokens an update, 15 % predicted, on {threads_in_words(threads)}. {found}",
        "",
        *table(work, seconds, peak),
        "",
        f"GPT-2 124M at length 1,024 on an H200, {H200_TOKENS:,} tokens a pass. Products {H200[BF16] / 1e12:.0f} "
        f"TFLOP/s in bfloat16; copy {H200[BANDWIDTH] / 1e12:.1f} TB/s.",
        "",
        *table(h200_work, h200_seconds, H200),
    ]
    print("\n".join(lines))
    panels = [
        (f"bert-mini at length 128, CPU, {threads_in_words(threads)}", *together(work, seconds), peak),
        ("GPT-2 124M at length 1,024, H200", h200_work, h200_seconds, H200),
    ]
    arguments.plot.write_text(draw(panels) + "\n", encoding="utf-8")
    load = f"Load at the end {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
    write_table(arguments.results, __doc__ or "", f"Machine: {describe()}. {load}", lines)


if __name__ == "__main__":
    main()
