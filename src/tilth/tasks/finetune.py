"""Fine-tuning: a pre-trained model folder and labelled data in, a model folder for the task out."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tilth.errors import TilthError, UsageError
from tilth.files import new_folder, read_json, sha256_file, write_json
from tilth.model.folder import load_model, save_model
from tilth.model.model import Model
from tilth.model.precision import compute_dtype, keep_freed_memory, pick_device
from tilth.model.threads import choose_threads, threads_restored
from tilth.progress import announce, progress_bar
from tilth.settings import load_settings
from tilth.tasks.data import Examples, hold_out, listed, tell_rejected, without
from tilth.tasks.fit import Encoded, fit
from tilth.tasks.inference import all_logits
from tilth.tasks.metrics import confusion_matrix
from tilth.tasks.settings import FinetuneSettings
from tilth.tasks.task import Task, find_task
from tilth.tokens.tokenizer import TextTokenizer

FEWEST_HELD_OUT = 100
"""Below this none are held out: so few say more about luck than about which weights are best (benchmarks/NOTES.md)."""
MOST_HELD_OUT = 2000
"""Held-out examples that are enough to choose among evaluations."""


@threads_restored()
def finetune(
    model_path: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    task: str = "classify",
    valid: str | Path | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Fine-tune a model and write the best one to the folder `out`, with finetune.json in it.

    model_path: a run, a model folder (ours or anyone's of a known architecture), or a name on the Hugging Face hub.
    valid: data for early stopping; without it a share of `data` is held out where that gives 100 examples.
    overrides: `key=value` changes to `FinetuneSettings`. overwrite: replace a fine-tuned model that is in `out`.
    Returns what finetune.json holds; its settings are those used, with the rates and the length that the model decided.
    Raises: UsageError for wrong settings and when `out` holds a fine-tuned model, TilthError for data, a model or a
    folder that cannot be used.
    """
    work = find_task(task)
    idle = {"valid_share": "--valid"} if valid is not None else {}
    settings = load_settings(FinetuneSettings, overrides, where="the settings of finetune", idle=idle)
    _check_free(Path(out), overwrite)
    with new_folder(Path(out)) as folder:
        examples = work.read(data, text_column, label_column)
        tell_rejected(examples, progress)
        rejected, num_leaked = [asdict(row) for row in examples.rejected], 0
        if valid is not None:
            held_out: Examples | None = work.read(valid, text_column, label_column)
            tell_rejected(held_out, progress)
            rejected += [asdict(row) for row in held_out.rejected]
            examples, num_leaked = without(examples, held_out)
            labels = examples.label_names()
        else:
            labels = examples.label_names()
            examples, held_out = split_for_stopping(examples, settings)
            if held_out is None and settings.valid_share:
                announce(_none_held_out(examples, settings.valid_share), progress)

        model, tokenizer = load_model(model_path)
        settings = settings.for_model(model.config)
        model.reads = settings.max_length or model.config.max_length
        device = pick_device(settings.device)
        model.to(device)
        keep_freed_memory()
        threads = choose_threads(device, shown=progress)
        work.add_head(model, labels, settings)
        train, truncated = encode(work, model, tokenizer, examples, settings.max_length)
        valid_examples, valid_truncated = None, 0
        if held_out is not None:
            valid_examples, valid_truncated = encode(work, model, tokenizer, held_out, settings.max_length)
        pad = tokenizer.special.pad or 0
        with progress_bar("fine-tuning", 1.0, "share", progress) as update:
            fitted = fit(work, model, train, valid_examples, settings, pad, update)

        valid_scores: dict[str, dict[str, float]] = {}
        confusion: list[list[int]] | None = None
        if valid_examples is not None:
            logits = all_logits(work, model, valid_examples.pieces, pad)
            valid_scores = work.scores_with_intervals(logits, valid_examples.targets)
            predicted = logits.argmax(-1).numpy()
            confusion = confusion_matrix(valid_examples.targets.numpy(), predicted, len(labels)).tolist()
        save_model(model, tokenizer, folder)
        result = {
            "task": task,
            "model": str(model_path),
            "data": str(data),
            "labels": labels,
            "examples": {"train": len(train), "valid": len(valid_examples or ())},
            "left_out_as_also_in_valid": num_leaked,
            "rejected": rejected,
            "truncated": {"train": truncated, "valid": valid_truncated},
            "settings": settings.model_dump(mode="json"),
            "device": str(device),
            "threads": threads,
            "dtype": str(compute_dtype(settings.precision, device)).removeprefix("torch."),
            **asdict(fitted),
            "valid": valid_scores,
            "confusion": confusion,
            "weights_sha256": sha256_file(folder / "model.safetensors"),
        }
        write_json(folder / "finetune.json", result)
    return result


def split_for_stopping(examples: Examples, settings: FinetuneSettings) -> tuple[Examples, Examples | None]:
    """(train, held out) for early stopping; none are held out where they were fewer than 100, nor more than 2,000."""
    if settings.valid_share * len(examples) < FEWEST_HELD_OUT:
        return examples, None
    train, held_out = hold_out(examples, min(settings.valid_share, MOST_HELD_OUT / len(examples)), settings.seed)
    return (examples, None) if len(held_out) < FEWEST_HELD_OUT else (train, held_out)


def _none_held_out(examples: Examples, share: float) -> str:
    return (
        f"No examples are held out: {share:g} of {len(examples)}, which leave each label a text, are fewer than "
        f"{FEWEST_HELD_OUT}, too few to tell better weights from lucky ones. So training does not stop early and the "
        "last weights are kept, not the best; --valid FILE gives examples to choose by."
    )


def encode(
    task: Task, model: Model, tokenizer: TextTokenizer, examples: Examples, max_length: int | None = None
) -> tuple[Encoded, int]:
    """Examples as the model reads them, and how many of their texts were cut.

    Raises: TilthError when a label is not one of the model's.
    """
    targets = torch.tensor(examples.label_indexes(model.labels))
    pieces, cut = task.encode(model, tokenizer, examples.texts, max_length)
    return Encoded(pieces, targets), sum(cut)


def _check_free(out: Path, overwrite: bool) -> None:
    """Check that a model written to `out` replaces nothing, or an earlier fine-tuned model with `overwrite`.

    Raises: UsageError, or TilthError for other files, which are never replaced.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / "finetune.json").is_file():
        raise TilthError(f"{out} holds other files, which a model folder would replace; choose another --out")
    if not overwrite:
        raise UsageError(
            f"{out} holds {_earlier(out / 'finetune.json')}; choose another --out, or replace it with --overwrite"
        )


def _earlier(record: Path) -> str:
    """What a finetune.json is of, in words."""
    try:
        result = read_json(record)
        return f"a model fine-tuned from {result['model']} on {result['data']} ({listed(result['labels'])})"
    except (TilthError, KeyError, TypeError):
        return "a fine-tuned model"
