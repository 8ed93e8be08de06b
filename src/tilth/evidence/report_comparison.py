"""What the report of a comparison says: learning curves, differences, overfitting and compute of several systems."""

from collections.abc import Callable, Sequence
from typing import Any

from tilth.evidence import human
from tilth.evidence.plots import Line, line_figure

METRICS = {"macro_f1": "macro F1", "accuracy": "accuracy", "micro_f1": "micro F1", "matthews": "Matthews correlation"}
_KINDS = {"pretrained": "pre-trained", "scratch": "from scratch", "baseline": "baseline", "other": "other"}
_SIZES = {"wide": (980, 380), "narrow": (440, 330)}


def metric_name(name: str) -> str:
    """A metric as it is written in text."""
    return METRICS.get(name, name.replace("_", " "))


def budget_name(budget: object) -> str:
    """A label budget as a column title: `8 per class`, `all labels`."""
    return "all labels" if budget == "all" else f"{budget} per class"


def comparison_context(result: dict[str, Any]) -> dict[str, Any]:
    """Everything the template of a comparison's report needs."""
    metric = metric_name(result["metric"])
    systems = [{**system, "series": index % 6 + 1} for index, system in enumerate(result["systems"])]
    seeds = len(result["seeds"])
    return {
        "kind": "Comparison",
        "title": f"What pre-training bought: {result['task']}",
        "status": None,
        "lede": result["verdict"],
        "figures": _headline(result, metric),
        "method": (
            f"Each system was trained on the same labelled examples with {seeds} different seeds at each budget, and scored by "
            f"{metric} on the same test data, which no system saw. Ranges in brackets and bars are 95 % intervals."
        ),
        "pictures": _pictures(result, metric),
        "metric": metric,
        "budgets": [{"name": budget_name(budget), "examples": _examples(result, budget)} for budget in result["budgets"]],
        "systems": [
            {
                **system,
                "kind_name": _KINDS.get(system["kind"], system["kind"]),
                "cells": [_cell(result, system["name"], budget) for budget in result["budgets"]],
            }
            for system in systems
        ],
        "differences": [_difference(row) for row in result.get("differences") or []],
        "pretraining": _pretraining(result.get("pretraining_cost")),
        "points": [
            {
                "system": point["system"],
                "budget": budget_name(point["budget"]),
                "examples": point["examples"],
                "seed": point["seed"],
                "test": point["test"].get(result["metric"]),
                "train": point["train"].get(result["metric"]),
                "seconds": point["seconds"],
            }
            for point in result["points"]
        ],
        "sources": [
            ("Data", _text(result.get("data"))),
            ("Test data", _text(result.get("test"))),
            ("Labels", ", ".join(map(str, result["labels"]))),
            ("Seeds", ", ".join(map(str, result["seeds"]))),
        ],
    }


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {part}" for name, part in value.items())
    return "" if value is None else str(value)


def _row(result: dict[str, Any], system: str, budget: object) -> dict[str, Any] | None:
    rows = (row for row in result["summary"] if row["system"] == system and row["budget"] == budget)
    return next(rows, None)


def _examples(result: dict[str, Any], budget: object) -> int | None:
    return next((row["examples"] for row in result["summary"] if row["budget"] == budget), None)


def _cell(result: dict[str, Any], system: str, budget: object) -> dict[str, Any] | None:
    """One system at one budget, and whether no other system's mean is higher."""
    row = _row(result, system, budget)
    if row is None:
        return None
    means = [other["mean"] for other in result["summary"] if other["budget"] == budget and human.is_number(other["mean"])]
    return {**row, "best": bool(means) and row["mean"] == max(means)}


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + human.decimal(value, 3)


def _difference(row: dict[str, Any]) -> dict[str, str]:
    if row["low"] > 0:
        reading = "better"
    elif row["high"] < 0:
        reading = "worse"
    else:
        reading = "no clear difference"
    return {
        "pair": f"{row['system']} against {row['against']}",
        "budget": budget_name(row["budget"]),
        "mean": _signed(row["mean"]),
        "range": f"{_signed(row['low'])} to {_signed(row['high'])}",
        "reading": reading,
    }


def _headline(result: dict[str, Any], metric: str) -> list[dict[str, str]]:
    ours = next((system["name"] for system in result["systems"] if system["kind"] == "pretrained"), None)
    ours = ours or result["systems"][0]["name"]
    figures = []
    for budget in dict.fromkeys((result["budgets"][0], result["budgets"][-1])):
        row = _row(result, ours, budget)
        if row:
            caption = f"{ours}, mean over seeds [{human.decimal(row['low'])}, {human.decimal(row['high'])}]. 1 is perfect."
            figures.append(_figure(f"{metric[0].upper()}{metric[1:]}, {budget_name(budget)}", human.decimal(row["mean"]), "", caption))
    first = [row for row in result.get("differences") or [] if row["budget"] == result["budgets"][0]]
    for row in [row for row in first if row["system"] == ours][:2]:
        caption = f"Difference in {metric} at {budget_name(row['budget'])}: {_difference(row)['range']}, {_difference(row)['reading']}."
        figures.append(_figure(f"Against {row['against']}", _signed(row["mean"]), "", caption))
    trained = f"{len(result['systems'])} systems, {len(result['budgets'])} label budgets, {len(result['seeds'])} seeds."
    figures.append(_figure("Models trained", human.count(len(result["points"])), "", trained))
    spent = sum(point["seconds"] for point in result["points"])
    figures.append(_figure("Time to compare", human.duration(spent), "", "Training and scoring all of them, pre-training aside."))
    return figures


def _figure(label: str, value: str, unit: str, caption: str) -> dict[str, str]:
    return {"label": label, "value": value, "unit": unit, "caption": caption}


def _pictures(result: dict[str, Any], metric: str) -> list[dict[str, str]]:
    names = [system["name"] for system in result["systems"]]
    ticks = [(examples, human.count(examples)) for examples in sorted({row["examples"] for row in result["summary"]})]

    def curves(value: str, intervals: bool) -> list[Line]:
        lines = []
        for series, name in enumerate(names):
            rows = sorted((row for row in result["summary"] if row["system"] == name), key=lambda row: row["examples"])
            low = [row["low"] for row in rows] if intervals else None
            high = [row["high"] for row in rows] if intervals else None
            lines.append(Line(name, [row["examples"] for row in rows], [row[value] for row in rows], low, high, series, True))
        return lines

    def picture(name: str, title: str, caption: str, lines: Sequence[Line], **options: Any) -> dict[str, str]:
        def draw(size: str) -> str:
            return line_figure(f"{name}-{size}", f"{title}. {caption}", lines, x_label="labelled training examples",
                               log_x=True, x_ticks=ticks, size=_SIZES[size], **options)  # fmt: skip

        return {"title": title, "caption": caption, "svg": draw("wide"), "narrow": draw("narrow")}

    title = f"{metric[0].upper()}{metric[1:]} by number of labels"
    pictures = [
        picture("curve", title, f"Mean {metric} on test data, with 95 % intervals over seeds. Higher is better.", curves("mean", True),
                y_format=_two_places)
    ]  # fmt: skip
    if differences := _difference_lines(result):
        pictures.append(picture("difference", "The difference it makes", f"Gain in {metric} over each rival on the same examples. "
                                "A bar that crosses zero is no clear difference.", differences, level=(0, ""), y_format=_two_places))  # fmt: skip
    caption = f"Training {metric} minus test {metric}: how much better a system does on what it has seen. Closer to zero is better."
    pictures.append(picture("gap", "Overfitting", caption, curves("gap", False), level=(0, ""), y_format=_two_places))
    return [one for one in pictures if one["svg"]]


_two_places: Callable[[float], str] = lambda value: human.decimal(value, 2)  # noqa: E731


def _difference_lines(result: dict[str, Any]) -> list[Line]:
    rows = result.get("differences") or []
    pairs = list(dict.fromkeys((row["system"], row["against"]) for row in rows))
    names = [system["name"] for system in result["systems"]]
    lines = []
    for system, against in pairs:
        chosen = [row for row in rows if (row["system"], row["against"]) == (system, against)]
        chosen = [(examples, row) for row in chosen if (examples := _examples(result, row["budget"])) is not None]
        chosen.sort(key=lambda pair: pair[0])
        several = len({system for system, _ in pairs}) > 1
        lines.append(
            Line(
                f"{system} over {against}" if several else f"over {against}",
                [examples for examples, _ in chosen],
                [row["mean"] for _, row in chosen],
                [row["low"] for _, row in chosen],
                [row["high"] for _, row in chosen],
                names.index(against) if against in names else len(lines),
                True,
            )
        )
    return lines


def _pretraining(cost: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What was spent before the first label was seen, each figure in its own unit."""
    units: dict[str, Callable[[Any], str]] = {
        "seconds": human.duration,
        "tokens": human.count,
        "parameters": human.count,
        "flops": lambda value: f"{human.scientific(value)} FLOPs, an estimate",
    }
    names = {"seconds": "Time", "flops": "Operations"}
    return [
        (names.get(name, name.replace("_", " ").capitalize()), units[name](value) if name in units else str(value))
        for name, value in (cost or {}).items()
    ]
