"""Training speed on the CPU: tokens a second, ours and transformers' Trainer.

Both train a model of one shape on the same tokens, with the same vocabulary and the same number of tokens a step.
Masked models learn 15 % of the tokens, masked anew each time. The Trainer runs as its users run it: once at its
defaults (float32, dropout of 0.1, AdamW), once tuned (bfloat16 where the processor has units for it, no dropout, fused
AdamW, no logging), and once more with our setting of the C allocator as well
(`tilth.model.precision.keep_freed_memory`), which a user of the Trainer would have to know of. Ours runs the recipe:
its loop, log and monitor; a decoder's softmax takes a quarter of the vocabulary at 7 steps of 10, as in a run, and all
of it in a row of its own. Rows are packed documents for ours, and full blocks for the Trainer; only real tokens count.
All are under way at once, each in a process of its own, and take turns of a few seconds, so that they meet the same
machine even where others use it; ratios are medians over the rounds.

    python benchmarks/throughput.py ../shared/data/text/english_novels/corpus.tar.zst [--seconds 4] [--rounds 9]
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

import transformers
from machine import add_results, describe, write_table
from peers import trainer as peer
from turns import ENDLESS, after_our_steps, sample_words_as_often_as_a_run, step_seconds

import tilth
from tilth.model.precision import keep_freed_memory

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Shape:
    """A row of the table but for its length. targets: what to reach over the Trainer's defaults, and over it tuned."""

    recipe: str
    settings: tuple[str, ...]
    peer: peer.Shape
    targets: tuple[float, float]


_GPT2_MINI = peer.Shape(False, 8192, 4, 256, 4)
_MASKED = ("objective.name=masked", "objective.masks=fresh")
SHAPES = {
    "bert-mini": Shape("bert-mini", _MASKED, peer.Shape(True, 30_522, 4, 256, 4), (8, 5)),
    "bert-small": Shape("bert-mini", ("size=small", *_MASKED), peer.Shape(True, 30_522, 4, 512, 8), (8, 5)),
    "gpt2-mini": Shape("gpt2-mini", (), _GPT2_MINI, (5, 3)),
    "gpt2-mini, all words": Shape("gpt2-mini", ("objective.vocabulary_share=1",), _GPT2_MINI, (5, 3)),
}
ROWS = [(name, length) for name in ("bert-mini", "bert-small") for length in (128, 512)]
ROWS += [(name, length) for name in ("gpt2-mini", "gpt2-mini, all words") for length in (256, 1024)]
SYSTEMS = {"ours": "ours, tokens/s", "defaults": "Trainer", "tuned": "Trainer, tuned", "kept": "tuned, memory kept"}


def train_ours(shape: Shape, length: int, made: Path, on_step: Callable[[], bool]) -> None:
    after_our_steps(on_step)
    sample_words_as_often_as_a_run()
    tilth.pretrain(
        shape.recipe, made / "corpus", made / f"run-{length}",
        overrides=[
            *shape.settings, f"data.length={length}", f"train.batch_tokens={BATCH_TOKENS}",
            f"tokenizer.path={made / 'tokenizer.json'}", f"data.shards={made / 'shards'}",
            f"train.budget={ENDLESS} steps", "train.evaluate_tokens=1000", "train.device=cpu", "model.start=random",
        ],
        progress=False,
    )  # fmt: skip


def train_peer(system: str, shape: Shape, length: int, made: Path, on_step: Callable[[], bool]) -> None:
    if system == "kept":
        keep_freed_memory()
    tokenizer = peer.read_tokenizer(made / "tokenizer.json", shape.peer.is_masked)
    blocks = peer.full_blocks(made / "shards", length, tokenizer)
    model = peer.make_model(shape.peer, length, tokenizer, dropout=0.1 if system == "defaults" else 0.0)
    chosen = {} if system == "defaults" else peer.tuned()
    out, rows = made / f"{system}-{length}", BATCH_TOKENS // length
    peer.train(model, tokenizer, blocks, out, rows, on_step, max_steps=ENDLESS, **chosen)


def make(shape: Shape, text: Path, corpus: Path, folder: Path) -> None:
    """Leave the corpus, a tokenizer and shards of it in the folder."""
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
    (folder / "corpus").symlink_to(corpus.resolve())
    for name in ("tokenizer.json", "shards"):
        (run / name).rename(folder / name)


def measure(name: str, length: int, made: Path, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Tokens a second of each system in each round."""
    trainings = {
        system: partial(train_ours if system == "ours" else partial(train_peer, system), SHAPES[name], length, made)
        for system in SYSTEMS
    }
    taken = step_seconds(trainings, seconds, rounds)
    return {system: [BATCH_TOKENS / step for step in steps] for system, steps in taken.items()}


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="raw text to train on")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn, at least; it ends with a step")
    parser.add_argument("--rounds", type=int, default=9)
    add_results(parser, __file__)
    arguments = parser.parse_args()
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
            figures = measure(name, length, Path(folder) / name, arguments.seconds, arguments.rounds)
            ratios = []
            for system, target in zip_longest(peers, SHAPES[name].targets):
                ratio = statistics.median(a / b for a, b in zip(figures["ours"], figures[system], strict=True))
                ratios.append(f"{ratio:.1f}" + (f" ({target:g})" if target else ""))
            cells = [name, str(length), *map(spread, figures.values()), *ratios]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    machine = f"Machine: {describe()}; transformers {transformers.__version__}."
    seen = f"Medians (lowest-highest) of {arguments.rounds} turns of {arguments.seconds:g} seconds or more."
    write_table(arguments.results, __doc__, f"{machine} {seen}", lines)


if __name__ == "__main__":
    main()
