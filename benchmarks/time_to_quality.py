"""Time to quality on the CPU: how soon ours is as good as a long run of transformers' Trainer.

Both train a model of one shape and vocabulary on the same documents; both are scored by `tilth evaluate --lm` on the
documents held out. The Trainer is tuned: its rate searched in short runs, warm-up, a linear fall, bfloat16 where the
processor has units for it, fused AdamW, no dropout, no logging, and our setting of the C allocator, which alone makes
it 1.1 to 2.2 times as fast. Ours are the built-in recipes with that shape, but that an evaluation on schedule scores
30,000 tokens; their rates were chosen on these documents, too (NOTES.md). One has the Trainer's architecture;
`qwen3-mini` has that of today's decoders, with as many layers, as wide, and somewhat fewer parameters. All that ours
need counts but the tokenizer: the start of Python, shards, the start from the corpus, evaluations, checkpoints.

What a run reaches depends on its number of steps, and how long these take on who else uses the machine. So speed is
measured first, on a quiet machine: steps by turns of a few seconds, all systems under way at once, and what else a run
takes by whole runs of few steps. M minutes are then the steps that they give at that speed, in however long. The
minutes at which ours reach the Trainer's loss lie between two of its budgets, by a straight line over the logarithm of
minutes; and how many times as fast a run of ours is follows from the Trainer's runs in the same way. The plateau of a
young masked model is left when its held-out loss, as the run evaluates it on schedule, is 1 nat below the entropy of
the held-out text's words.

    python benchmarks/time_to_quality.py ../shared/data/text/english_novels/corpus.tar.zst --objective masked
        [--work FOLDER] [--only speed search peer ours table] [--minutes 60] [--budgets 4 6 8] [--seeds 0 1 2]

--work keeps what was made and every figure: what it holds is not done again, so a stopped benchmark goes on. A single
one of --rates, from a search elsewhere, is not searched.
"""

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from machine import describe, write_table
from peers import trainer
from turns import ENDLESS, after_our_steps, sample_words_as_often_as_a_run, step_seconds

import tilth
from tilth.model.precision import keep_freed_memory
from tilth.tokens.shards import open_shards
from tilth.train.trackers import read_log

RESULTS = Path(__file__).parent / "results"
BATCH_TOKENS = 4096
TRAINER = "trainer"
SHORT_STEPS = 20
"""Of the whole runs that measure what a run takes beside its steps."""
WARMUP, WEIGHT_DECAY = 0.05, 0.01
PLATEAU_TARGET = 2
RATES = (5e-4, 1e-3, 2e-3)


@dataclass(frozen=True)
class Setting:
    """One row of the table. recipes: ours. measure: of `tilth evaluate --lm`, what to compare."""

    recipes: tuple[str, ...]
    overrides: tuple[str, ...]
    shape: trainer.Shape
    length: int
    measure: str
    target: float


SETTINGS = {
    "masked": Setting(
        ("bert-mini",), ("objective.name=masked", "objective.masks=fresh"),
        trainer.Shape(True, 30_522, 4, 256, 4), 128, "loss", 10,
    ),
    "causal": Setting(
        ("gpt2-mini", "qwen3-mini"), (), trainer.Shape(False, 8192, 4, 256, 4), 256, "bits_per_byte", 6,
    ),
}  # fmt: skip


class Work:
    """The folder of a benchmark: what was made for it, and its figures so far, one JSON object a line."""

    def __init__(self, folder: Path, objective: str) -> None:
        self.folder, self.objective, self.setting = folder, objective, SETTINGS[objective]
        self.corpus = folder / "corpus"
        self.made = folder / objective
        self.made.mkdir(parents=True, exist_ok=True)

    @property
    def tokenizer(self) -> Path:
        return self.made / "tokenizer.json"

    @property
    def figures(self) -> list[dict[str, Any]]:
        path = self.made / "figures.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def add(self, **figure: Any) -> None:
        with (self.made / "figures.jsonl").open("a") as file:
            file.write(json.dumps(figure) + "\n")
        print(figure, flush=True)

    def prepare(self, text: Path) -> None:
        """Make the corpus, the tokenizer, and shards for the Trainer."""
        if not self.corpus.exists():
            tilth.corpus_build([str(text)], self.corpus, progress=False)
        if not self.tokenizer.exists():
            settings = [
                *self.setting.overrides, f"tokenizer.vocab_size={self.setting.shape.vocab_size}",
                "train.budget=1 steps", "train.evaluate_tokens=1000",
            ]  # fmt: skip
            tilth.pretrain(
                self.setting.recipes[0], self.corpus, self.made / "first", overrides=settings, progress=False
            )
            (self.made / "first" / "shards").rename(self.made / "shards")
            (self.made / "first" / "tokenizer.json").rename(self.tokenizer)

    def run(self, system: str, steps: int, seed: int, rate: float | None) -> float:
        """Seconds that one whole run takes, in a process of its own."""
        out = self.out(system, steps, seed, rate)
        shutil.rmtree(out, ignore_errors=True)  # of a run that was stopped
        asked = {"system": system, "steps": steps, "seed": seed, "rate": rate}
        command = [sys.executable, __file__, str(self.folder), "--objective", self.objective, "--work", str(out)]
        started = time.perf_counter()
        done = subprocess.run([*command, "--run", json.dumps(asked)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return time.perf_counter() - started

    def out(self, system: str, steps: int, seed: int, rate: float | None) -> Path:
        return self.made / f"{system}-{steps}-{seed}-{rate}"

    def minutes(self, system: str, steps: int) -> float:
        """How long a run of some steps takes on a quiet machine."""
        fixed, step = self.speed(system)
        return (fixed + steps * step) / 60

    def steps(self, system: str, minutes: float) -> int:
        fixed, step = self.speed(system)
        if minutes * 60 <= fixed:
            sys.exit(f"{minutes:g} minutes are less than a run of {system} takes to start")
        return round((minutes * 60 - fixed) / step)

    def speed(self, system: str) -> tuple[float, float]:
        """Seconds that a run takes beside its steps, and seconds of a step: medians."""
        found = self.scored(system, "speed")
        if not found:
            sys.exit("measure the speed first: --only speed")
        step = statistics.median(found[-1]["step_seconds"])
        return statistics.median(found[-1]["short_runs"]) - SHORT_STEPS * step, step

    def measure_speed(self, systems: tuple[str, ...], seconds: float, rounds: int, repeats: int) -> None:
        rates = {system: RATES[0] if system == TRAINER else None for system in systems}
        endless = {}
        for system, rate in rates.items():
            asked = {"system": system, "steps": ENDLESS, "seed": 1000, "rate": rate}
            out = self.out(*asked.values())
            shutil.rmtree(out, ignore_errors=True)
            endless[system] = partial(train, self.made, self.setting, asked, out)
        steps = step_seconds(endless, seconds, rounds)
        short: dict[str, list[float]] = {system: [] for system in systems}
        for number in range(repeats):
            for system, rate in rates.items():
                short[system].append(self.run(system, SHORT_STEPS, 1000 + number, rate))
        for system in systems:
            self.add(kind="speed", system=system, step_seconds=steps[system], short_runs=short[system])

    def scored(self, system: str, kind: str = "run") -> list[dict[str, Any]]:
        return [figure for figure in self.figures if figure["kind"] == kind and figure["system"] == system]

    def score(self, kind: str, system: str, minutes: float, seed: int, rate: float | None) -> None:
        """Train and score, unless the figures hold it."""
        asked = {"kind": kind, "system": system, "asked": minutes, "seed": seed, "rate": rate}
        if any(asked.items() <= figure.items() for figure in self.figures if figure["kind"] == kind):
            return
        steps = self.steps(system, minutes)
        took = self.run(system, steps, seed, rate)
        model = self.out(system, steps, seed, rate)
        evaluations = []
        if system != TRAINER:
            logged = [record for record in read_log(model / "log.jsonl") if record["event"] == "evaluation"]
            evaluations = [(record["step"], record["held_out_loss"]) for record in logged]
            model = model / "model"
        found = tilth.evaluate(model, self.corpus, lm=True, progress=False)
        self.add(
            **asked, steps=steps, loss=found["loss"], bits_per_byte=found["bits_per_byte"],
            evaluations=evaluations, took=round(took / 60, 2),
        )  # fmt: skip


def train(
    made: Path, setting: Setting, asked: dict[str, Any], out: Path, on_step: Callable[[], bool] = lambda: False
) -> None:
    """One whole run, in this process."""
    run = run_trainer if asked["system"] == TRAINER else run_ours
    run(made, setting, asked, out, on_step)


def run_ours(made: Path, setting: Setting, asked: dict[str, Any], out: Path, on_step: Callable[[], bool]) -> None:
    after_our_steps(on_step)
    if asked["steps"] == ENDLESS:
        sample_words_as_often_as_a_run()
    overrides = [
        *setting.overrides, f"data.length={setting.length}", f"seed={asked['seed']}",
        f"train.budget={asked['steps']} steps", "train.evaluate_tokens=30000",
        f"tokenizer.path={made / 'tokenizer.json'}",
    ]  # fmt: skip
    tilth.pretrain(asked["system"], made.parent / "corpus", out, overrides=overrides, progress=False)


def run_trainer(made: Path, setting: Setting, asked: dict[str, Any], out: Path, on_step: Callable[[], bool]) -> None:
    keep_freed_memory()
    transformers.set_seed(asked["seed"])
    tokenizer = trainer.read_tokenizer(made / "tokenizer.json", setting.shape.is_masked)
    blocks = trainer.full_blocks(made / "shards", setting.length, tokenizer)
    model = trainer.make_model(setting.shape, setting.length, tokenizer, dropout=0.0)
    trainer.train(
        model, tokenizer, blocks, out / "trainer", BATCH_TOKENS // setting.length, on_step, seed=asked["seed"],
        max_steps=asked["steps"], learning_rate=asked["rate"], warmup_steps=WARMUP, lr_scheduler_type="linear",
        weight_decay=WEIGHT_DECAY, **trainer.tuned(),
    )  # fmt: skip
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def best_rate(work: Work, rates: list[float], minutes: float) -> float:
    """The Trainer's rate: the only one given, or that whose search of some minutes reached the lowest loss."""
    if len(rates) == 1:
        return rates[0]
    found = [figure for figure in work.scored(TRAINER, "search") if figure["asked"] == minutes]
    if not found:
        sys.exit("search the Trainer's rate first: --only search")
    return min(found, key=lambda figure: figure["loss"])["rate"]


def reached(budgets: list[tuple[float, float]], loss: float) -> tuple[float, str]:
    """Minutes at which (minutes, loss) falls to a loss, and in words; the first budget's where that is below already,
    infinity where none is."""
    budgets = sorted(budgets)
    if budgets[0][1] <= loss:
        return budgets[0][0], f"within {budgets[0][0]:.1f} minutes, the smallest budget"
    for (early, high), (late, low) in zip(budgets, budgets[1:], strict=False):
        if low <= loss <= high:
            share = (high - loss) / (high - low)
            value = math.exp(math.log(early) + share * (math.log(late) - math.log(early)))
            return value, f"{value:.1f} minutes"
    return math.inf, ""


def times_as_fast(trainer: list[tuple[float, float]], minutes: float, loss: float) -> str:
    """How much longer the Trainer takes to a run's loss, by (minutes, loss) of its own runs, in words.

    Empty where the loss is above all of these.
    """
    trainer = sorted(trainer)
    if loss > trainer[0][1]:
        return ""
    if loss < trainer[-1][1]:
        return f"more than {trainer[-1][0] / minutes:.1f}"
    return f"{reached(trainer, loss)[0] / minutes:.1f}"


def unigram_entropy(work: Work) -> float:
    """Of the held-out text, in nats a token."""
    split = open_shards(work.made / "shards").split("validation")
    starts = split.document_starts
    counts = np.bincount(split.tokens(starts[:-1], np.diff(starts)))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def plateau_left(work: Work, figure: dict[str, Any], loss: float) -> float | None:
    """Minutes until an evaluation of a run was at a loss or below."""
    below = [step for step, evaluated in figure["evaluations"] if evaluated <= loss]
    return work.minutes(figure["system"], below[0]) if below else None


def table(work: Work, minutes: float, results: Path) -> None:
    measure, target = work.setting.measure, work.setting.target
    peers = {figure["seed"]: figure for figure in work.scored(TRAINER) if figure["asked"] == minutes}
    if not peers:
        sys.exit(f"the Trainer has not run for {minutes:g} minutes: --only peer")
    goal = statistics.mean(figure[measure] for figure in peers.values())
    took = statistics.mean(work.minutes(TRAINER, figure["steps"]) for figure in peers.values())
    by_steps: dict[int, list[float]] = {}
    for figure in work.scored(TRAINER):
        by_steps.setdefault(figure["steps"], []).append(figure[measure])
    trainer_runs = [(work.minutes(TRAINER, steps), statistics.mean(found)) for steps, found in by_steps.items()]
    lines = [f"| run | seed | steps | minutes | {measure} | times as fast |", "|---|--:|--:|--:|--:|--:|"]
    rows = [("search", TRAINER), *(("run", system) for system in (TRAINER, *work.setting.recipes))]
    for kind, system in rows:
        for figure in work.scored(system, kind):
            name = f"Trainer, rate {figure['rate']:g}" if system == TRAINER else f"ours, {system}"
            taken = work.minutes(system, figure["steps"])
            faster = "" if system == TRAINER else times_as_fast(trainer_runs, taken, figure[measure])
            cells = (figure["seed"], f"{figure['steps']:,}", f"{taken:.1f}", f"{figure[measure]:.4f}", faster)
            lines.append(f"| {name}{', search' * (kind == 'search')} | {' | '.join(map(str, cells))} |")
    says = ["The Trainer's rate is the best of a search elsewhere."] if not work.scored(TRAINER, "search") else []
    says += [f"The Trainer reaches {goal:.4f} in {took:.1f} minutes, on average over seeds {sorted(peers)}."]
    for recipe in work.setting.recipes:
        ratios = []
        for seed in sorted({figure["seed"] for figure in work.scored(recipe)}):
            budgets = [(work.minutes(recipe, f["steps"]), f[measure]) for f in work.scored(recipe) if f["seed"] == seed]
            value, words = reached(budgets, goal)
            if words:
                ratios.append(took / value)
            fast = f"{words}, {took / value:.1f} times as fast" if words else "not with these budgets"
            says.append(f"{recipe}, seed {seed}: {fast}.")
        if ratios:
            says.append(
                f"Median over {len(ratios)} seed{'s' * (len(ratios) > 1)}: {statistics.median(ratios):.1f} times as "
                f"fast (target {target:g})."
            )
    if work.objective == "masked":
        entropy = unigram_entropy(work)
        ours = [figure for recipe in work.setting.recipes for figure in work.scored(recipe)]
        left = [plateau_left(work, figure, entropy - 1) for figure in ours]
        # A long run's first evaluation comes late, when the plateau is long left.
        seen = [by for by, figure in zip(left, ours, strict=True) if by and figure["evaluations"][0][1] > entropy - 1]
        says.append(
            f"The held-out text has an entropy of {entropy:.2f} nats a token; {len(left) - left.count(None)} of "
            f"{len(left)} runs of ours came 1 nat below it, the last of the {len(seen)} that were evaluated before "
            f"after {max(seen, default=math.nan):.1f} minutes (target {PLATEAU_TARGET:g})."
        )
    speeds = {system: work.speed(system) for system in (TRAINER, *work.setting.recipes) if work.scored(system)}
    says += [
        f"A run of {name}: {fixed:.1f} s and {step * 1000:.0f} ms a step." for name, (fixed, step) in speeds.items()
    ]
    machine = f"Machine: {describe()}; transformers {transformers.__version__}."
    write_table(results, __doc__, f"{machine} {' '.join(says)}", lines)
    print("\n".join([*says, *lines]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="raw text to train on")
    parser.add_argument("--objective", choices=sorted(SETTINGS), required=True)
    parser.add_argument("--work", type=Path, default=Path("time-to-quality"), help="where everything is kept")
    phases = ("speed", "search", "peer", "ours", "table")
    parser.add_argument("--only", nargs="+", choices=phases, default=phases)
    parser.add_argument("--recipes", nargs="+", help="of ours; default: all of the objective")
    parser.add_argument("--minutes", type=float, default=60.0, help="the Trainer's")
    parser.add_argument("--search-minutes", type=float, default=6.0)
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, help="of the Trainer, to search")
    parser.add_argument("--budgets", nargs="+", type=float, default=[4, 6, 8], help="ours, in minutes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn that measures speed")
    parser.add_argument("--rounds", type=int, default=9, help="of such turns")
    parser.add_argument("--repeats", type=int, default=3, help="of the short runs that measure speed")
    parser.add_argument("--results", type=Path, help="the page to write; default: the objective's in results")
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        made = arguments.text / arguments.objective
        train(made, SETTINGS[arguments.objective], arguments.run, arguments.work)
        return
    work = Work(arguments.work, arguments.objective)
    arguments.recipes = arguments.recipes or work.setting.recipes
    work.prepare(arguments.text)
    if "speed" in arguments.only:
        systems = (TRAINER, *arguments.recipes)
        if not all(work.scored(system, "speed") for system in systems):
            work.measure_speed(systems, arguments.seconds, arguments.rounds, arguments.repeats)
    if "search" in arguments.only and len(arguments.rates) > 1:
        for rate in arguments.rates:
            work.score("search", TRAINER, arguments.search_minutes, 0, rate)
    if "peer" in arguments.only:
        for seed in arguments.seeds:
            rate = best_rate(work, arguments.rates, arguments.search_minutes)
            work.score("run", TRAINER, arguments.minutes, seed, rate)
    if "ours" in arguments.only:
        for minutes in arguments.budgets:
            for seed in arguments.seeds:
                for recipe in arguments.recipes:
                    work.score("run", recipe, minutes, seed, None)
    if "table" in arguments.only:
        default = RESULTS / f"time_to_quality_{arguments.objective}.md"
        table(work, arguments.minutes, arguments.results or default)


if __name__ == "__main__":
    main()
