"""What the report of a fine-tuning says: its scores with intervals, its course by epoch, and its settings."""

from typing import Any

from tilth.evidence import human
from tilth.evidence.plots import Line, Mark, confusion_figure, line_figure
from tilth.evidence.report_comparison import metric_name
from tilth.evidence.report_run import settings_groups


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
        "settings": settings_groups(settings),
    }


def _lede(result: dict[str, Any], history: list[dict[str, Any]], labels: list[str]) -> str:
    named = f"{len(labels)} labels ({', '.join(labels)})" if 0 < len(labels) <= 6 else f"{len(labels)} labels"
    text = f"Trained to tell {named} apart. " if labels else ""
    text += f"The weights kept are those of epoch {result.get('best_epoch')} of {len(history)}, the best on validation data."
    losses = {row["epoch"]: row.get("valid_loss") for row in history}
    best, last = losses.get(result.get("best_epoch")), history[-1].get("valid_loss") if history else None
    if best is not None and last is not None and last > 1.05 * best:
        text += " After it the validation loss rose again: the model had begun to overfit."
    return text


def _headline(result: dict[str, Any]) -> list[dict[str, str]]:
    figures = []
    for name, score in (result.get("valid") or {}).items():
        label = f"{metric_name(name)[0].upper()}{metric_name(name)[1:]}"
        low, high = score.get("low"), score.get("high")
        known = human.is_number(low) and human.is_number(high)
        caption = f"On validation data, 95 % interval {human.decimal(low)} to {human.decimal(high)}." if known else "On validation data."
        figures.append({"label": label, "value": human.decimal(score.get("value")), "unit": "", "caption": caption})
    return figures


def _pictures(history: list[dict[str, Any]], best_epoch: int | None) -> list[dict[str, str]]:
    epochs = [row["epoch"] for row in history]
    ticks = [(epoch, str(epoch)) for epoch in epochs[:: max(1, -(-len(epochs) // 8))]]

    def column(name: str, label: str, series: int) -> Line:
        return Line(label, epochs, [row.get(name) for row in history], series=series, points=True)

    def picture(name: str, title: str, caption: str, lines: list[Line], mark: str) -> dict[str, str]:
        best = next((row for row in history if row["epoch"] == best_epoch and human.is_number(row.get(mark))), None)
        svg = line_figure(f"finetune-{name}", f"{title}. {caption}", lines, x_label="epoch", x_ticks=ticks,
                          mark=Mark(best["epoch"], best[mark], "kept") if best else None)  # fmt: skip
        return {"title": title, "caption": caption, "narrow": "", "svg": svg}

    loss = [column("valid_loss", "validation", 0), column("train_loss", "training", 1)]
    score = [column("valid_macro_f1", "macro F1", 0), column("valid_accuracy", "accuracy", 2)]
    pictures = [
        picture("loss", "Loss", "Nats per example; lower is better. Lines that part ways mean overfitting.", loss, "valid_loss"),
        picture("score", "Scores on validation data", "From 0 to 1; higher is better.", score, "valid_macro_f1"),
    ]
    return [one for one in pictures if one["svg"]]
