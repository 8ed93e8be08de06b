"""What pre-trained models are worth downstream: SST-2 and AG News, by the number of labels a class.

`tilth compare` fine-tunes each model at each number of labels with several seeds, on the same examples, and one from
scratch beside it; macro-F1 on the test set. Differences are to the first model, paired by seed and test example; an
interval covers the draw of examples and of the test set (95 %). AG News is here without its training part: what is
learnt from are the 10,000 texts of its `dev.tsv`. The models are those of `time_to_quality.py`.

    python benchmarks/downstream.py ../shared/data NAME=MODEL NAME=MODEL... [--labels 8,32,128,all] [--seeds 5]
        [--work FOLDER]
"""

import argparse
import os
from pathlib import Path
from typing import Any

from machine import add_results, describe, write_table

import tilth

DATA = {"SST-2": ("sst2", "train.tsv", "test.tsv"), "AG News": ("ag_news", "dev.tsv", "test.tsv")}


def cell(row: dict[str, Any], sign: str = "") -> str:
    figures = f"{row['mean']:{sign}.3f}"
    return figures if row["low"] is None else f"{figures} ({row['low']:{sign}.3f} to {row['high']:{sign}.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of real data")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL", help="model folders, and what to call them")
    parser.add_argument("--labels", default="8,32,128,all", help="labelled examples a class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("downstream"), help="comparisons; a stopped one goes on")
    add_results(parser, __file__)
    arguments = parser.parse_args()
    named = arguments.work / "models"
    named.mkdir(parents=True, exist_ok=True)
    models = []
    for text in arguments.models:
        name, _, path = text.partition("=")
        if not path or "/" in name or named / name in models:
            parser.error(f"{text!r} is not NAME=MODEL with a name of its own")
        models.append(named / name)
        models[-1].unlink(missing_ok=True)
        os.symlink(Path(path).resolve(), models[-1])
    budgets = [text if text == "all" else int(text) for text in arguments.labels.split(",")]
    lines = ["| data | labels a class | system | macro-F1 | over the first |", "|---|--:|---|---|---|"]
    for title, (folder, train, test) in DATA.items():
        data = arguments.data / "classify" / folder
        result = tilth.compare(
            "classify", data / train, arguments.work / folder, test=data / test, models=models, budgets=budgets,
            seeds=arguments.seeds,
        )  # fmt: skip
        first = models[0].name
        over = {(row["system"], row["budget"]): row for row in result["differences"] if row["against"] == first}
        for row in result["summary"]:
            difference = over.get((row["system"], row["budget"]))
            shown = cell(difference, "+") if difference else ""
            lines.append(f"| {title} | {row['budget']} | {row['system']} | {cell(row)} | {shown} |")
    print("\n".join(lines))
    about = f"Machine: {describe()}. {arguments.seeds} seeds."
    write_table(arguments.results, __doc__, about, lines)


if __name__ == "__main__":
    main()
