"""Fine-tuning on the CPU: wall time and accuracy, ours and transformers' Trainer, on SST-2.

All start from the same folder, a bert-mini that was pre-trained for a few steps, and learn the same examples for the
same epochs, 32 at a time, from a table of texts to a saved model, each in a process of its own, in turn; the start of
Python and its imports are left out. Ours is `finetune` at its defaults, with nothing held out, as the Trainer holds
nothing out. The Trainer runs once at its defaults (float32, AdamW; it pads a batch to its longest text), once tuned
(bfloat16 where the processor has units for it, fused AdamW, batches of texts of like length, no logging). Both have our
peak rate, warm-up, weight decay and fall of the rate. Accuracy is that on the 872 test texts, read by transformers.

    python benchmarks/finetuning.py ../shared/data [--examples 8000] [--epochs 2] [--repeats 3]
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from machine import add_results, describe, write_table
from peers import trainer as peer

import tilth
from tilth.key import Key
from tilth.tasks.settings import FinetuneSettings

SYSTEMS = ("ours", "defaults", "tuned")
TARGET, BATCH = 4, 32


def make(data: Path, folder: Path, examples: int, steps: int) -> None:
    """Leave `model`, `train.tsv` and `test.tsv` in the folder."""
    text = data / "text" / "english_novels" / "corpus.tar.zst"
    settings = [f"train.budget={steps} steps", "train.evaluate_tokens=2000"]
    tilth.pretrain("bert-mini", text, folder / "run", overrides=settings, progress=False)
    (folder / "run" / "model").rename(folder / "model")
    header, *rows = (data / "classify" / "sst2" / "train.tsv").read_text(encoding="utf-8").splitlines()
    chosen = Key(0, 0, "examples of SST-2").generator().permutation(len(rows))[:examples]
    lines = [header, *(rows[index] for index in chosen)]
    (folder / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "test.tsv").write_bytes((data / "classify" / "sst2" / "test.tsv").read_bytes())


def read(path: Path) -> tuple[list[str], list[int]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence"] for row in rows], [int(row["label"]) for row in rows]


def ours(folder: Path, out: Path, epochs: float) -> float:
    """Seconds of `finetune`."""
    overrides = [f"epochs={epochs}", f"batch_size={BATCH}", "valid_share=0"]
    started = time.perf_counter()
    tilth.finetune(folder / "model", folder / "train.tsv", out, overrides=overrides, progress=False)
    return time.perf_counter() - started


def trainer(folder: Path, out: Path, epochs: float, tuned: bool) -> float:
    """Seconds from the table to the saved model."""
    rate, _ = FinetuneSettings().peak_rates(256)
    started = time.perf_counter()
    texts, labels = read(folder / "train.tsv")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=2)
    encoded = tokenizer(texts, truncation=True, max_length=model.config.max_position_embeddings)["input_ids"]
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(encoded, labels, strict=True)]
    chosen = {}
    if tuned:
        chosen = peer.tuned() | {"train_sampling_strategy": "group_by_length"}
    arguments = transformers.TrainingArguments(
        str(out / "trainer"), per_device_train_batch_size=BATCH, num_train_epochs=epochs, learning_rate=rate,
        warmup_steps=0.1, weight_decay=0.01, use_cpu=True, save_strategy="no", report_to="none", **chosen,
    )  # fmt: skip
    learner = transformers.Trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    learner.train()
    learner.save_model(str(out))
    return time.perf_counter() - started


@torch.inference_mode()
def accuracy(model_path: Path, path: Path) -> float:
    """The share of the texts whose label a saved classifier gives, by transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_path).eval()
    texts, labels = read(path)
    right = 0
    for begin in range(0, len(texts), 64):
        inputs = tokenizer(texts[begin : begin + 64], truncation=True, padding=True, return_tensors="pt")
        right += (model(**inputs).logits.argmax(-1) == torch.tensor(labels[begin : begin + 64])).sum().item()
    return right / len(labels)


def measure(system: str, folder: Path, epochs: float) -> dict[str, float]:
    """One fine-tuning, in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--measure", system, "--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("--examples", type=int, default=8000)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=300, help="of pre-training")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", choices=SYSTEMS, help=argparse.SUPPRESS)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    if arguments.measure:
        folder = arguments.data
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "out"
            if arguments.measure == "ours":
                seconds = ours(folder, out, arguments.epochs)
            else:
                seconds = trainer(folder, out, arguments.epochs, arguments.measure == "tuned")
            print(json.dumps({"seconds": seconds, "accuracy": accuracy(out, folder / "test.tsv")}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(arguments.data, folder, arguments.examples, arguments.steps)
        found: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
        for _ in range(arguments.repeats):
            for system in SYSTEMS:
                found[system].append(measure(system, folder, arguments.epochs))
                print(system, found[system][-1], flush=True)
    lines = ["| | seconds | accuracy | its time over ours (target) |", "|---|--:|--:|--:|"]
    for system in SYSTEMS:
        seconds = [entry["seconds"] for entry in found[system]]
        ratio = statistics.median(b / a["seconds"] for a, b in zip(found["ours"], seconds, strict=True))
        right = statistics.median(entry["accuracy"] for entry in found[system])
        name = {"ours": "ours", "defaults": "Trainer", "tuned": "Trainer, tuned"}[system]
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"
        target = "" if system == "ours" else f" ({TARGET})"
        lines.append(f"| {name} | {spread} | {right:.3f} | {ratio:.1f}{target} |")
    print("\n".join(lines))
    about = (
        f"Machine: {describe()}; transformers {transformers.__version__}; load at the end {os.getloadavg()[1]:.1f} on "
        f"{os.cpu_count()} cores. {arguments.examples:,} examples, {arguments.epochs:g} epochs; medians "
        f"(lowest-highest) of {arguments.repeats} runs."
    )
    write_table(arguments.results, __doc__ or "", about, lines)


if __name__ == "__main__":
    main()
