"""How long training stands still for a checkpoint that is written while it goes on.

`bert-mini` on Python's help topics, with a save every few steps instead of every minute. All is read from the run's
log: the steps from one save's beginning to its end against the median step at which nothing is being saved. What they
take longer, in all, is what the save costs; as a share of a minute, it is the stall of a run that saves every minute.
The model is evaluated at the end only.

    python benchmarks/save_stall.py --saves 12
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

from machine import add_results, describe

import tilth
from tilth.train.checkpoint import checkpoint_paths
from tilth.train.trackers import read_log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=12)
    parser.add_argument("--every", type=int, default=8, help="steps between saves")
    add_results(parser, __file__)
    arguments = parser.parse_args()
    saves, every = arguments.saves, arguments.every
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [json.dumps({"id": topic, "text": topics[topic]}) for topic in sorted(topics)]
        (folder / "topics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        overrides = [
            f"train.budget={(saves + 1) * every} steps", f"train.save_every={every} steps",
            f"train.evaluate_every={(saves + 1) * every} steps", "train.evaluate_tokens=2000",
            "tokenizer.vocab_size=5500",  # what that text supports
        ]  # fmt: skip
        tilth.pretrain("bert-mini", folder / "topics.jsonl", folder / "run", overrides=overrides, progress=False)
        records = read_log(folder / "run" / "log.jsonl")
        newest = checkpoint_paths(folder / "run" / "checkpoints")[-1]
        megabytes = sum(file.stat().st_size for file in newest.iterdir()) / 1e6
    took, saving, last, seconds = {}, {}, 0, 0.0
    for record in records:
        if record["event"] == "step":
            last = record["step"]
            took[last], seconds = record["seconds"] - seconds, record["seconds"]
        elif record["event"] == "checkpoint":
            saving[record["step"]] = range(record["step"] + 1, last + 1)
    del saving[max(saving)]  # at the end of the run, nothing else goes on
    busy = {step for steps in saving.values() for step in steps}
    quiet = [took[step] for step in took if step not in busy and step > 2]
    usual = statistics.median(quiet)
    costs = [sum(took[step] - usual for step in steps) for steps in saving.values()]
    cost, most = statistics.median(costs), max(costs)
    foot = (
        f"{len(costs)} saves of {megabytes:.0f} MB, {every} steps apart; a step took {usual:.2f} s (median of "
        f"{len(quiet)}). A save cost {cost:.2f} s (median; at most {most:.2f} s; the machine was busy otherwise): "
        f"**{100 * cost / 60:.1f} % of a minute** (at most {100 * most / 60:.1f} %)."
    )
    print(foot)
    head = f"# Stall for a save\n\n{__doc__.split(chr(10) * 2)[1]}\n\nMachine: {describe()}.\n"
    arguments.results.write_text(f"{head}\n{foot}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
