"""A run killed again and again with `kill -9`, and resumed each time, against the run that was never stopped.

`python -m tilth pretrain`, tiny models with dropout, four micro-batches a step, three epochs, and a checkpoint at every
fourth step. Each process is killed at a random moment: after a random number of micro-batches (the process counts them
in a shared file, see `PROBE`) and a random delay. At the end, weights, optimizer state, what the loop remembers, the
kept model, the held-out losses and the log are compared bit for bit; only times and the records of resumes may differ.

    python benchmarks/kill_anywhere.py --kills 100
"""

import argparse
import json
import mmap
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from machine import add_results, describe

import tilth
from tilth.files import sha256_file
from tilth.key import Key
from tilth.recipe import load_recipe
from tilth.train.checkpoint import checkpoint_paths
from tilth.train.trackers import read_log

RECIPES = {
    "bert": ("bert-mini", "objective.duplicates=2"),
    "roberta": ("roberta-mini",),
    "gpt2": ("gpt2-mini",),
}
TINY = (
    "model.layers=2", "model.width=32", "model.heads=2", "model.dropout=0.1", "tokenizer.vocab_size=300",
    "data.length=32", "train.lr=1e-3", "train.budget=3 epochs", "train.batch_tokens=512",
    "train.micro_batch_tokens=128", "train.evaluate_every=10 steps", "train.evaluate_tokens=600",
    "train.save_every=4 steps", "train.device=cpu", "train.precision=float32",
)  # fmt: skip
MICRO_BATCHES = 4
TIMES = ("time", "seconds", "tokens_per_second", "took")
PROBE = '''
"""Counts, where the killer can read it: micro-batches begun in this process, and those since the last update."""
import mmap, os, struct
import torch
from tilth.train.optimizers import Optimizers
shared = mmap.mmap(os.open(os.environ["TILTH_PROBE"], os.O_RDWR), 16)
counts = [0, 0]
backward = torch.Tensor.backward
def counted(*arguments, **options):
    counts[:] = counts[0] + 1, counts[1] + 1
    shared[:] = struct.pack("2q", *counts)
    return backward(*arguments, **options)
step = Optimizers.step
def updated(optimizers):
    counts[1] = 0
    shared[:] = struct.pack("2q", *counts)
    step(optimizers)
torch.Tensor.backward = counted
Optimizers.step = updated
'''


@dataclass
class Tally:
    """What happened to the runs of one family."""

    kills: int = 0
    runs: int = 0
    where: Counter[str] = field(default_factory=Counter)
    startup: list[float] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def make_corpus(folder: Path) -> Path:
    """Some of Python's help topics: about 500 rows of 32 tokens."""
    lines = [json.dumps({"id": name, "text": topics[name][:700]}) for name in sorted(topics)[:56]]
    (folder / "topics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tilth.corpus_build(
        [str(folder / "topics.jsonl")], folder / "corpus", overrides=["validation=0.125"], progress=False
    )
    return folder / "corpus"


def outcome(run: Path) -> dict[str, Any]:
    """All that a run computed."""
    records = [
        {name: value for name, value in record.items() if name not in TIMES} for record in read_log(run / "log.jsonl")
    ]
    newest = checkpoint_paths(run / "checkpoints")[-1]
    state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    del state["state"]["seconds"], state["state"]["log_bytes"]  # the log holds times as text
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    # A checkpoint is logged once it is written, some steps later: when, depends on the disk.
    saves = {record["step"] for record in records if record["event"] == "checkpoint"}
    return {
        "log": [record for record in records if record["event"] not in ("start", "resume", "checkpoint")],
        "checkpoints": sorted(saves),
        "state": state,
        "weights": sha256_file(newest / "weights.safetensors"),
        "optimizer": sha256_file(newest / "optimizer.safetensors"),
        "model": sha256_file(run / "model" / "model.safetensors"),
        "held-out loss": (summary["held_out_loss"], summary["parts"]),
    }


class Process:
    """`python -m tilth pretrain`, whose micro-batches can be counted from outside."""

    def __init__(self, folder: Path, recipe: Path, corpus: Path, run: Path, resume: bool) -> None:
        probe = folder / "probe"
        probe.mkdir(exist_ok=True)
        (probe / "sitecustomize.py").write_text(PROBE, encoding="utf-8")
        (folder / "counts").write_bytes(bytes(16))
        with open(folder / "counts", "r+b") as file:
            self._counts = mmap.mmap(file.fileno(), 16)
        search = os.pathsep.join(part for part in (str(probe), os.environ.get("PYTHONPATH", "")) if part)
        self.errors = folder / "errors.txt"
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tilth", "pretrain", str(recipe), "--corpus", str(corpus), "--out", str(run)]
                + ["--resume"] * resume,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": search, "TILTH_PROBE": str(folder / "counts")},
            )
        self.started = time.perf_counter()

    def counts(self) -> tuple[int, int]:
        """Micro-batches begun, and begun since the last update."""
        begun, since = struct.unpack("2q", self._counts[:])
        return begun, since

    def wait_for(self, micro_batches: int) -> float | None:
        """Until so many were begun; the seconds until the first, or None when the process ended before."""
        first = None
        while True:
            begun = self.counts()[0]
            if begun and first is None:
                first = time.perf_counter() - self.started
            if begun >= micro_batches:
                return first
            if self.process.poll() is not None:
                return None
            time.sleep(0.0005)

    def finish(self) -> None:
        if self.process.wait() != 0:
            raise SystemExit(f"the run failed: {self.errors.read_text(encoding='utf-8')}")


def where(run: Path, since_update: int, steps_per_epoch: float) -> list[str]:
    """What the kill interrupted, from what it left behind."""
    found = []
    log, checkpoints = run / "log.jsonl", run / "checkpoints"
    steps = [record["step"] for record in read_log(log) if record["event"] == "step"] if log.exists() else []
    found.append(f"epoch {int(max(steps, default=0) / steps_per_epoch)}")
    if 0 < since_update < MICRO_BATCHES:
        found.append("accumulation")
    paths = checkpoint_paths(checkpoints)
    latest = checkpoints / "latest"
    if any(checkpoints.glob(".step-*")) or (
        paths and (not latest.exists() or latest.read_text().strip() != paths[-1].name)
    ):
        found.append("save")
    if not paths:
        found.append("before the first checkpoint")
    return found


def torture(family: str, kills: int, seed: int, folder: Path, corpus: Path) -> Tally:
    """Kill runs of a family so many times, and compare each with the straight run."""
    folder.mkdir()
    recipe = folder / "recipe.yaml"
    name, *overrides = RECIPES[family]
    recipe.write_text(load_recipe(name, [*TINY, *overrides]).to_yaml(), encoding="utf-8")
    Process(folder, recipe, corpus, folder / "straight", False).finish()
    straight = outcome(folder / "straight")
    steps = [record for record in straight["log"] if record["event"] == "step"]
    steps_per_epoch = steps[-1]["step"] / steps[-1]["epoch"]
    tally = Tally()
    while tally.kills < kills:
        run, resume, done = folder / f"run-{tally.runs}", False, False
        while not done:
            process = Process(folder, recipe, corpus, run, resume)
            if tally.kills < kills:
                draw = Key(seed, tally.kills, f"kill {family}").generator()
                first = process.wait_for(int(draw.integers(1, 14 * MICRO_BATCHES)))
                time.sleep(float(draw.uniform(0, 0.04)))
                if first is not None and process.process.poll() is None:
                    process.process.kill()
                    process.process.wait()
                    if resume:
                        tally.startup.append(first)
                    tally.kills += 1
                    tally.where.update(where(run, process.counts()[1], steps_per_epoch))
                    resume = True
                    continue
            process.finish()
            done = True
        tally.runs += 1
        result = outcome(run)
        tally.differences += [f"run {tally.runs}: {part}" for part in straight if result[part] != straight[part]]
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    columns = ("epoch 0", "epoch 1", "epoch 2", "accumulation", "save", "before the first checkpoint")
    lines = [
        "| family | kills | " + " | ".join(f"in {column}" for column in columns[:3])
        + " | amid accumulation | during a save | before the first checkpoint | whole runs | what differs |",
        "|" + "---|" * 10,
    ]  # fmt: skip
    startup, total, unequal = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder))
        for number, family in enumerate(RECIPES):
            share = (arguments.kills + len(RECIPES) - 1 - number) // len(RECIPES)
            tally = torture(family, share, arguments.seed, Path(folder) / family, corpus)
            startup += tally.startup
            total, unequal = total + tally.kills, unequal + len(tally.differences)
            cells = [family, tally.kills, *(tally.where[column] for column in columns), tally.runs]
            lines.append(f"| {' | '.join(map(str, cells))} | {'; '.join(tally.differences) or 'nothing'} |")
            print(lines[-1], flush=True)
    what = __doc__.split("\n\n")[1]
    head = f"# Killed anywhere, the run ends the same\n\n{what}\n\nMachine: {describe('float32')}.\n"
    foot = (
        f"{total} kills, seed {arguments.seed}; {unequal} differences. From the start of the process to its first "
        f"micro-batch a resume took {statistics.median(startup):.1f} s (median), {max(startup):.1f} s at most, on a "
        "busy machine."
    )
    arguments.results.write_text(head + "\n" + "\n".join(lines) + "\n\n" + foot + "\n", encoding="utf-8")
    print(foot)
    sys.exit(unequal > 0)


if __name__ == "__main__":
    main()
