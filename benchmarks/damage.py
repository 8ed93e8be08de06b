"""Checkpoints damaged at random: is it noticed, and is the last good one used?

A tiny run leaves three checkpoints. Each trial damages the newest: one bit, or any other value, of any byte of any of
its files, a file cut at any length, or a file deleted. Then they are loaded as a resume loads them: a trial
is good when what is returned is, bit for bit, the checkpoint before, and the message names the one that was damaged.

    python benchmarks/damage.py --trials 1000
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
from machine import add_results, describe

import tilth
from tilth.key import Key
from tilth.train.checkpoint import Checkpoint, checkpoint_paths, load_latest

KINDS = ("flip a bit", "change a byte", "truncate", "delete")


def small_run(folder: Path) -> Path:
    """The checkpoints of a tiny run of three steps."""
    lines = [json.dumps({"id": name, "text": topics[name][:300]}) for name in sorted(topics)[:24]]
    (folder / "topics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    overrides = [
        "model.layers=2", "model.width=32", "model.heads=2", "tokenizer.vocab_size=300", "data.length=32",
        "train.budget=3 steps", "train.batch_tokens=512", "train.save_every=1 steps", "train.keep_checkpoints=3",
        "train.evaluate_tokens=500", "data.validation=0.2", "train.device=cpu",
    ]  # fmt: skip
    tilth.pretrain("bert-mini", folder / "topics.jsonl", folder / "run", overrides=overrides, progress=False)
    return folder / "run" / "checkpoints"


def damage(file: Path, kind: str, random: np.random.Generator) -> None:
    """Damage a file in place."""
    content = bytearray(file.read_bytes())
    place = int(random.integers(len(content)))
    if kind == "delete":
        file.unlink()
    elif kind == "truncate":
        file.write_bytes(content[:place])
    else:
        content[place] ^= 1 << int(random.integers(8)) if kind == "flip a bit" else int(random.integers(1, 256))
        file.write_bytes(content)


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints hold the same bits."""
    same = (one.state, one.identity) == (other.state, other.identity)
    for mine, theirs in ((one.weights, other.weights), (one.optimizer, other.optimizer)):
        same = same and mine.keys() == theirs.keys()
        same = same and all(torch.equal(mine[name], theirs[name]) for name in mine)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    trials, seed = arguments.trials, arguments.seed
    done: Counter[tuple[str, str]] = Counter()
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = small_run(Path(name))
        *_, before, newest = checkpoint_paths(folder)
        names = sorted(file.name for file in newest.iterdir())
        aside = newest.rename(folder / "aside")
        (folder / "latest").write_text(f"{before.name}\n")
        expected, _ = load_latest(folder)
        aside.rename(newest)
        (folder / "latest").write_text(f"{newest.name}\n")
        for trial in range(trials):
            random = Key(seed, trial, "damage").generator()
            file = newest / names[int(random.integers(len(names)))]
            kind = KINDS[int(random.integers(len(KINDS)))]
            content = file.read_bytes()
            damage(file, kind, random)
            found, problems = load_latest(folder)
            if len(problems) != 1 or newest.name not in problems[0] or not equal(found, expected):
                missed.append(f"trial {trial}: {kind} {file.name}: {problems}")
            file.write_bytes(content)
            done[file.name, kind] += 1
        restored, problems = load_latest(folder)
        assert not problems and restored.state["step"] > expected.state["step"], "the newest one is whole again"
    lines = [f"| file | {' | '.join(KINDS)} |", "|" + "---|" * (1 + len(KINDS))]
    lines += [f"| {name} | {' | '.join(str(done[name, kind]) for kind in KINDS)} |" for name in names]
    print("\n".join([*lines, *missed]))
    head = f"# Damaged checkpoints\n\n{__doc__.split(chr(10) * 2)[1]}\n\nMachine: {describe()}.\n"
    foot = f"{trials} trials, seed {seed}: {trials - len(missed)} noticed, with the checkpoint before used and named."
    arguments.results.write_text("\n".join([head, *lines, "", foot, *missed, ""]), encoding="utf-8")
    print(foot)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
