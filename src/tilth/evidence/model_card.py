"""Model cards (Mitchell et al. 2019): a folder's README.md, with the metadata that the Hugging Face hub reads."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from tilth.evidence import human
from tilth.evidence.report import render
from tilth.evidence.report_comparison import metric_name
from tilth.evidence.report_run import caption_of_loss, method_in_words, size_in_words, unit_of_loss
from tilth.evidence.report_run_pictures import bits_caption
from tilth.evidence.run_record import read_run
from tilth.tokens.load import load_tokenizer


def run_model_card(run: Path) -> str:
    """The card of a pre-trained model, from its run folder: data, recipe, held-out figures, cost, use, limits.

    Language and licence are stated only where the corpus card states them.
    Raises: TilthError when the folder is not a run.
    """
    record = read_run(run)
    causal, detects = record.objective == "causal", record.objective == "replaced_token"
    family = str(record.recipe.get("family", "model"))
    card, result = record.card or {}, record.result or {}
    loss, parts = result.get("held_out_loss"), result.get("parts") or {}
    metadata = {
        **{name: card[name] for name in ("language", "license") if card.get(name)},
        "library_name": "transformers",
        **({} if detects else {"pipeline_tag": "text-generation" if causal else "fill-mask"}),
        "tags": ["tilth", "pre-training", family],
    }
    context = {
        "metadata": _metadata(metadata),
        "name": plain(run.resolve().name),
        "causal": causal,
        "detects": detects,
        "family": family,
        "size": size_in_words(record.recipe),
        "method": method_in_words(record.objective),
        **_special_texts(run),
        "card": card,
        "sources": [code(Path(str(source["source"])).name) for source in card.get("sources") or []],
        "result": result,
        "bits_caption": bits_caption(record.objective),
        "loss_caption": caption_of_loss(parts),
        "loss_unit": unit_of_loss(parts),
        "perplexity": math.exp(loss) if causal and human.is_number(loss) and loss < 50 else None,
        "start": record.start,
        "tokens": record.tokens,
        "seconds": record.seconds,
        "parameters": record.parameters,
        "flops": record.flops,
        "weights": (record.summary or {}).get("weights_sha256"),
        "recipe": yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True).strip(),
        "is_finished": record.end is not None,
    }
    return render("run_card.md.j2", context)


def _special_texts(run: Path) -> dict[str, str]:
    """How the run's tokenizer writes a masked token ("mask") and the end of a text ("end", "" without one)."""
    path = run / "tokenizer.json"
    if not path.is_file():
        return {"mask": "[MASK]", "end": ""}
    tokenizer = load_tokenizer(path)
    mask, end = (
        "" if index is None else tokenizer.backend.id_to_token(index) or ""
        for index in (tokenizer.special.mask, tokenizer.special.eot)
    )
    return {"mask": mask or "[MASK]", "end": end}


def finetuned_model_card(result: dict[str, Any], name: str) -> str:
    """The card of a fine-tuned model, from the content of its finetune.json.

    name: what to call the model, usually its folder. The metadata names a base model only when it is one of the hub's.
    A local base model is named as it was given, an absolute path by its end: a card travels, the machine's folders do
    not.
    """
    base = str(result.get("model") or "")
    metadata = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["tilth", "fine-tuned"],
    }
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) and not Path(base).exists():
        metadata["base_model"] = base
    else:
        base = _relative(base)
    settings = result.get("settings") or {}
    context = {
        "metadata": _metadata(metadata),
        "name": plain(name),
        "frozen": settings.get("freeze"),
        "mean": settings.get("summary") == "mean",
        "base": code(base) if base else "",
        "data": code(Path(str(result["data"])).name) if result.get("data") else "",
        "labels": [code(str(label)) for label in result.get("labels") or []],
        "scores": [(metric_name(metric), score) for metric, score in (result.get("valid") or {}).items()],
        "examples": result.get("examples") or {},
        "truncated": sum((result.get("truncated") or {}).values()),
        "best_epoch": result.get("best_epoch"),
        "seconds": result.get("seconds"),
        "flops": result.get("flops"),
        "weights": result.get("weights_sha256"),
        "settings": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).strip(),
    }
    return render("finetuned_card.md.j2", context)


def _relative(path: str) -> str:
    """A path as it was given, or, when absolute, from the working folder; of one elsewhere, `run/model` or its name."""
    given = Path(path)
    if not given.is_absolute():
        return path
    if given.is_relative_to(Path.cwd()):
        return str(given.relative_to(Path.cwd()))
    return "/".join(given.parts[-2:]) if given.name == "model" and len(given.parts) > 2 else given.name


def plain(text: str) -> str:
    """Text that Markdown and HTML take as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """A code span of one line that nothing in `text` can end."""
    text = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _metadata(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).strip()
