"""What the report of a fine-tuning says: its scores with intervals, its course by epoch, and its settings."""

from typing import Any

from tilth.evidence import human
from tilth.evidence.plots import Line, Mark, confusion_figure, line_figure
from tilth.evidence.report_comparison import metric_name
from tilth.evidence.report_parts import Picture, Stat, capitalized, settings_groups


def finetune_context(result: dict[str, Any], title: str) -> dict[str, Any]:
    """Everything the template of a fine-tuning's report needs."""
    history, labels = result.get("history") or [], list(map(str, result.get("labels") or []))
    settings = result.get("settings") or {}
    return {
        "kind": f"Fine-tuning: {result.get('task', '')}",
        "title": title,
        "status": None,
        "lede": _lede(result, history, labels),
        "figures": _headline(result),
        "pictures": _pictures(history, result.get("best_epoch")),
        "confusion": confusion_figure(labels, result["confusion"]) if result.get("confusion") else "",
        "history": history,
        "best_epoch": result.get("best_epoch"),
        "labels": labels,
        "notes": _notes(result),
        "record": _record(result),
        "settings": settings_groups(settings),
    }


def _lede(result: dict[str, Any], history: list[dict[str, Any]], labels: list[str]) -> str:
    named = f"{len(labels)} labels ({', '.join(labels)})" if 0 < len(labels) <= 6 else f"{len(labels)} labels"
    text = f"Trained to tell {named} apart. "
    if not result.get("valid"):
        return (
            text
            + "No data was held out, so the weights kept are the last ones and nothing here says how good they are."
        )
    best_epoch = result.get("best_epoch")
    text += (
        f"The weights kept are those of epoch {human.significant(best_epoch)}, the best on validation data by macro F1."
    )
    return text + _overfitting(history)


def _overfitting(history: list[dict[str, Any]]) -> str:
    """A sentence for where the validation loss rose again, "" where it did not rise by more than 5 %."""
    losses = [(row["valid_loss"], row["epoch"]) for row in history if human.is_number(row.get("valid_loss"))]
    if not losses or losses[-1][0] <= 1.05 * min(losses)[0]:
        return ""
    lowest = min(losses)[1]
    if lowest == losses[0][1]:
        return (
            f" The validation loss was lowest at the first evaluation, epoch {human.significant(lowest)}, and "
            "higher ever after: the model had begun to overfit by then."
        )
    return (
        f" The validation loss was lowest at epoch {human.significant(lowest)} and higher after it: from there on "
        "the model had begun to overfit."
    )


def _headline(result: dict[str, Any]) -> list[Stat]:
    stats = []
    for name, score in (result.get("valid") or {}).items():
        low, high = human.decimal(score.get("low")), human.decimal(score.get("high"))
        caption = f"On the validation data that chose the weights, 95\u00a0% interval {low} to {high}; 1 is perfect."
        stats.append(Stat(capitalized(metric_name(name)), human.decimal(score.get("value")), caption))
    if examples := result.get("examples"):
        held_out = f"And {human.count(examples['valid'])} to validate." if examples.get("valid") else "None held out."
        stats.append(Stat("Training examples", human.count(examples["train"]), held_out))
    if result.get("seconds") is not None:
        steps = f"{human.count(result['steps'])} updates. " if result.get("steps") else ""
        stopped = "Stopped early: no further gain. " if result.get("stopped_early") else ""
        flops = f"About {human.scientific(result['flops'])} FLOPs, an estimate." if result.get("flops") else ""
        stats.append(Stat("Time", human.duration(result["seconds"]), f"{steps}{stopped}{flops}".strip()))
    return stats


def _notes(result: dict[str, Any]) -> list[str]:
    notes = []
    if rejected := result.get("rejected"):
        notes.append(
            f"{human.count(len(rejected))} rows of the data could not be used; finetune.json lists them with reasons."
        )
    if cut := sum((result.get("truncated") or {}).values()):
        notes.append(f"{human.count(cut)} texts were longer than the model reads (max_length) and were cut at the end.")
    return notes


def _record(result: dict[str, Any]) -> list[tuple[str, str]]:
    names = {
        "model": "Started from",
        "data": "Data",
        "device": "Device",
        "threads": "Threads",
        "dtype": "Computed in",
        "weights_sha256": "Weights (SHA-256)",
    }
    return [(label, str(result[name])) for name, label in names.items() if result.get(name)]


def _pictures(history: list[dict[str, Any]], best_epoch: float | None) -> list[Picture]:
    kept = next((row for row in history if row["epoch"] == best_epoch), {})

    def column(name: str, label: str, series: int) -> Line:
        return Line(
            label, [row["epoch"] for row in history], [row.get(name) for row in history], None, None, series, True
        )

    def picture(title: str, caption: str, lines: list[Line], marked: str) -> Picture:
        value = kept.get(marked)
        mark = Mark(kept["epoch"], value, "kept") if human.is_number(value) else None
        return Picture(title, caption, line_figure(marked, f"{title}. {caption}", lines, x_label="epoch", mark=mark))

    loss = [column("valid_loss", "validation", 0), column("train_loss", "training", 1)]
    score = [column("valid_macro_f1", "macro F1", 0), column("valid_accuracy", "accuracy", 2)]
    loss_caption = "Nats per example; lower is better. Lines that part ways mean overfitting."
    pictures = [
        picture("Loss", loss_caption, loss, "valid_loss"),
        picture("Scores on validation data", "From 0 to 1; higher is better.", score, "valid_macro_f1"),
    ]
    return [one for one in pictures if one.svg]
