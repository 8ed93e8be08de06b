"""What the monitor says about 20 healthy runs (nothing) and about runs with a planted fault (its name).

All run the real loop at a tiny size (2 layers, 64 wide, vocabulary 1,000, 512 tokens a step, 250 steps) on Python's
help topics. A fault is planted in a run, not in the monitor. The last table gives the monitor's share of the time of
`bert-mini` steps, by timing every call into it.

    python benchmarks/planted_faults.py [--steps 250] [--seeds 5]
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from machine import add_results, describe

from tilth.corpus.build import build_corpus
from tilth.corpus.settings import CorpusSettings
from tilth.errors import TilthError
from tilth.key import Key
from tilth.objectives.objective import Batch, Predictions
from tilth.recipe import load_recipe
from tilth.train import loop
from tilth.train.loop import Run
from tilth.train.prepare import prepare
from tilth.train.trackers import read_log

TINY = (
    "model.layers=2", "model.width=64", "model.heads=2", "tokenizer.vocab_size=1000", "data.length=64",
    "train.batch_tokens=512", "train.evaluate_tokens=4000", "train.device=cpu", "train.precision=float32",
)  # fmt: skip
FAMILIES = ("bert", "roberta", "gpt2", "gpt3")

Plant = Callable[[Run], None]


def corpus_of(folder: Path, texts: list[str]) -> Path:
    """A corpus folder of some texts, a tenth held out."""
    folder.mkdir(parents=True)
    lines = (json.dumps({"id": f"text-{number}", "text": text}) + "\n" for number, text in enumerate(texts))
    (folder / "texts.jsonl").write_text("".join(lines))
    build_corpus([str(folder / "texts.jsonl")], folder / "corpus", CorpusSettings(validation=0.1), progress=False)
    return folder / "corpus"


def findings_of(
    corpus: Path, name: str, overrides: list[str], at: int = 0, plant: Plant | None = None
) -> tuple[list[tuple[str, int]], str]:
    """The kinds and steps of a run's warnings, and the message of the error that ended it, if one did.

    plant: called once, just before step `at` (counted from 0).
    """

    class Planted(Run):
        def train_step(self, batches: list[Batch], update: Any) -> None:
            if plant is not None and self.position.step == at:
                plant(self)
            super().train_step(batches, update)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        out.mkdir()
        recipe = load_recipe(name, [*TINY, *overrides])
        error = ""
        try:
            prepared = prepare(recipe, corpus, out, False, progress=False)
            Planted(recipe, prepared, out, torch.device("cpu"), False).train(False)
        except TilthError as raised:
            error = str(raised).replace(f"{out}/", "")
        warnings = [record for record in read_log(out / "log.jsonl") if record["event"] == "warning"]
        return [(record["kind"], record["step"]) for record in warnings], error


# The faults. Each changes a run as the world would: weights, files, labels, speed.


def shuffled_labels(run: Run) -> None:
    """Right answers, dealt out to the wrong places: nothing is left to learn but how frequent each is."""
    make = run.batches.objective.make_batch

    def make_batch(packing: Any, indexes: np.ndarray, epochs: np.ndarray, seed: int) -> Batch:
        batch = make(packing, indexes, epochs, seed)
        predictions = {}
        for head, right in batch.predictions.items():
            generator = Key(seed, int(indexes[0]) + packing.num_rows * int(epochs[0]), "wrong labels").generator()
            order = torch.from_numpy(generator.permutation(len(right.targets)))
            predictions[head] = Predictions(right.places, right.targets[order])
        return Batch(batch.inputs, predictions, batch.tokens, batch.documents)

    object.__setattr__(run.batches.objective, "make_batch", make_batch)


def one_bad_batch(run: Run) -> None:
    """The batch after next is random tokens."""
    at, bad = run.batches.at, run.position.step + 2

    def noisy(step: int) -> list[Batch]:
        batches = at(step)
        for batch in batches if step == bad else []:
            random = Key(0, step, "noise").generator().integers(5, 1000, batch.inputs.tokens.shape)
            batch.inputs.tokens.copy_(torch.from_numpy(random))
            for predictions in batch.predictions.values():
                if len(predictions.targets) and predictions.targets.max() > 1:
                    predictions.targets.copy_(batch.inputs.tokens.view(-1)[predictions.places])
        return batches

    run.batches.at = noisy


def overwrite_shard(run: Run, values: np.ndarray | None) -> None:
    """Write over half of the training shard on the disk, while it is mapped."""
    (path,) = sorted(run.prepared.shards.path.glob("train-*.ids"))
    ids = np.memmap(path, dtype="<u2", mode="r+")
    half = len(ids) // 2
    fresh = Key(0, 0, "damage").generator().integers(0, 1 << 16, half) if values is None else values[:half]
    ids[:half] = fresh.astype("<u2")
    ids.flush()


def random_bytes(run: Run) -> None:
    """Half the shard becomes random bytes."""
    overwrite_shard(run, None)


def swapped_tokens(run: Run) -> None:
    """Half the shard becomes tokens of the vocabulary in random order, as reading at a wrong offset would give."""
    generator = Key(0, 0, "damage").generator()
    overwrite_shard(run, generator.integers(5, 1000, 1 << 20))


@torch.no_grad()
def nan_weight(run: Run) -> None:
    """One weight of the first block becomes NaN."""
    run.model.trunk.blocks[0].get_parameter("mlp.up.weight")[3, 5] = float("nan")


@torch.no_grad()
def dead_layer(run: Run) -> None:
    """The second feed-forward layer's activation is shut for every input."""
    run.model.trunk.blocks[1].get_parameter("mlp.up.bias").fill_(-50.0)


@torch.no_grad()
def exploding_layer(run: Run) -> None:
    """The second feed-forward layer's matrices grow a hundredfold."""
    for name in ("mlp.up.weight", "mlp.down.weight"):
        run.model.trunk.blocks[1].get_parameter(name).mul_(100)


def exploding_gradient(run: Run) -> None:
    """The gradient of the first feed-forward layer is 10,000 times what it should be."""
    run.model.trunk.blocks[0].get_parameter("mlp.up.weight").register_hook(lambda gradient: gradient * 10_000)


def slow_data(run: Run) -> None:
    """Each batch takes 0.2 s to read."""
    at = run.batches.at

    def slow(step: int) -> list[Batch]:
        time.sleep(0.2)
        return at(step)

    run.batches.at = slow


def wrong_processor(run: Run) -> None:
    """Now and then the last bit of one number that a layer puts out is flipped, as a worn processor would."""
    calls = 0

    def flip(_: Any, __: Any, output: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            output.detach().view(-1)[7:8].view(torch.int32).bitwise_xor_(1 << 12)

    run.model.trunk.blocks[0].get_submodule("mlp").register_forward_hook(flip)


FAULTS: list[tuple[str, str, list[str], Plant | None, float, set[str]]] = [
    ("bad learning rate: 100 times the recipe's", "gpt2-mini", ["train.lr=0.3"], None, 0, {"divergence", "exploding"}),
    ("bad learning rate: 33 times", "gpt2-mini", ["train.lr=0.1"], None, 0, {"divergence", "exploding"}),
    (
        "bad learning rate: 1,000 times, AdamW", "bert-mini", ["train.lr=3", "train.optimizer=adamw"], None, 0,
        {"divergence", "exploding", "nonfinite"},
    ),
    ("label noise: masked", "roberta-mini", [], shuffled_labels, 0, {"stall"}),
    ("label noise: causal", "gpt2-mini", [], shuffled_labels, 0, {"stall"}),
    ("tiny repeated corpus: causal", "gpt2-mini", ["tiny"], None, 0, {"overfitting"}),
    ("tiny repeated corpus: masked", "roberta-mini", ["tiny"], None, 0, {"overfitting"}),
    ("corrupt shard: random bytes", "gpt2-mini", [], random_bytes, 0.3, {"error"}),
    ("corrupt shard: random tokens", "gpt2-mini", [], swapped_tokens, 0.5, {"spike", "divergence"}),
    ("one batch of noise", "gpt2-mini", [], one_bad_batch, 0.5, {"spike"}),
    ("NaN in a weight", "bert-mini", [], nan_weight, 0.5, {"nonfinite"}),
    ("dead layer", "gpt2-mini", [], dead_layer, 0.3, {"dead"}),
    ("dead layer", "bert-mini", [], dead_layer, 0.3, {"dead"}),
    ("exploding layer", "gpt2-mini", [], exploding_layer, 0.3, {"exploding"}),
    ("exploding gradient", "gpt2-mini", [], exploding_gradient, 0.3, {"exploding"}),
    ("slow data", "gpt2-mini", ["train.budget=60 steps"], slow_data, 0, {"starvation"}),
    ("wrong arithmetic", "gpt2-mini", ["train.recompute_every=10"], wrong_processor, 0.3, {"corruption"}),
]  # fmt: skip
"""(fault, recipe, settings, how it is planted, when as a share of the steps, kinds that name it)"""


def overhead(corpus: Path, steps: int) -> str:
    """The monitor's share of the time of bert-mini's steps."""
    spent: Counter[str] = Counter()

    def timed(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent[name] += time.perf_counter() - started

        setattr(owner, name, wrapper)

    names = [
        (loop.Monitor, "take_step"), (loop.Starvation, "take_step"), (loop.LayerProbe, "__init__"),
        (loop.LayerProbe, "before_update"), (loop.LayerProbe, "after_update"), (loop.LayerMonitor, "take"),
        (loop.Control, "take"), (loop, "recompute"),
    ]  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name in names]
    for owner, name in names:
        timed(owner, name)
    total = 0.0
    step = Run.train_step

    def whole(self: Run, *arguments: Any) -> None:
        nonlocal total
        started = time.perf_counter()
        step(self, *arguments)
        total += time.perf_counter() - started

    Run.train_step = whole
    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = [f"train.budget={steps} steps", "train.save_every=1000 steps", "train.evaluate_every=1000 steps"]
            # The vocabulary that the help topics support.
            recipe = load_recipe("bert-mini", [*settings, "train.evaluate_tokens=2000", "tokenizer.vocab_size=5000"])
            prepared = prepare(recipe, corpus, Path(folder), False, progress=False)
            Run(recipe, prepared, Path(folder), torch.device("cpu"), False).train(False)
    finally:
        Run.train_step = step
        for owner, name, function in before:
            setattr(owner, name, function)
    shares = ", ".join(f"`{name}` {100 * seconds / total:.3f} %" for name, seconds in spent.most_common())
    return (
        f"{100 * sum(spent.values()) / total:.2f} % of the time of {steps} steps of bert-mini (vocabulary 5,000) "
        f"({1000 * total / steps:.0f} ms a step): {shares}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--overhead-steps", type=int, default=100)
    add_results(parser, __file__)
    options = parser.parse_args()
    budget = f"train.budget={options.steps} steps"
    lines = [
        "# The monitor on healthy runs and on planted faults", "",
        f"`python benchmarks/planted_faults.py --steps {options.steps} --seeds {options.seeds}`: {describe()}.", "",
        "| healthy runs | seeds | warnings |", "|---|---|---|",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_of(Path(folder) / "topics", [topics[name] for name in sorted(topics)])
        tiny = corpus_of(Path(folder) / "tiny", [topics[name][:600] for name in sorted(topics)[:12]])
        alarms = 0
        for family in FAMILIES:
            kinds: list[str] = []
            for seed in range(options.seeds):
                found, error = findings_of(corpus, f"{family}-mini", [f"seed={seed}", budget])
                kinds += [f"{kind} at step {step} (seed {seed})" for kind, step in found] + ([error] if error else [])
            alarms += len(kinds)
            lines.append(f"| {family}-mini | {options.seeds} | {', '.join(kinds) or 'none'} |")
            print(lines[-1], flush=True)
        lines += [
            "", f"False alarms: {alarms} in {len(FAMILIES) * options.seeds} runs.", "",
            "| planted fault | recipe | planted before step | named | at step | caught |", "|---|---|---|---|---|---|",
        ]  # fmt: skip
        for fault, name, overrides, plant, share, expected in FAULTS:
            at = int(share * options.steps)
            chosen = [override for override in overrides if override != "tiny"]
            found, error = findings_of(tiny if "tiny" in overrides else corpus, name, [budget, *chosen], at, plant)
            first = dict(reversed(found))
            if error and not first:
                first = {"error": at + 1}
            caught = "yes" if expected & first.keys() else "**no**"
            named = ", ".join(first) + (f": {error.partition(';')[0]}" if "error" in first else "")
            steps = ", ".join(map(str, first.values()))
            lines.append(f"| {fault} | {name} | {at + 1} | {named or 'nothing'} | {steps} | {caught} |")
            print(lines[-1], flush=True)
        lines += ["", f"Cost: {overhead(corpus, options.overhead_steps)}", ""]
        print(lines[-2])
    options.results.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
