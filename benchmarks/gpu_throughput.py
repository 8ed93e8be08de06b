"""Training speed on a GPU: tokens a second and share of the peak, ours, transformers' Trainer and a plain loop.

GPT-2 124M at length 1,024 and BERT-base at length 512, in bfloat16, on the same tokens, with the same vocabulary and
524,288 tokens a step. Ours runs the recipe: its loop, log and monitor, document boundaries kept. The Trainer is tuned
(bfloat16, fused AdamW, no dropout, no logging), once without and once with torch.compile. The plain loop is nanoGPT's:
transformers' model compiled whole, autocast, fused AdamW, TF32, the vocabulary padded to a multiple of 64, gradients
accumulated without synchronisation. Medians are over steps. The peak is a product of two matrices of 8,192 rows and
columns in bfloat16, measured in the same run; operations a token are counted as Model.flops_per_token does for all.

    python benchmarks/gpu_throughput.py FOLDER --prepare ../shared/data/text/english_novels/corpus.tar.zst
    python benchmarks/gpu_throughput.py FOLDER [--steps 12] [--repeats 1]
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from machine import add_results, describe, write_table
from peers import trainer as peer
from throughput import Shape, make

STEP_TOKENS, MICRO_BATCH_TOKENS, WARM_UP_STEPS = 524_288, 65_536, 3
_MASKED = ("objective.name=masked", "objective.masks=fresh")
SHAPES = {
    "gpt2": (
        Shape("gpt2-mini", ("objective.vocabulary_share=1",), peer.Shape(False, 50_257, 12, 768, 12), (2, 1)),
        1024,
    ),
    "bert": (Shape("bert-mini", _MASKED, peer.Shape(True, 30_522, 12, 768, 12), (2, 1)), 512),
}
SIZES = {"gpt2": "124m", "bert": "base"}
SYSTEMS = ("ours", "trainer", "trainer compiled", "plain loop")


def ours(name: str, made: Path, steps: int) -> list[float]:
    """Seconds of each step of `tilth pretrain`, from its log."""
    import tilth
    from tilth.train.trackers import read_log

    shape, length = SHAPES[name]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        total = WARM_UP_STEPS + steps
        tilth.pretrain(
            shape.recipe, made.parent / "corpus", run,
            overrides=[
                *shape.settings, f"size={SIZES[name]}", f"data.length={length}", f"train.batch_tokens={STEP_TOKENS}",
                f"tokenizer.path={made / 'tokenizer.json'}", f"data.shards={made / 'shards'}",
                f"train.budget={total} steps", f"train.evaluate_every={total} steps",
                f"train.save_every={total} steps", "train.evaluate_tokens=1000", "train.device=cuda",
                "model.start=random",
            ],
            progress=False,
        )  # fmt: skip
        records = [record for record in read_log(run / "log.jsonl") if record["event"] == "step"]
    times = [record["seconds"] for record in records]
    # A step that a packed row leaves places free in has fewer tokens: as if they were computed at the same speed.
    shares = [STEP_TOKENS / (b["tokens"] - a["tokens"]) for a, b in itertools.pairwise(records)]
    return [(b - a) * share for a, b, share in zip(times, times[1:], shares, strict=False)][WARM_UP_STEPS - 1 :]


def trainer(name: str, made: Path, steps: int, compiled: bool) -> list[float]:
    """Seconds of each step of `Trainer.train()`."""
    shape, length = SHAPES[name]
    times: list[float] = []

    def note_time() -> bool:
        torch.cuda.synchronize()
        times.append(time.perf_counter())
        return False

    tokenizer = peer.read_tokenizer(made / "tokenizer.json", shape.peer.is_masked)
    blocks = peer.full_blocks(made / "shards", length, tokenizer)
    model = peer.make_model(shape.peer, length, tokenizer, dropout=0.0)
    with tempfile.TemporaryDirectory() as folder:
        peer.train(
            model, tokenizer, blocks, Path(folder), MICRO_BATCH_TOKENS // length, note_time, use_cpu=False,
            gradient_accumulation_steps=STEP_TOKENS // MICRO_BATCH_TOKENS, max_steps=WARM_UP_STEPS + steps, tf32=True,
            torch_compile=compiled, dataloader_num_workers=4, **peer.tuned("cuda"),
        )  # fmt: skip
    return [b - a for a, b in itertools.pairwise(times)][WARM_UP_STEPS - 1 :]


def plain_loop(name: str, made: Path, steps: int) -> list[float]:
    """Seconds of each step of a loop as nanoGPT's."""
    torch.set_float32_matmul_precision("high")
    shape, length = SHAPES[name]
    vocab_size = -(-shape.peer.vocab_size // 64) * 64
    tokenizer = peer.read_tokenizer(made / "tokenizer.json", shape.peer.is_masked)
    padded = replace(shape.peer, vocab_size=vocab_size)
    model = torch.compile(peer.make_model(padded, length, tokenizer, dropout=0.0).to("cuda").train())
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
    rows = peer.full_blocks(made / "shards", length, tokenizer)
    data = torch.stack([torch.from_numpy(row["input_ids"]) for row in rows])
    generator = torch.Generator().manual_seed(0)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            tokens = data[torch.randint(len(data), (MICRO_BATCH_TOKENS // length,), generator=generator)]
            if not shape.peer.is_masked:
                inputs, labels = tokens, torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
            else:
                chosen = torch.rand(tokens.shape, generator=generator) < 0.15
                inputs, labels = tokens.masked_fill(chosen, 4), tokens.masked_fill(~chosen, -100)
            yield tuple(part.pin_memory().to("cuda", non_blocking=True) for part in (inputs, labels))

    upcoming, accumulation, times = batches(), STEP_TOKENS // MICRO_BATCH_TOKENS, []
    inputs, labels = next(upcoming)
    for _ in range(WARM_UP_STEPS + steps):
        for _ in range(accumulation):
            with torch.autocast("cuda", torch.bfloat16):
                logits = model(input_ids=inputs).logits
                loss = torch.nn.functional.cross_entropy(logits.view(-1, vocab_size), labels.view(-1))
            inputs, labels = next(upcoming)
            (loss / accumulation).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter())
    return [b - a for a, b in itertools.pairwise(times)][WARM_UP_STEPS - 1 :]


def peak_rate() -> float:
    """Operations a second of a large product in bfloat16, the median of 20."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(25):
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        left @ right
        ended.record()
        torch.cuda.synchronize()
        times.append(started.elapsed_time(ended) / 1000)
    return 2 * 8192**3 / statistics.median(times[5:])


def flops_per_token(name: str) -> float:
    """As our model counts them, with 15 % of BERT's tokens projected to the vocabulary."""
    from tilth.model.families import FAMILIES
    from tilth.model.model import Model

    _, length = SHAPES[name]
    heads, predicted = {"gpt2": (("causal",), 1.0), "bert": (("masked",), 0.15)}[name]
    with torch.device("meta"):
        return Model(FAMILIES[name], FAMILIES[name].sizes[SIZES[name]], heads).flops_per_token(length, predicted)


def measure(system: str, name: str, made: Path, steps: int) -> list[float]:
    """Seconds of the steps of one system, in a process of its own."""
    command = [sys.executable, __file__, str(made), "--measure", system, name, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(f"{system}, {name}, failed:\n{done.stderr[-3000:]}\n")
        return []
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("made", type=Path, help="folder of corpus, tokenizers and shards")
    parser.add_argument("--prepare", type=Path, metavar="TEXT", help="make that folder from raw text; needs no GPU")
    parser.add_argument("--steps", type=int, default=12, help="measured steps of each run")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    parser.add_argument("--measure", nargs=2, metavar=("SYSTEM", "SHAPE"), help=argparse.SUPPRESS)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    if arguments.prepare:
        for name, (shape, _) in SHAPES.items():
            (arguments.made / name).mkdir(parents=True)
            make(shape, arguments.prepare, arguments.made / "corpus", arguments.made / name)
        return
    if arguments.measure:
        system, name = arguments.measure
        made = arguments.made / name
        if system == "ours":
            seconds = ours(name, made, arguments.steps)
        elif system == "plain loop":
            seconds = plain_loop(name, made, arguments.steps)
        else:
            seconds = trainer(name, made, arguments.steps, system == "trainer compiled")
        print(*seconds)
        return
    peak = peak_rate()
    lines = ["| shape | system | tokens/s (lowest-highest) | of the peak | ours over it |", "|---|---|---|---|---|"]
    for name in arguments.shapes:
        seconds: dict[str, list[float]] = {system: [] for system in arguments.systems}
        for _ in range(arguments.repeats):
            for system in arguments.systems:
                seconds[system] += measure(system, name, arguments.made, arguments.steps)
                print(f"{name}, {system}: {[round(value, 3) for value in seconds[system]]} s a step", flush=True)
        rates = {system: [STEP_TOKENS / value for value in times] for system, times in seconds.items() if times}
        for system, found in rates.items():
            rate = statistics.median(found)
            share = rate * flops_per_token(name) / peak
            ratio = statistics.median(rates["ours"]) / rate if "ours" in rates else float("nan")
            cells = [f"{name}, {SHAPES[name][1]}", system, f"{rate:,.0f} ({min(found):,.0f}-{max(found):,.0f})"]
            lines.append(f"| {' | '.join([*cells, f'{share:.1%}', f'{ratio:.2f}'])} |")
            print(lines[-1], flush=True)
    import transformers

    machine = f"Machine: {describe(device='cuda')}; transformers {transformers.__version__}."
    about = f"{machine} Peak: {peak / 1e12:.0f} TFLOP/s. {arguments.repeats} x {arguments.steps} steps of each."
    write_table(arguments.results, __doc__, about, lines)


if __name__ == "__main__":
    main()
