"""What the report of a pre-training run says: headline, figures, samples, data, cost and settings."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tilth.evidence import human
from tilth.evidence.report_parts import Stat, settings_groups
from tilth.evidence.report_run_pictures import bits_caption, learning_note, run_pictures
from tilth.evidence.report_run_plan import plan_context
from tilth.evidence.run_record import Event, RunRecord
from tilth.model.families import FAMILIES
from tilth.objectives import OBJECTIVES
from tilth.objectives.replaced_token import DETECTION_WEIGHT
from tilth.train.monitor import ACTIONS

_STATUS = {
    "budget": ("finished", False),
    "stopped early": ("stopped early", False),
    "stopped on request": ("stopped on request", False),
    "interrupted": ("interrupted", True),
}
_MOMENTS = 6
_SPEED = "The median over the run, on the clock from one step to the next, without evaluation; higher is faster."
_SAMPLES = {
    "causal": "How the model continues the same text at several moments of the run: from noise towards language.",
    "masked": "What the model would put in the hidden places, and how sure it is, at several moments of the run.",
}


def run_context(record: RunRecord) -> dict[str, Any]:
    """Everything the template of a run's report needs."""
    text, is_open = (
        _STATUS.get((record.end or {}).get("reason", ""), ("ended", False)) if record.end else ("unfinished", True)
    )
    return {
        "kind": "Pre-training run",
        "title": record.folder.resolve().name,
        "status": {"text": text, "open": is_open},
        "lede": _lede(record),
        "figures": _headline(record),
        "warnings": _warnings(record.warnings),
        "notes": _notes(record),
        "learning_note": learning_note(record),
        "pictures": run_pictures(record),
        "samples": _samples(record.samples),
        "samples_note": _SAMPLES["causal" if record.objective == "causal" else "masked"],
        "data": _data(record.card),
        "cost": _cost(record),
        "plan": plan_context(record),
        "settings": settings_groups(record.recipe),
        "evaluations": [_evaluation_row(event) for event in record.evaluations],
        "best_step": (record.best or {}).get("step"),
        "hashes": _hashes(record),
    }


def _lede(record: RunRecord) -> str:
    recipe = record.recipe
    parameters = f" with {human.count(record.parameters)} parameters" if record.parameters else ""
    method = method_in_words(record.objective)
    text = (
        f"A {recipe.get('family')} model of size {size_in_words(recipe)}{parameters}, trained from scratch by {method}"
    )
    if record.tokens:
        text += f" on {human.count(record.tokens)} tokens in {human.duration(record.seconds)}"
    text += "."
    if result := record.result:
        bits = result.get("bits_per_byte")
        figure = f"{human.decimal(bits)} bits per byte" if human.is_number(bits) else "its lowest loss"
        step = human.count(result.get("step"))
        text += f" On text it never trained on it reaches {figure}, with the weights of step {step}."
    if record.end is None:
        text += (
            " The run has no end on record: it is still going on or was broken off, and these are its figures so far."
        )
    return text


def method_in_words(objective: str) -> str:
    """What an objective is called; its name where it is unknown."""
    return OBJECTIVES[objective].title if objective in OBJECTIVES else objective


def size_in_words(recipe: dict[str, Any]) -> str:
    """The size that a recipe names, and what the recipe changes of it: `mini (changed: 2 layers, width 64)`."""
    name, settings = str(recipe.get("size")), recipe.get("model")
    family = FAMILIES.get(str(recipe.get("family")))
    usual = family.sizes.get(name) if family else None
    settings = settings if isinstance(settings, dict) else {}
    changes = []
    for part, words in (("layers", "{} layers"), ("width", "width {}"), ("heads", "{} heads")):
        value = settings.get(part)
        if value not in (None, getattr(usual, part, None)):
            changes.append(words.format(value).removesuffix("s" if value == 1 else ""))
    return name + (f" (changed: {', '.join(changes)})" if changes else "")


def _headline(record: RunRecord) -> list[Stat]:
    result = record.result or {}
    loss = result.get("held_out_loss")
    parts = result.get("parts") or {}
    loss_caption = caption_of_loss(parts)
    if record.objective == "causal" and human.is_number(loss) and loss < 50:
        loss_caption += f" A perplexity of {human.significant(math.exp(loss))}."
    epochs = record.steps[-1].get("epoch") if record.steps else None
    passes = f", {human.significant(epochs)} passes over the training data" if human.is_number(epochs) else ""
    trunk = record.start.get("trunk_parameters")
    in_trunk = f", {human.count(trunk)} of them in the trunk" if trunk else ""
    bits = human.decimal(result.get("bits_per_byte"))
    return [
        Stat("Held-out bits per byte", bits, bits_caption(record.objective), "bits"),
        Stat("Held-out loss", human.decimal(loss), loss_caption, unit_of_loss(parts)),
        Stat("Tokens seen", human.count(record.tokens), f"Text read while training{passes}.", "tokens"),
        Stat("Time", human.duration(record.seconds), _parts_of_time(record)),
        Stat("Speed", human.count(record.speed), _SPEED, "tokens per second"),
        Stat("Parameters", human.count(record.parameters), f"Numbers the model learned{in_trunk}."),
    ]


def caption_of_loss(parts: dict[str, float]) -> str:
    """What a held-out loss is, from those of its heads."""
    if len(parts) < 2:
        return "Surprise at each predicted token; lower is better."
    names = {
        "masked": "masked tokens",
        "next_sentence": "next sentence",
        "replaced_token": f"{DETECTION_WEIGHT:g} times replaced tokens",
    }
    of_each = " and ".join(f"{names.get(name, name)} ({human.decimal(part)})" for name, part in parts.items())
    return f"Surprise at each prediction, the sum of {of_each}; lower is better."


def unit_of_loss(parts: dict[str, float]) -> str:
    """The unit of a held-out loss; a sum of heads that predict other things has none that is per token."""
    return "nats per token" if len(parts) < 2 else "nats"


def _parts_of_time(record: RunRecord) -> str:
    if not record.evaluation_seconds:
        return "Training, evaluation and saving, on the clock."
    return f"Training and saving, on the clock, and {human.duration(record.evaluation_seconds)} of evaluation."


def _warnings(events: Sequence[Event]) -> list[dict[str, Any]]:
    """One entry for each kind of warning: how often and when it was given, what the first one said."""
    by_kind: dict[str, list[Event]] = {}
    for event in events:
        by_kind.setdefault(str(event.get("kind", "warning")), []).append(event)
    return [_warning(kind, group) for kind, group in by_kind.items()]


def _warning(kind: str, events: Sequence[Event]) -> dict[str, Any]:
    steps = [event["step"] for event in events if human.is_number(event.get("step"))]
    first, last = (human.count(pick(steps, default=None)) for pick in (min, max))
    documents = list(dict.fromkeys(str(document) for event in events for document in event.get("documents") or []))
    actions = dict.fromkeys(ACTIONS.get(event.get("action", ""), "") for event in events)
    return {
        "kind": kind,
        "when": f"at step {first}" if len(events) == 1 else f"{len(events):,} times, from step {first} to step {last}",
        "message": ("first: " if len(events) > 1 else "") + str(events[0].get("message", "")),
        "documents": ", ".join(documents[:10]) + (f" and {len(documents) - 10:,} more" if len(documents) > 10 else ""),
        "action": "; ".join(filter(None, actions)),
    }


def _notes(record: RunRecord) -> list[str]:
    notes = []
    if record.resumes:
        steps = " and ".join(human.count(event["step"]) for event in record.resumes)
        notes.append(f"The run was resumed from step {steps}; dotted lines in the figures show where.")
    if damaged := [str(problem) for event in record.resumes for problem in event.get("damaged") or []]:
        notes.append(f"Damaged checkpoints were passed over when it was resumed: {'; '.join(damaged)}.")
    if accepted := [str(change) for event in record.resumes for change in event.get("accepted") or []]:
        notes.append(f"Changes that alter the result were accepted when it was resumed: {'; '.join(accepted)}.")
    if record.unreadable_lines:
        noun = "line" if record.unreadable_lines == 1 else "lines"
        notes.append(f"{record.unreadable_lines} {noun} of log.jsonl could not be read and are left out.")
    for change in record.changes:
        what = f"set the peak rate to {human.significant(change['lr'])}" if change.get("lr") else "ended the run"
        notes.append(f"At step {human.count(change['step'])} a change asked for through the run folder {what}.")
    if not record.evaluations:
        notes.append("No held-out evaluation is on record yet.")
    return notes


def _samples(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Samples by prompt; of many, the first, the last, and moments spread evenly between them."""
    by_prompt: dict[str, list[Event]] = {}
    for event in events:
        by_prompt.setdefault(str(event.get("prompt", "")), []).append(event)
    result = []
    for prompt, all_moments in by_prompt.items():
        count = min(_MOMENTS, len(all_moments))
        chosen = [all_moments[round(index * (len(all_moments) - 1) / max(1, count - 1))] for index in range(count)]
        moments = [
            {
                "tokens": f"{human.count(event.get('tokens'))} tokens",
                "step": event.get("step"),
                "text": re.sub(r"\n\s*\n", "\n", str(event.get("text", "")).strip()),
            }
            for event in chosen
        ]
        result.append({"prompt": prompt, "moments": moments, "left_out": len(all_moments) - count})
    return result


def _data(card: dict[str, Any] | None) -> dict[str, Any] | None:
    """The corpus card in short: what became of every record, where it came from, how it was split."""
    if not card or not card.get("in"):
        return None
    taken, kept = card["in"], card["kept"]
    outcomes = [{"name": "kept", "count": kept, "share": kept / taken, "lost": False}]
    for word in ("dropped", "rejected"):
        for reason, number in sorted((card.get(word) or {}).items(), key=lambda item: (-item[1], item[0])):
            name = f"{word}: {reason.replace('_', ' ')}"
            outcomes.append({"name": name, "count": number, "share": number / taken, "lost": True})
    leaks = card.get("leak_check") or {}
    return {
        "sentence": (
            f"{human.count(kept)} of {human.count(taken)} records became documents. Dropped records were duplicates or "
            "unsuitable; rejected ones could not be read and were set aside with their reason."
        ),
        "outcomes": outcomes,
        "splits": [{"name": name, **split} for name, split in (card.get("splits") or {}).items()],
        "sources": card.get("sources") or [],
        "leaks": "No text, and no group of near-duplicates, is on both sides of the split."
        if leaks.get("passed")
        else "",
        "notes": card.get("notes") or [],
    }


def _cost(record: RunRecord) -> list[tuple[str, str]]:
    start = record.start
    rows = [
        ("Time", human.duration(record.seconds)),
        ("Tokens", human.count(record.tokens)),
        ("Parameters", human.count(record.parameters)),
        ("Estimated operations", f"{human.scientific(record.flops)} FLOPs, an estimate from the matrix products"),
        ("Machine", str(start.get("processor") or start.get("device") or "")),
        ("Threads", _threads(record)),
        ("Computed in", str(start.get("dtype") or "")),
        ("Started", moment(start.get("time"))),
        ("Checkpoints written", human.count(len(record.checkpoints))),
    ]
    return [(name, value) for name, value in rows if value]


def _threads(record: RunRecord) -> str:
    """With how many threads a CPU computed, and from which step on with another number; "" where it is not on record.

    Equal numbers give equal bits.
    """
    if record.start.get("device") != "cpu" or not record.start.get("threads"):
        return ""
    numbers, text = [record.start["threads"]], str(record.start["threads"])
    for event in record.resumes:
        if event.get("threads") not in (None, numbers[-1]):
            numbers.append(event["threads"])
            text += f", {event['threads']} from step {human.count(event['step'])} on"
    return text


def moment(time: object) -> str:
    """An ISO time as a person writes it: `22 November 2026, 19:44`, with its zone where it has one."""
    if not time:
        return ""
    try:
        parsed = datetime.fromisoformat(str(time))
    except ValueError:
        return str(time)
    return f"{parsed.day} {parsed:%B %Y, %H:%M}" + (f" {parsed.tzname()}" if parsed.tzinfo else "")


def _evaluation_row(event: Event) -> Event:
    names = ("step", "tokens", "seconds", "train_loss", "held_out_loss", "bits_per_byte", "gap")
    return {name: event.get(name) for name in names}


def _hashes(record: RunRecord) -> list[tuple[str, str]]:
    merged = {**record.start, **(record.summary or {})}
    names = {
        "corpus": "Corpus",
        "tokenizer": "Tokenizer",
        "weights_sha256": "Weights (SHA-256)",
        "tilth": "Tilth",
        "torch": "PyTorch",
    }
    rows = [(label, str(merged[name])) for name, label in names.items() if merged.get(name)]
    architectures = (record.config or {}).get("architectures")
    return rows + ([("Opens in transformers as", ", ".join(architectures))] if architectures else [])
