"""How well a fine-tuned model does on labelled data it has not seen."""

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tilth.errors import TilthError
from tilth.evidence.plots import confusion_figure
from tilth.files import new_folder, write_json, write_text
from tilth.model.folder import load_model
from tilth.model.precision import pick_device
from tilth.progress import progress_bar
from tilth.tasks import metrics
from tilth.tasks.data import Examples, tell_rejected
from tilth.tasks.finetune import encode
from tilth.tasks.inference import all_logits
from tilth.tasks.task import Task, find_task


def evaluate_task(
    model_path: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    *,
    task: str = "classify",
    text_column: str | None = None,
    label_column: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Score a fine-tuned model (a folder, ours or anyone's, or a hub name) on labelled data, in float32.

    Returns each metric as {"value", "low", "high"} (95 % bootstrap intervals over examples), "per_class", "confusion"
    (counts; rows are the true labels), "labels", "examples", "rejected" (rows that are no examples, and where) and
    "truncated" (texts longer than the model reads). With `out`, also writes evaluation.json and confusion.svg there.
    Raises: TilthError when the model has no such head, or the data has labels the model does not know.
    """
    work = find_task(task)
    examples = work.read(data, text_column, label_column)
    tell_rejected(examples, progress)
    with contextlib.nullcontext() if out is None else new_folder(Path(out)) as folder:
        result = _scored(work, model_path, data, examples, device, progress)
        if folder is not None:
            write_json(folder / "evaluation.json", result)
            write_text(folder / "confusion.svg", confusion_figure(result["labels"], result["confusion"]) + "\n")
    return result


def _scored(
    work: Task, model_path: str | Path, data: str | Path, examples: Examples, device: str, progress: bool
) -> dict[str, Any]:
    model, tokenizer = load_model(model_path)
    if work.name not in model.heads:
        raise TilthError(
            f"{model_path} has no head that gives a text one label; fine-tune it first (tilth finetune), or score its "
            "text with --lm"
        )
    model.to(pick_device(device))
    encoded, truncated = encode(work, model, tokenizer, examples)
    with progress_bar("evaluating", len(encoded), "examples", progress) as update:
        logits = all_logits(work, model, encoded.pieces, tokenizer.special.pad or 0, update=update)
    true, predicted = encoded.targets.numpy(), np.asarray(logits.argmax(-1))
    return {
        **work.scores_with_intervals(logits, encoded.targets),
        "per_class": metrics.per_class(true, predicted, model.labels),
        "confusion": metrics.confusion_matrix(true, predicted, len(model.labels)).tolist(),
        "labels": model.labels,
        "examples": len(encoded),
        "rejected": [asdict(row) for row in examples.rejected],
        "truncated": truncated,
        "task": work.name,
        "model": str(model_path),
        "data": str(data),
    }
