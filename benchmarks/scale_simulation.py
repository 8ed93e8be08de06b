"""Time, memory and failures of a 1.3B and a 13B run, simulated: no GPU is used.

Memory is counted as `tilth plan` counts it, and divided as FSDP divides it. Time is operations over peak speed at a
stated utilisation. The interval between checkpoints is Daly's; the share of the time that is of use is expected by his
formula and simulated with seeds. Writes results/scale_simulation.md.

    python benchmarks/scale_simulation.py
"""

import statistics
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tilth.model.families import FAMILIES
from tilth.model.model import Model
from tilth.recipe import load_recipe
from tilth.train.planning.failures import (
    daly_interval,
    mean_time_between_failures,
    simulated_share,
    useful_share,
    young_interval,
)
from tilth.train.planning.memory import Network, estimate

PEAK, UTILISATION = 989e12, 0.40
"""An H100's bfloat16 operations a second, and the share of them in use (torchtitan and llm-foundry: 0.33 to 0.46)."""
LENGTH = 2048
WRITE, SAVE_AT_LEAST = 2e9, 5.0
"""Bytes a second that a host writes to shared storage, and the seconds that any save takes: assumptions."""
RESTART = 600.0
"""Seconds to notice, replace a host, start processes and read the checkpoint: an assumption."""
SEEDS = 20
RESULTS = Path(__file__).parent / "results" / "scale_simulation.md"


@dataclass(frozen=True)
class Job:
    """A size of gpt3 on so many GPUs, with 20 tokens a parameter."""

    size: str
    gpus: int


JOBS = (Job("1.3b", 8), Job("1.3b", 64), Job("13b", 64), Job("13b", 256), Job("13b", 1024))


def network(size: str, layers: int | None = None) -> Network:
    config = FAMILIES["gpt3"].sizes[size]
    config = replace(config, max_length=LENGTH, layers=layers or config.layers)
    recipe = load_recipe("gpt3-mini", [f"data.length={LENGTH}", "train.optimizer=adamw"])
    return Network(FAMILIES["gpt3"], config, ("causal",), recipe, torch.bfloat16, torch.device("cpu"))


def memory_of_a_gpu(size: str, gpus: int) -> tuple[float, float]:
    """Bytes on each GPU with one row: without and with activation checkpointing.

    Weights, gradients and AdamW's two moments, float32, are divided among the GPUs; two blocks are gathered at a time,
    in bfloat16. A checkpointed block keeps its input only, and one block is computed again.
    """
    one, two = (estimate(network(size, layers), 1, 2) for layers in (1, 2))
    layers = FAMILIES["gpt3"].sizes[size].layers
    block, activations = two.weights - one.weights, two.activations - one.activations
    state = (one.weights + (layers - 1) * block) * 4 / gpus + block  # two blocks of half the bytes
    rest = one.activations - activations
    inputs = layers * LENGTH * FAMILIES["gpt3"].sizes[size].width * 2
    return state + rest + layers * activations, state + rest + inputs + activations


def row(job: Job) -> str:
    with torch.device("meta"):
        whole = network(job.size)
        model = Model(whole.family, whole.config, whole.heads)
    parameters = model.num_parameters()
    tokens = 20 * parameters
    operations = model.flops_per_token(LENGTH) + 6 * whole.config.vocab_size * whole.config.width
    training = tokens * operations / (job.gpus * PEAK * UTILISATION)
    plain, checkpointed = memory_of_a_gpu(job.size, job.gpus)
    save = max(SAVE_AT_LEAST, 12 * parameters / WRITE)  # the first process writes for all
    mtbf = mean_time_between_failures(job.gpus)
    interval = daly_interval(save, mtbf)
    share = useful_share(interval, save, RESTART, mtbf)
    # Long enough that every seed has failures to show: a thousand of them, or the run itself where that is longer.
    saves = min(200_000, max(int(training / interval), int(1000 * mtbf / interval)) + 1)
    shares = [simulated_share(interval, save, RESTART, mtbf, saves, seed) for seed in range(SEEDS)]
    hourly = useful_share(3600, save, RESTART, mtbf)
    cells = [
        f"gpt3 {job.size} ({parameters / 1e9:.2f} B)", f"{job.gpus:,}", f"{tokens / 1e9:,.0f} B",
        f"{plain / 1e9:.0f} / {checkpointed / 1e9:.0f}", f"{training / 86_400:,.2f}",
        f"{mtbf / 3600:,.1f}", f"{training / share / mtbf:.2f}", f"{save:,.1f}",
        f"{young_interval(save, mtbf) / 60:,.1f} / {interval / 60:,.1f}", f"{100 * share:.2f}",
        f"{100 * statistics.mean(shares):.2f} ({100 * min(shares):.2f} to {100 * max(shares):.2f})",
        f"{100 * hourly:.2f}", f"{training / share / 86_400:,.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    names = [
        "model", "GPUs", "tokens", "GB a GPU, plain / checkpointed activations", "days of training",
        "hours between failures", "failures to expect", "seconds a save", "minutes between saves, Young / Daly",
        "useful share, %, expected", "simulated, 20 seeds (range)", "when saving hourly", "days in all",
    ]  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for job in JOBS:
        lines.append(row(job))
        print(lines[-1], flush=True)
    assumed = (
        "Nothing here was run on a GPU: `python benchmarks/scale_simulation.py` computes it. Assumed: H100s at "
        f"{PEAK / 1e12:.0f} TFLOPS, {100 * UTILISATION:.0f} % of which is reached; {LENGTH:,} tokens a row, one row at "
        "a time on each GPU; 20 tokens a parameter; the first process gathers and writes a checkpoint, at "
        f"{WRITE / 1e9:.0f} GB a second, a save takes {SAVE_AT_LEAST:.0f} seconds at least, and training waits for it; "
        f"a restart takes {RESTART / 60:.0f} minutes; failures come at the rate of Llama 3's run (419 unexpected "
        "interruptions in 54 days on 16,384 GPUs). Memory is counted from the trunk's own operations with AdamW, its "
        "state divided among the GPUs. Left out: what NCCL and the allocator add, and the first process's host, which "
        "holds the weights and AdamW's state (12 bytes a parameter) twice during a save. A simulated run is a thousand "
        "failures long, so that its range shows more than luck with one."
    )
    text = f"# Runs at scale, simulated\n\n{textwrap.fill(assumed, 120)}\n\n" + "\n".join(lines) + "\n"
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
