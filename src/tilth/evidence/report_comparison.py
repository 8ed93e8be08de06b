"""What the report of a comparison says: learning curves, differences, overfitting and compute of several systems."""

from collections.abc import Callable, Sequence
from typing import Any

from tilth.evidence import human
from tilth.evidence.plots import Line, line_figure
from tilth.evidence.report_parts import Picture, Stat, capitalized

METRICS = {"macro_f1": "macro F1", "accuracy": "accuracy", "micro_f1": "micro F1", "matthews": "Matthews correlation"}
_KINDS = {"pretrained": "pre-trained", "scratch": "from scratch", "baseline": "baseline", "other": "other"}
_SIZES = ((980, 380), (380, 300))
"""Of a figure on a wide page, and on a phone, where the names of curves stand below."""
_LONGEST_BESIDE = 40
"""Characters of the longest name that leaves enough of a wide figure for its curves; longer ones stand below."""
_INTERVALS = (
    "Ranges and bars are 95\u00a0% intervals over both seeds (other labelled examples and random draws) and test texts "
    "(another test set). With all labels every seed learns from the same examples: what others would have done is not "
    "in the interval there. A system that gives the same with every seed, as TF-IDF with all labels may, has an "
    "interval over test texts alone."
)


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
        "notes": truncation_notes(result.get("truncated") or {}, result.get("examples") or {}),
        "method": (
            f"Each system was trained on the same labelled examples with {seeds} different seeds at each budget, and "
            f"scored by {metric} on the same test data, which no system learned from. Models from scratch are "
            f"trained with the settings of the pre-trained ones, though other rates may suit them better. {_INTERVALS}"
        ),
        "pictures": _pictures(result, metric),
        "metric": metric,
        "budgets": [
            {"name": budget_name(budget), "examples": _examples(result, budget)} for budget in result["budgets"]
        ],
        "systems": [
            {
                **system,
                "kind_name": _KINDS.get(system["kind"], system["kind"]),
                "cells": [_cell(result, system["name"], budget) for budget in result["budgets"]],
            }
            for system in systems
        ],
        "differences": _difference_rows(result),
        "pretraining": _pretraining(_costs(result)),
        "points": [
            {
                "system": point["system"],
                "budget": budget_name(point["budget"]),
                "examples": point["examples"],
                "seed": point["seed"],
                "test": (point.get("test") or {}).get(result["metric"]),
                "train": (point.get("train") or {}).get(result["metric"]),
                "seconds": point["seconds"],
            }
            for point in _trained(result)
        ],
        "sources": [
            ("Data", _text(result.get("data"))),
            ("Test data", _text(result.get("test"))),
            ("Labels", ", ".join(map(str, result["labels"]))),
            ("Seeds", ", ".join(map(str, result["seeds"]))),
            ("Threads", _text(result.get("threads"))),
        ],
    }


def truncation_notes(truncated: dict[str, dict[str, int]], examples: dict[str, int]) -> list[str]:
    """A sentence for each model that does not read all texts to their end.

    truncated: of each pre-trained system, how many texts were cut ("train", "test"); from scratch it cuts the same.
    examples: how many texts there are of either.
    """
    return [
        f"{name} reads {human.count(cut['train'])} of {human.count(examples['train'])} training texts and "
        f"{human.count(cut['test'])} of {human.count(examples['test'])} test texts only in part: they were longer "
        "than the model reads and were cut at the end, for the model from scratch too; TF-IDF reads all of every text."
        for name, cut in truncated.items()
        if sum(cut.values())
    ]


def _trained(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The points that are trainings, without those that repeat one under another seed."""
    return [point for point in result["points"] if not point.get("repeats")]


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
    means = [
        other["mean"] for other in result["summary"] if other["budget"] == budget and human.is_number(other["mean"])
    ]
    return {**row, "best": row["mean"] == max(means, default=None)}


def _signed(value: float | None) -> str:
    text = human.decimal(value, 3)
    return "+" + text if value is not None and value > 0 and human.is_number(value) else text


def _difference(row: dict[str, Any]) -> dict[str, Any]:
    """A difference in words; it is clear when its interval leaves out zero."""
    known = human.is_number(row["low"]) and human.is_number(row["high"])
    reading = "no clear difference"
    if known and row["low"] * row["high"] > 0:
        reading = "better" if row["low"] > 0 else "worse"
    return {
        "mean": _signed(row["mean"]),
        "range": f"{_signed(row['low'])} to {_signed(row['high'])}",
        "reading": reading,
        "is_clear": reading != "no clear difference",
    }


def _difference_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each pair of systems, one cell (or None) for each budget."""
    cells = {
        (row["system"], row["against"], row["budget"]): _difference(row) for row in result.get("differences") or []
    }
    pairs = dict.fromkeys((system, against) for system, against, _ in cells)
    return [
        {
            "system": system,
            "against": against,
            "cells": [cells.get((system, against, budget)) for budget in result["budgets"]],
        }
        for system, against in pairs
    ]


def _headline(result: dict[str, Any], metric: str) -> list[Stat]:
    """The first pre-trained system at the fewest and the most labels, its lead over others, and what it took."""
    names = [system["name"] for system in result["systems"]]
    pretrained = [system["name"] for system in result["systems"] if system["kind"] == "pretrained"]
    ours = (pretrained or names)[0]
    fewest, most = result["budgets"][0], result["budgets"][-1]
    stats = []
    for budget in dict.fromkeys((fewest, most)):
        if row := _row(result, ours, budget):
            caption = f"Of {ours}, {human.decimal(row['low'])} to {human.decimal(row['high'])}. 1 is perfect."
            stats.append(Stat(f"{capitalized(metric)}, {budget_name(budget)}", human.decimal(row["mean"]), caption))
    rows = [row for row in result.get("differences") or [] if row["system"] == ours and row["budget"] == fewest]
    for row in rows[:2]:
        difference = _difference(row)
        caption = f"Difference in {metric} at {budget_name(fewest)}, {difference['range']}: {difference['reading']}."
        stats.append(Stat(f"Against {row['against']}", difference["mean"], caption))
    points = _trained(result)
    trained = f"{len(names)} systems, {len(result['budgets'])} label budgets, {len(result['seeds'])} seeds."
    if len(points) < len(result["points"]):
        trained += " Where every seed gives the same model, it is trained once."
    spent = human.duration(sum(point["seconds"] for point in points))
    return [
        *stats,
        Stat("Models trained", human.count(len(points)), trained),
        Stat("Time to compare", spent, "Training and scoring all of them, pre-training aside."),
    ]


def _pictures(result: dict[str, Any], metric: str) -> list[Picture]:
    curve_caption = f"Mean {metric} on test data, with 95\u00a0% intervals over seeds and test texts. Higher is better."
    difference_caption = f"Gain in {metric} over each rival. A bar that crosses zero is no clear difference."
    gap_caption = f"Training {metric} minus test {metric}: how much better it does on what it has seen."
    curves, gaps = _curves(result, "mean", intervals=True), _curves(result, "gap", intervals=False)
    pictures = [
        _picture(result, "curve", f"{capitalized(metric)} by number of labels", curve_caption, curves),
        _picture(result, "difference", "The difference it makes", difference_caption, _difference_lines(result), 0),
        _picture(result, "gap", "Overfitting", gap_caption, gaps, 0),
    ]
    return [picture for picture in pictures if picture.svg]


def _picture(
    result: dict[str, Any], name: str, title: str, caption: str, lines: Sequence[Line], level: float | None = None
) -> Picture:
    named = {row["examples"]: row["budget"] for row in result["summary"]}
    ticks = [(examples, str(budget)) for examples, budget in sorted(named.items())]
    longest = max(len(line.label) for line in lines) if lines else 0
    drawings = [
        line_figure(
            f"{name}-{width}",
            f"{title}. {caption}",
            lines,
            x_label="labelled training examples per class",
            x_ticks=ticks,
            log_x=True,
            level=level,
            y_format=lambda value: human.decimal(value, 2),
            size=(width, height),
            names_below=width < 600 or longest > _LONGEST_BESIDE,
        )
        for width, height in _SIZES
    ]
    return Picture(title, caption, *drawings)


def _curves(result: dict[str, Any], value: str, intervals: bool) -> list[Line]:
    """One line for each system, over the number of labelled examples."""
    lines = []
    for series, system in enumerate(result["systems"]):
        rows = [row for row in result["summary"] if row["system"] == system["name"]]
        rows.sort(key=lambda row: row["examples"])
        low = [row["low"] for row in rows] if intervals else None
        high = [row["high"] for row in rows] if intervals else None
        examples, values = [row["examples"] for row in rows], [row[value] for row in rows]
        lines.append(Line(system["name"], examples, values, low, high, series, points=True))
    return lines


def _difference_lines(result: dict[str, Any]) -> list[Line]:
    rows = result.get("differences") or []
    pairs = list(dict.fromkeys((row["system"], row["against"]) for row in rows))
    names = [system["name"] for system in result["systems"]]
    several = len({system for system, _ in pairs}) > 1
    lines = []
    for system, against in pairs:
        chosen = [row for row in rows if (row["system"], row["against"]) == (system, against)]
        chosen = [(examples, row) for row in chosen if (examples := _examples(result, row["budget"])) is not None]
        chosen.sort(key=lambda pair: pair[0])
        lines.append(
            Line(
                f"{system} over {against}" if several else f"over {against}",
                [examples for examples, _ in chosen],
                [row["mean"] for _, row in chosen],
                [row["low"] for _, row in chosen],
                [row["high"] for _, row in chosen],
                # One system's lines wear the colours of its rivals; of several systems, each line has its own.
                names.index(against) if against in names and not several else len(lines),
                True,
            )
        )
    return lines


def _costs(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What pre-training cost, by system, where it is on record."""
    first = next((system["name"] for system in result["systems"] if system["kind"] == "pretrained"), "")
    costs = result.get("pretraining_costs") or {first: result.get("pretraining_cost")}
    return {name: cost for name, cost in costs.items() if cost}


def _pretraining(costs: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """What was spent before the first label was seen, each figure in its own unit; of several systems, each's."""
    units: dict[str, Callable[[Any], str]] = {
        "seconds": human.duration,
        "tokens": human.count,
        "parameters": human.count,
        "flops": lambda value: f"{human.scientific(value)} FLOPs, an estimate",
    }
    names = {"seconds": "Time", "flops": "Operations"}
    return [
        (
            (f"{system}: " if len(costs) > 1 else "") + names.get(name, name.replace("_", " ").capitalize()),
            units[name](value) if name in units else str(value),
        )
        for system, cost in costs.items()
        for name, value in cost.items()
    ]
