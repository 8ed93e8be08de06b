"""`tilth demo`: the whole path, in minutes, on text that every machine with Python has: its packages' documentation.

Every stage is a verb of the API, left in a folder of its own; a demo that was stopped goes on where it was.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilth import api
from tilth.corpus.reader import Corpus, Document, is_corpus, open_corpus
from tilth.errors import TilthError, UsageError
from tilth.files import output_folder, read_json, write_json, write_text
from tilth.key import Key
from tilth.recipe import load_recipe

LIBRARIES = 8
"""How many libraries to tell apart: those with the most held-out docstrings."""
MOST_TRAIN, MOST_TEST = 400, 80
"""Labelled docstrings of each library."""
LABELS_PER_CLASS = (8, 16)
SEEDS = 5
ENCODER_SHARE, DECODER_SHARE = 0.4, 0.13
"""Of the minutes, for pre-training; the corpus, the tokenizer and the comparison take most of the rest."""
SHARED = (
    "model.layers=2",
    "model.width=128",
    "model.heads=4",
    "train.batch_tokens=2048",
    "train.evaluate_tokens=16384",
)
FINETUNING = ("batch_size=16", "min_steps=80", "lr=1.5e-3")
"""Of the comparison: short, so that its trainings fit in the demo."""
PROMPT = "Return the "


def demonstrate(out: Path, minutes: float, progress: bool) -> dict[str, Any]:
    """Corpus, tokenizer, an encoder, a decoder, a comparison, a classifier, text: all in the folder `out`.

    minutes: about how long it may take on two cores; the time to pre-train is shared out from it.
    Returns a summary for people (also `demo.json`). Raises: TilthError as the verbs do.
    """
    started = time.perf_counter()
    output_folder(out)
    corpus = _corpus(out / "corpus", progress)
    train, test = _labelled(corpus, out / "labelled")
    encoder = _pretrained(
        "bert-mini", corpus.path, out / "encoder", progress,
        "tokenizer.kind=byte_bpe", "tokenizer.sample_bytes=10000000",
        f"train.budget={minutes * ENCODER_SHARE:.3g} minutes", *SHARED,
    )  # fmt: skip
    decoder = _pretrained(
        "gpt2-mini", corpus.path, out / "decoder", progress,
        "tokenizer.path=" + str(out / "encoder" / "tokenizer.json"), f"data.shards={out / 'encoder' / 'shards'}",
        "data.length=128", f"train.budget={minutes * DECODER_SHARE:.3g} minutes", *SHARED,
    )  # fmt: skip
    comparison = api.compare(
        "classify",
        train,
        out / "comparison",
        test=test,
        models=[out / "encoder" / "model"],
        budgets=LABELS_PER_CLASS,
        seeds=SEEDS,
        overrides=FINETUNING,
        progress=progress,
    )
    classifier = out / "classifier"
    if not (classifier / "finetune.json").exists():
        api.finetune(out / "encoder" / "model", train, classifier, overrides=["epochs=3"], progress=progress)
    accuracy = api.evaluate(classifier, test, progress=progress)["accuracy"]
    text = api.generate(out / "decoder" / "model", PROMPT, max_tokens=40, seed=1)["text"]
    summary = {
        "corpus": f"{corpus.card['kept']:,} docstrings of the packages on this machine",
        "encoder": _figures(encoder),
        "decoder": _figures(decoder),
        "question": f"which of {len(comparison['labels'])} libraries does a docstring document?",
        "learning_curves": [
            {
                "system": row["system"],
                "labels_per_class": row["budget"],
                "macro_f1": {"value": row["mean"], "low": row["low"], "high": row["high"]},
            }
            for row in comparison["summary"]
        ],
        "verdict": comparison["verdict"],
        "accuracy_with_all_labels": accuracy,
        "generated": PROMPT + text.split("\n\n")[0],
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "report": str((out / "comparison" / "report.html").resolve()),
        "reports_of_runs": [str((out / name / "report.html").resolve()) for name in ("encoder", "decoder")],
    }
    write_json(out / "demo.json", summary)
    return summary


def _corpus(path: Path, progress: bool) -> Corpus:
    if not is_corpus(path):
        api.corpus_build(["installed-docs"], path, progress=progress)
    return open_corpus(path)


def _pretrained(recipe: str, corpus: Path, run: Path, progress: bool, *overrides: str) -> dict[str, Any]:
    begun = any((run / "checkpoints").glob("step-*"))
    if begun and load_recipe(run / "recipe.yaml") != load_recipe(recipe, overrides):
        raise UsageError(f"{run.parent} holds a demo with other settings; choose another --out, or remove that folder")
    if (run / "summary.json").exists():
        return read_json(run / "summary.json")
    return api.pretrain(recipe, corpus, run, overrides=overrides, resume=begun, progress=progress)


def _labelled(corpus: Corpus, folder: Path) -> tuple[Path, Path]:
    """Docstrings labelled with their library: to learn from, of the training split; to test on, of the held-out split.

    The libraries' names are taken out of the texts, which would otherwise often give the answer away.
    """
    counts = Counter(document.metadata.get("library") for document in corpus.documents("validation"))
    labels = [label for label, _ in counts.most_common(LIBRARIES) if label]
    if len(labels) < 2:
        raise TilthError("the packages on this machine have too few docstrings for the demo; install some packages")
    train, test = output_folder(folder) / "train.jsonl", folder / "test.jsonl"
    _write_rows(train, corpus.documents("train"), labels, MOST_TRAIN)
    _write_rows(test, corpus.documents("validation"), labels, MOST_TEST)
    return train, test


def _write_rows(path: Path, documents: Iterator[Document], labels: list[str], most: int) -> None:
    rows = _rows(documents, labels, most)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _rows(documents: Iterator[Document], labels: list[str], most: int) -> Iterator[dict[str, str]]:
    """At most `most` documents of each label, drawn at random."""
    names = re.compile("|".join(re.escape(label) for label in labels), re.IGNORECASE)
    texts: dict[str, list[str]] = {label: [] for label in labels}
    for document in documents:
        if document.metadata.get("library") in texts:
            texts[document.metadata["library"]].append(document.text)
    for number, (label, found) in enumerate(texts.items()):
        for index in Key(0, number, "demo examples").generator().permutation(len(found))[:most]:
            yield {"text": names.sub("library", found[index]), "label": label}


def _figures(run: dict[str, Any]) -> str:
    return (
        f"{run['parameters'] / 1e6:.1f} M parameters, {run['tokens'] / 1e6:.1f} M tokens in {run['seconds']:.0f} s, "
        f"held-out bits per byte {run['bits_per_byte']:.2f}"
    )
