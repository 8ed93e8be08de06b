"""What the report of a pre-training run says: headline, figures, samples, data, cost and settings, read from its folder."""

import statistics
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tilth.evidence import human
from tilth.evidence.plots import Line, Mark, binned, line_figure
from tilth.evidence.run_record import Event, RunRecord

OBJECTIVES = {
    "masked": "masked language modelling",
    "next_sentence": "masked language modelling with next-sentence prediction",
    "causal": "causal language modelling",
}
_PARTS = {"masked": "masked words", "next_sentence": "next sentence", "causal": "next token"}
_STATUS = {"budget": ("finished", False), "stopped early": ("stopped early", False), "interrupted": ("interrupted", True)}
_MOMENTS = 6


def run_context(record: RunRecord) -> dict[str, Any]:
    """Everything the template of a run's report needs."""
    text, is_open = _STATUS.get((record.end or {}).get("reason", ""), ("ended", False)) if record.end else ("unfinished", True)
    return {
        "kind": "Pre-training run",
        "title": record.folder.resolve().name,
        "status": {"text": text, "open": is_open},
        "lede": _lede(record),
        "figures": _headline(record),
        "warnings": [_warning(event) for event in record.warnings],
        "notes": _notes(record),
        "learning_note": _learning_note(record),
        "pictures": _pictures(record),
        "samples": _samples(record.samples),
        "data": _data(record.card),
        "cost": _cost(record),
        "settings": settings_groups(record.recipe),
        "evaluations": [_evaluation_row(event) for event in record.evaluations],
        "best_step": (record.best or {}).get("step"),
        "hashes": _hashes(record),
    }


def bits_caption(objective: str) -> str:
    """What bits per byte means for an objective, in plain words."""
    if objective == "causal":
        return "Bits the model needs for one byte of text it has not seen. Lower is better; 8 is no compression."
    return (
        "Bits the model needs for the hidden words, per byte of text it has not seen. Lower is better; compare it only "
        "with models that hide as many words."
    )


def settings_groups(recipe: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings as (group, rows) for the settings tables; plain values come first, as the group `run`."""
    plain = [(name, _setting(value)) for name, value in recipe.items() if not isinstance(value, dict)]
    groups = [
        (name, [(key, _setting(value)) for key, value in values.items()])
        for name, values in recipe.items()
        if isinstance(values, dict)
    ]
    return ([("run", plain)] if plain else []) + groups


def _setting(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _lede(record: RunRecord) -> str:
    family, size = record.recipe.get("family", "model"), record.recipe.get("size", "")
    size = f"{family} {size}".strip()
    parameters = f" with {human.count(record.parameters)} parameters" if record.parameters else ""
    method = OBJECTIVES.get(record.objective, record.objective)
    text = f"{size}{parameters}, trained from scratch by {method}"
    if record.tokens:
        text += f" on {human.count(record.tokens)} tokens in {human.duration(record.seconds)}"
    text = text[0].upper() + text[1:] + "."
    best = record.best
    if best:
        bits = best.get("bits_per_byte")
        figure = f"{human.decimal(bits, 2)} bits per byte" if human.is_number(bits) else "its lowest loss"
        text += f" On text it never trained on it reaches {figure}, at step {human.count(best.get('step'))}."
    if record.end is None:
        text += " The run has no end on record: it is still going on or was broken off, and these are its figures so far."
    return text


def _headline(record: RunRecord) -> list[dict[str, str]]:
    best = record.best or {}
    loss, speed = best.get("held_out_loss"), _speed(record)
    causal = record.objective == "causal" and human.is_number(loss) and loss < 50
    perplexity = f" A perplexity of {human.significant(2.718281828459045**loss)}." if causal else ""
    epochs = record.steps[-1].get("epoch") if record.steps else None
    passes = f", {human.significant(epochs)} passes over the training data" if human.is_number(epochs) else ""
    trunk = record.start.get("trunk_parameters")
    return [
        _figure("Held-out bits per byte", human.decimal(best.get("bits_per_byte"), 3), "bits", bits_caption(record.objective)),
        _figure("Held-out loss", human.decimal(loss, 3), "nats per token",
                f"Surprise at each predicted token; lower is better.{perplexity}"),
        _figure("Tokens seen", human.count(record.tokens), "tokens", f"Text read while training{passes}."),
        _figure("Time", human.duration(record.seconds), "", "Training, evaluation and saving, on the clock."),
        _figure("Speed", human.count(speed), "tokens per second", "The median over the run; higher is faster."),
        _figure("Parameters", human.count(record.parameters), "",
                f"Numbers the model learned, {human.count(trunk)} of them in the trunk." if trunk else "Numbers the model learned."),
    ]  # fmt: skip


def _figure(label: str, value: str, unit: str, caption: str) -> dict[str, str]:
    return {"label": label, "value": value, "unit": unit, "caption": caption}


def _speed(record: RunRecord) -> float | None:
    speeds = [event["tokens_per_second"] for event in record.steps if human.is_number(event.get("tokens_per_second"))]
    return statistics.median(speeds) if speeds else None


def _warning(event: Event) -> dict[str, Any]:
    documents = [str(document) for document in event.get("documents") or []]
    shown = ", ".join(documents[:10]) + (f" and {len(documents) - 10:,} more" if len(documents) > 10 else "")
    return {
        "kind": event.get("kind", "warning"),
        "step": event.get("step"),
        "message": event.get("message", ""),
        "documents": shown,
    }


def _notes(record: RunRecord) -> list[str]:
    notes = []
    if record.resumes:
        steps = " and ".join(human.count(event["step"]) for event in record.resumes)
        notes.append(f"The run was resumed from step {steps}; dotted lines in the figures show where.")
    if record.unreadable_lines:
        noun = "line" if record.unreadable_lines == 1 else "lines"
        notes.append(f"{record.unreadable_lines} {noun} of log.jsonl could not be read and are left out.")
    if not record.evaluations:
        notes.append("No held-out evaluation is on record yet.")
    return notes


def _learning_note(record: RunRecord) -> str:
    gap = (record.evaluations[-1] if record.evaluations else {}).get("gap")
    if not human.is_number(gap):
        return "All figures share one axis: the tokens seen so far."
    meaning = "better on unseen text than on its training text" if gap < 0 else "worse on unseen text than on its training text"
    return f"At the last evaluation the model was {human.decimal(abs(gap), 3)} nats {meaning}. All figures share one axis: the tokens seen so far."


def _pictures(record: RunRecord) -> list[dict[str, str]]:
    at = {event["step"]: event["tokens"] for event in record.steps + record.evaluations}
    resumed = [at[event["step"]] for event in record.resumes if event["step"] in at]
    best = record.best or {}
    limits = (0, 1.02 * record.tokens) if record.tokens else None

    def picture(name: str, title: str, caption: str, lines: Sequence[Line], **options: Any) -> dict[str, str]:
        described = f"{title} against tokens. {caption}"
        svg = line_figure(name, described, lines, x_label="tokens", x_limits=limits, verticals=resumed, **options)
        return {"title": title, "caption": caption, "svg": svg, "narrow": ""}

    def mark(name: str, places: int) -> Mark | None:
        value = best.get(name)
        return Mark(best["tokens"], value, f"best {human.decimal(value, places)}") if human.is_number(value) else None

    held_out = [event.get("held_out_loss") for event in record.evaluations]
    tokens = [event["tokens"] for event in record.evaluations]
    parts = sorted({name for event in record.evaluations for name in event.get("parts") or {}})
    pictures = [
        picture("bits", "Bits per byte on held-out text", bits_caption(record.objective),
                [Line("held-out", tokens, [event.get("bits_per_byte") for event in record.evaluations], points=True)],
                mark=mark("bits_per_byte", 3)),
        picture("loss", "Loss", "Nats per predicted token, on training text and on held-out text. Lower is better.",
                [Line("held-out", tokens, held_out, points=True), _steps_line(record, "loss", "training", series=1)],
                y_limits=(None, _loss_top(record))),
        picture("gap", "Generalization gap", "Held-out loss minus training loss, in nats. A gap that keeps growing is memorizing.",
                [Line("gap", tokens, [event.get("gap") for event in record.evaluations], points=True)], level=(0, "")),
        picture("gradient", "Gradient norm", "Before clipping; the shade spans smallest to largest. Spikes are unstable steps.",
                [_steps_line(record, "grad_norm", "norm", series=2)], y_limits=(0, None)),
        picture("rate", "Learning rate", "Step size of the optimizer, as the schedule sets it.",
                [_steps_line(record, "lr", "rate", series=3)], y_limits=(0, None)),
        picture("speed", "Speed", "Tokens per second. A fall means the machine was busy or hot.",
                [_steps_line(record, "tokens_per_second", "speed", series=4)], y_limits=(0, None), y_format=human.count),
    ]  # fmt: skip
    if len(parts) > 1:
        lines = [
            Line(_PARTS.get(name, name), tokens, [(event.get("parts") or {}).get(name) for event in record.evaluations],
                 series=index, points=True)
            for index, name in enumerate(parts)
        ]  # fmt: skip
        caption = "What the held-out loss is the sum of, in nats."
        pictures.insert(2, picture("parts", "Parts of the held-out loss", caption, lines))
    return [one for one in pictures if one["svg"]]


def _steps_line(record: RunRecord, name: str, label: str, series: int) -> Line:
    x, mean, low, high = binned([event["tokens"] for event in record.steps], [event.get(name) for event in record.steps])
    return Line(label, x, mean, low, high, series=series, band=True)


def _loss_top(record: RunRecord) -> float | None:
    """The top of the loss axis: without the first 3 % of the run, whose fall from chance would flatten all the rest."""
    early = 0.03 * (record.tokens or 0)
    losses = [event.get("loss") for event in record.steps if event["tokens"] >= early]
    losses += [event.get("held_out_loss") for event in record.evaluations]
    known = [loss for loss in losses if human.is_number(loss)]
    return max(known) + 0.05 * (max(known) - min(known)) + 1e-6 if known else None


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
                "prompt": prompt if str(event.get("text", "")).startswith(prompt) else "",
                "text": str(event.get("text", "")).removeprefix(prompt),
            }
            for event in chosen
        ]
        result.append({"prompt": prompt, "moments": moments, "left_out": len(all_moments) - count})
    return result


def _data(card: dict[str, Any] | None) -> dict[str, Any] | None:
    if not card:
        return None
    taken, kept = card.get("in"), card.get("kept")
    rows = []
    if taken:
        rows.append({"name": "kept", "count": kept, "share": kept / taken, "lost": False})
        for word, reasons in (("dropped", card.get("dropped")), ("rejected", card.get("rejected"))):
            for reason, number in sorted((reasons or {}).items(), key=lambda item: (-item[1], item[0])):
                rows.append({"name": f"{word}: {reason.replace('_', ' ')}", "count": number, "share": number / taken, "lost": True})
    sentence = (
        f"{human.count(kept)} of {human.count(taken)} records became documents. Dropped records were duplicates or unsuitable; "
        "rejected ones could not be read and were set aside with their reason."
    )
    known = {"in", "kept", "dropped", "rejected"}
    more = [
        (name.replace("_", " "), human.count(value) if human.is_number(value) else str(value))
        for name, value in card.items()
        if name not in known and isinstance(value, (str, int, float))
    ]
    return {"sentence": sentence, "rows": rows, "more": more}


def _cost(record: RunRecord) -> list[tuple[str, str]]:
    start = record.start
    machine = [str(start[name]) for name in ("processor", "device") if start.get(name)]
    if start.get("threads"):
        machine.append(f"{start['threads']} threads")
    rows = [
        ("Time", human.duration(record.seconds)),
        ("Tokens", human.count(record.tokens)),
        ("Parameters", human.count(record.parameters)),
        ("Estimated operations", f"{human.scientific(record.flops)} FLOPs: 6 × parameters × tokens, an estimate"),
        ("Machine", ", ".join(machine)),
        ("Computed in", str(start.get("dtype") or "")),
        ("Started", moment(start.get("time"))),
        ("Checkpoints", human.count(len(record.checkpoints))),
    ]
    return [(name, value) for name, value in rows if value]


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
