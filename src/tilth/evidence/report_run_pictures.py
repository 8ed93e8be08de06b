"""The figures of a pre-training run, all against the tokens seen."""

from collections.abc import Sequence
from typing import Any

from tilth.evidence import human
from tilth.evidence.plots import Line, Mark, binned, line_figure
from tilth.evidence.report_parts import Picture
from tilth.evidence.run_record import RunRecord

_PARTS = {
    "masked": "masked words",
    "next_sentence": "next sentence",
    "replaced_token": "replaced words",
    "causal": "next token",
}
_HELD_OUT, _TRAINING, _MACHINERY = 0, 1, 5
"""One colour for what is measured on held-out text, one for training text, a quiet one for the machinery."""


def bits_caption(objective: str) -> str:
    """What bits per byte means for an objective, in plain words."""
    if objective == "causal":
        return "Bits the model needs for one byte of text it has not seen. Lower is better; 8 is no compression."
    of_generator = "Of the generator: what" if objective == "replaced_token" else "What"
    return (
        f"{of_generator} a byte of unseen text would cost if every token were as hard as the hidden ones. Lower is "
        "better; compare it only with masked models that hide as many."
    )


def _loss_caption(record: RunRecord) -> str:
    caption = "Nats per predicted token, on training text and on held-out text. Lower is better."
    if record.start.get("softmax_share", 1) == 1:
        return caption
    return f"{caption} Most steps estimate the training loss from a sample of the vocabulary, a little too low."


def learning_note(record: RunRecord) -> str:
    """What the figures show together."""
    note = "All figures share one axis: the tokens seen so far."
    gap = (record.evaluations[-1] if record.evaluations else {}).get("gap")
    if human.is_number(gap):
        side = "better" if gap < 0 else "worse"
        apart = f"{human.decimal(abs(gap))} nats {side} on unseen text than on its training text"
        note = f"At the last evaluation the model was {apart}. {note}"
    return note


def run_pictures(record: RunRecord) -> list[Picture]:
    """The figures that the log has points for."""
    best = record.best
    pictures = [
        _picture(
            record,
            "bits",
            "Bits per byte on held-out text",
            bits_caption(record.objective),
            [_evaluations(record, "bits_per_byte", "held-out")],
            mark=_mark(best["tokens"], best.get("bits_per_byte")) if best else None,
        ),
        _picture(
            record,
            "loss",
            "Loss",
            _loss_caption(record),
            [_evaluations(record, "held_out_loss", "held-out"), _steps(record, "loss", "training", _TRAINING)],
            y_limits=(None, _loss_top(record)),
        ),
        _parts(record),
        _picture(
            record,
            "gap",
            "Generalization gap",
            "Held-out loss minus training loss, in nats. A gap that keeps growing is memorizing.",
            [_evaluations(record, "gap", "gap")],
            level=0,
        ),
        _picture(
            record,
            "gradient",
            "Gradient norm",
            "Before clipping; the shade spans smallest to largest. Spikes are unstable steps.",
            [_steps(record, "grad_norm", "norm", _MACHINERY)],
            y_limits=(0, None),
        ),
        _picture(
            record,
            "rate",
            "Learning rate",
            "Step size of the optimizer, as the schedule sets it.",
            [_steps(record, "lr", "rate", _MACHINERY)],
            y_limits=(0, None),
        ),
        _picture(
            record,
            "speed",
            "Speed",
            "Tokens per second within a step. A fall means the machine was busy or hot.",
            [_steps(record, "tokens_per_second", "speed", _MACHINERY)],
            y_limits=(0, None),
            y_format=human.count,
        ),
    ]
    return [picture for picture in pictures if picture and picture.svg]


def _picture(record: RunRecord, name: str, title: str, caption: str, lines: Sequence[Line], **options: Any) -> Picture:
    at = {event["step"]: event["tokens"] for event in record.steps + record.evaluations}
    svg = line_figure(
        name,
        f"{title} against tokens. {caption}",
        lines,
        x_label="tokens",
        x_limits=(0, 1.02 * record.tokens) if record.tokens else None,
        verticals=[at[event["step"]] for event in record.resumes if event["step"] in at],
        **options,
    )
    return Picture(title, caption, svg)


def _parts(record: RunRecord) -> Picture | None:
    """The held-out loss of each head, where there are several."""
    names: list[str] = sorted({name for event in record.evaluations for name in event.get("parts") or {}})
    if len(names) < 2:
        return None
    tokens = [event["tokens"] for event in record.evaluations]
    lines = []
    for series, name in enumerate(names):
        losses = [(event.get("parts") or {}).get(name) for event in record.evaluations]
        lines.append(Line(_PARTS.get(name, str(name)), tokens, losses, series=series, points=True))
    caption = "The held-out loss of each head, in nats."
    return _picture(record, "parts", "Parts of the held-out loss", caption, lines)


def _mark(tokens: float, value: float | None) -> Mark | None:
    return Mark(tokens, value, f"kept {human.decimal(value)}") if human.is_number(value) else None


def _evaluations(record: RunRecord, name: str, label: str) -> Line:
    events = record.evaluations
    tokens, values = [event["tokens"] for event in events], [event.get(name) for event in events]
    return Line(label, tokens, values, series=_HELD_OUT, points=True)


def _steps(record: RunRecord, name: str, label: str, series: int) -> Line:
    x, mean, low, high = binned(
        [event["tokens"] for event in record.steps], [event.get(name) for event in record.steps]
    )
    return Line(label, x, mean, low, high, series=series, band=True)


def _loss_top(record: RunRecord) -> float | None:
    """The top of the loss axis: without the first 3 % of the run, whose fall from chance would flatten all the rest."""
    early = 0.03 * (record.tokens or 0)
    losses = [event.get("loss") for event in record.steps if event["tokens"] >= early]
    losses += [event.get("held_out_loss") for event in record.evaluations]
    known = [loss for loss in losses if human.is_number(loss)]
    return max(known) + 0.05 * (max(known) - min(known)) + 1e-6 if known else None
