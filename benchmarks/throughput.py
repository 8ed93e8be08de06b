"""Training speed on the CPU: tokens a second, ours and transformers' Trainer.

Both train a model of one shape on the same tokens, with the same vocabulary and the same number of tokens a step, each
in a process of its own, in turn. Masked models learn 15 % of the tokens, masked anew each time. The Trainer runs as its
users run it: once at its defaults (float32, dropout of 0.1, AdamW), once tuned (bfloat16, no dropout, fused AdamW, no
logging), and once more with our setting of the C allocator as well (`tilth.model.precision.keep_freed_memory`), which a
user of the Trainer would have to know of. Ours runs the recipe: its loop, log and monitor. Rows are packed documents
for ours, and full blocks for the Trainer; only real tokens count.

    python benchmarks/throughput.py ../shared/data/text/english_novels/corpus.tar.zst [--seconds 20] [--repeats 3]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from machine import describe, write_table
from peers import trainer as peer

from tilth.model.precision import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "throughput.md"
BATCH_TOKENS, WARM_UP_STEPS, LEAST_STEPS = 4096, 3, 3


@dataclass(frozen=True)
class Shape:
    """A row of the table but for its length. targets: what to reach over the Trainer's defaults, and over it tuned."""

    recipe: str
    settings: tuple[str, ...]
    peer: peer.Shape
    targets: tuple[float, float]


_MASKED = ("objective.name=masked", "objective.masks=fresh")
SHAPES = {
    "bert-mini": Shape("bert-mini", _MASKED, peer.Shape(True, 30_522, 4, 256, 4), (8, 5)),
    "bert-small": Shape("bert-mini", ("size=small", *_MASKED), peer.Shape(True, 30_522, 4, 512, 8), (8, 5)),
    "gpt2-mini": Shape("gpt2-mini", (), peer.Shape(False, 8192, 4, 256, 4), (5, 3)),
}
ROWS = [(name, length) for name in ("bert-mini", "bert-small") for length in (128, 512)]
ROWS += [("gpt2-mini", 256), ("gpt2-mini", 1024)]
SYSTEMS = {"ours": "ours, tokens/s", "defaults": "Trainer", "tuned": "Trainer, tuned", "kept": "tuned, memory kept"}


def ours(shape: Shape, length: int, made: Path, seconds: float) -> float:
    """Tokens a second of `tilth pretrain` between its evaluations."""
    import tilth
    from tilth.train.trackers import read_log

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        tilth.pretrain(
            shape.recipe, made / "corpus", run,
            overrides=[
                *shape.settings, f"data.length={length}", f"train.batch_tokens={BATCH_TOKENS}",
                f"tokenizer.path={made / 'tokenizer.json'}", f"data.shards={made / 'shards'}",
                f"train.budget={seconds / 60} minutes", "train.evaluate_every=1 minutes", "train.evaluate_tokens=1000",
                "train.device=cpu", "model.start=random",
            ],
            progress=False,
        )  # fmt: skip
        steps = [record for record in read_log(run / "log.jsonl") if record["event"] == "step"]
    first, last = steps[WARM_UP_STEPS - 1], steps[-1]
    return (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])


def trainer(shape: Shape, length: int, made: Path, seconds: float, system: str) -> float:
    """Tokens a second of `Trainer.train()` after the first steps."""
    if system == "kept":
        keep_freed_memory()
    times: list[float] = []

    def is_measured() -> bool:
        times.append(time.perf_counter())
        measured = times[WARM_UP_STEPS - 1 :]
        return len(measured) > LEAST_STEPS and measured[-1] - measured[0] > seconds

    tokenizer = peer.read_tokenizer(made / "tokenizer.json", shape.peer.is_masked)
    blocks = peer.full_blocks(made / "shards", length, tokenizer)
    model = peer.make_model(shape.peer, length, dropout=0.1 if system == "defaults" else 0.0)
    with tempfile.TemporaryDirectory() as folder:
        chosen = {} if system == "defaults" else peer.TUNED
        peer.train(
            model, tokenizer, blocks, Path(folder), BATCH_TOKENS // length, is_measured, max_steps=10**6, **chosen
        )
    first = WARM_UP_STEPS - 1
    return BATCH_TOKENS * (len(times) - 1 - first) / (times[-1] - times[first])


def make(shape: Shape, text: Path, corpus: Path, folder: Path) -> None:
    """Leave the corpus, a tokenizer and shards of it in the folder."""
    import tilth

    if not corpus.exists():
        tilth.corpus_build([str(text)], corpus, progress=False)
    run = folder / "run"
    settings = [
        *shape.settings,
        f"tokenizer.vocab_size={shape.peer.vocab_size}",
        "train.budget=1 steps",
        "train.evaluate_tokens=1000",
    ]
    tilth.pretrain(shape.recipe, corpus, run, overrides=settings, progress=False)
    (folder / "corpus").symlink_to(corpus)
    for name in ("tokenizer.json", "shards"):
        (run / name).rename(folder / name)


def measure(system: str, name: str, length: int, made: Path, seconds: float) -> float:
    """One measurement, in a process of its own."""
    command = [sys.executable, __file__, str(made), "--measure", system, name, str(length), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="raw text to train on")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=3, metavar=("SYSTEM", "SHAPE", "LENGTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        system, name, length = arguments.measure
        shape, made = SHAPES[name], arguments.text
        if system == "ours":
            print(ours(shape, int(length), made, arguments.seconds))
        else:
            print(trainer(shape, int(length), made, arguments.seconds, system))
        return
    peers = list(SYSTEMS)[1:]
    over = (f"over {SYSTEMS[system]}{' (target)' * (system != 'kept')}" for system in peers)
    lines = [
        f"| shape | length | {' | '.join([*SYSTEMS.values(), *over])} |",
        "|---" * (2 + len(SYSTEMS) + len(peers)) + "|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in SHAPES:
            (Path(folder) / name).mkdir()
            make(SHAPES[name], arguments.text, Path(folder) / "corpus", Path(folder) / name)
        for name, length in ROWS:
            figures: dict[str, list[float]] = {system: [] for system in SYSTEMS}
            for _ in range(arguments.repeats):
                for system in SYSTEMS:
                    found = measure(system, name, length, Path(folder) / name, arguments.seconds)
                    figures[system].append(found)
            ratios = []
            for system, target in zip_longest(peers, SHAPES[name].targets):
                ratio = statistics.median(a / b for a, b in zip(figures["ours"], figures[system], strict=True))
                ratios.append(f"{ratio:.1f}" + (f" ({target:g})" if target else ""))
            cells = [name, str(length), *map(spread, figures.values()), *ratios]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    import transformers

    machine = f"Machine: {describe()}; transformers {transformers.__version__}; {torch.get_num_threads()} threads."
    seen = f"Medians (lowest-highest) of {arguments.repeats} runs of {arguments.seconds:g} seconds."
    write_table(RESULTS, __doc__, f"{machine} {seen}", lines)


if __name__ == "__main__":
    main()
