"""Labels for texts from a fine-tuned model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from tilth.errors import TilthError, UsageError
from tilth.model.folder import load_model
from tilth.model.model import Model
from tilth.model.precision import pick_device
from tilth.tasks.data import is_utf8
from tilth.tasks.inference import all_logits
from tilth.tasks.task import find_task
from tilth.tokens.tokenizer import TextTokenizer


def predict(model: str | Path, texts: Iterable[str], device: str = "auto") -> list[dict[str, Any]]:
    """Classify texts with a fine-tuned model: a folder (ours or anyone's) or a hub name. Computed in float32.

    device: auto (the best there is), cpu, cuda or mps.
    Returns for each text {"text", "label", "probabilities": {label: p}}, and "truncated": True where the model read
    only its beginning.
    Raises: TilthError when the model has no head that gives a text one label, UsageError when the device is not there,
    and when `texts` is one text or holds what is none.
    """
    texts = _checked(texts)
    place = pick_device(device)
    loaded, tokenizer = load_model(model)
    return predict_with(loaded.to(place), tokenizer, texts)


def predict_with(model: Model, tokenizer: TextTokenizer, texts: Iterable[str]) -> list[dict[str, Any]]:
    """As `predict`, with a model that is already open, on the device where it is."""
    texts = _checked(texts)
    if "classify" not in model.heads:
        raise TilthError(
            f"this {model.family.name} model has no head that gives a text one label; fine-tune it first (tilth "
            "finetune)"
        )
    if not texts:
        return []
    task = find_task("classify")
    pieces, cut = task.encode(model, tokenizer, texts)
    logits = all_logits(task, model.eval(), pieces, tokenizer.special.pad or 0)
    results = []
    for text, was_cut, row in zip(texts, cut, torch.softmax(logits, dim=-1).tolist(), strict=True):
        probabilities = dict(zip(model.labels, row, strict=True))
        result = {
            "text": text,
            "label": max(probabilities, key=probabilities.__getitem__),
            "probabilities": probabilities,
        }
        results.append(result | {"truncated": True} if was_cut else result)
    return results


def _checked(texts: Iterable[str]) -> Sequence[str]:
    if isinstance(texts, str):
        raise UsageError(f"texts must be texts in a list, not {texts!r}")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"texts[{number}] is no text but {text!r}")
        if not is_utf8(text):
            raise UsageError(f"texts[{number}] has a lone surrogate, which is no character: {text[:40]!r}")
    return texts
