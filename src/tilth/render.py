"""Results for people and for programs, on standard output; errors on standard error."""

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.errors import TilthError

if TYPE_CHECKING:
    from rich.console import Console


def error(message: str) -> None:
    """Print a failure in red on standard error."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False).print(
        f"Error: {message}", style="red"
    )


@contextlib.contextmanager
def _on_standard_output() -> Iterator[None]:
    """Print in the block, and see it through: a result that did not arrive is a failure.

    Raises: TilthError when standard output takes no more; BrokenPipeError when its reader has gone.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is held back yet would fail once more when Python exits, with a status and a message of its own.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        why = error.strerror or error
        raise TilthError(f"cannot write the result to standard output: {why}; send it elsewhere") from None


@_on_standard_output()
def result(value: Any, as_json: bool) -> None:
    """Print a verb's result: one JSON object, or a table of names and values.

    value: a mapping, or an object whose `to_dict()` gives one.
    """
    values = value if isinstance(value, Mapping) else value.to_dict()
    if as_json:
        print(json.dumps(_plain(values), allow_nan=False))
        return
    from rich.table import Table

    names_and_values = Table(box=None, show_header=False, pad_edge=False)
    names_and_values.add_column(style="bold", no_wrap=True)
    names_and_values.add_column(overflow="fold")
    tables = {}
    for name, item in values.items():
        if _is_table(item):
            tables[name] = item
        else:
            for row in _rows(name, item):
                names_and_values.add_row(*row)
    console = _console()
    console.print(names_and_values)
    for name, records in tables.items():
        named = [{_words(column): figure for column, figure in record.items()} for record in records]
        _print_table(console, _words(name), named)


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _print_table(console: "Console", title: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Print a title, and a row for each record with a column for each figure of the first."""
    from rich.table import Table

    table = Table(*records[0], box=None, pad_edge=False)
    for record in records:
        table.add_row(*(_figure(record.get(column)) for column in records[0]))
    console.print(f"\n{title}", style="italic")
    console.print(table)


@_on_standard_output()
def comparison(values: Mapping[str, Any], report: Path) -> None:
    """Print the means of a comparison by system and label budget, the verdict, and where the report is."""
    from rich.table import Table

    means = {(row["system"], row["budget"]): row for row in values["summary"]}
    systems, budgets = [system["name"] for system in values["systems"]], values["budgets"]
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for budget in budgets:
        table.add_column(str(budget), justify="right", no_wrap=True)
    for name in systems:
        table.add_row(name, *(_mean(means[name, budget]) for budget in budgets))
    console = _console()
    console.print(f"{_words(values['metric'])} on test data by labels per class", style="italic")
    console.print(table)
    if left_out := ", ".join(map(str, values["budgets_left_out"])):
        console.print(f"Left out, since no label has more examples: {left_out} labels per class.")
    console.print(f"\n{values['verdict']}\n\nReport: ", end="")
    print(report)  # in one piece, whatever its length, so that it can be copied


def _mean(row: Mapping[str, Any]) -> str:
    """`0.552`, and below it `0.501-0.603` where the interval is known."""
    known = row["low"] is not None
    return f"{row['mean']:.3f}" + (f"\n{row['low']:.3f}-{row['high']:.3f}" if known else "")


@_on_standard_output()
def evaluation(values: Mapping[str, Any]) -> None:
    """Print the metrics of a classifier, a table of its labels, and the confusion matrix where it is small."""
    labels = values["labels"]
    result({name: item for name, item in values.items() if name not in _TABLES_OF_AN_EVALUATION}, as_json=False)
    console = _console()
    of_labels = [{"label": label, **figures} for label, figures in values["per_class"].items()]
    _print_table(console, "per label", of_labels)
    if len(labels) <= MOST_SHOWN_LABELS:
        heads, columns = labels, labels
        if max(map(len, ["true label", *labels])) + sum(2 + len(label) for label in labels) > console.width:
            columns = [str(number) for number in range(1, len(labels) + 1)]
            heads = [f"{number} {label}" for number, label in zip(columns, labels, strict=True)]
        rows = zip(heads, values["confusion"], strict=True)
        counts = [{"true label": head, **dict(zip(columns, row, strict=True))} for head, row in rows]
        _print_table(console, "counts by true label (row) and predicted label (column)", counts)


MOST_SHOWN_LABELS = 10
"""Labels of a confusion matrix that fits a terminal."""
_TABLES_OF_AN_EVALUATION = ("labels", "per_class", "confusion", "rejected")
"""Printed as tables; rejected rows were told on standard error."""


@_on_standard_output()
def predictions(items: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each text: label, probability, text, its line breaks as spaces.

    What was cut is said on standard error.
    """
    for item in items:
        text = " ".join(re.split(r"[\r\n]+", item["text"]))
        print(f"{item['label']}\t{item['probabilities'][item['label']]:.3f}\t{text}")
    if cut := sum(item.get("truncated", False) for item in items):
        print(f"The model read only the beginning of {cut} of {len(items)} texts.", file=sys.stderr)


@_on_standard_output()
def card(values: Mapping[str, Any], folder: str) -> None:
    """Print what is in a corpus. folder: where it is."""
    from tilth.corpus.card_text import render_card

    _console().print(render_card(dict(values), Path(folder)))


@_on_standard_output()
def corpus_match(values: Mapping[str, Any]) -> None:
    """Print how near a corpus is to a task's text, the verdict last."""
    from tilth.corpus.match_text import render_match

    _console().print(render_match(values))


@_on_standard_output()
def corpus_diff(values: Mapping[str, Any]) -> None:
    """Print what differs between two corpora."""
    from tilth.corpus.diff_text import render_diff

    _console().print(render_diff(values))


@_on_standard_output()
def texts(items: Sequence[str]) -> None:
    """Print texts with a blank line between them."""
    print("\n\n".join(items))


@_on_standard_output()
def plan(values: Mapping[str, Any]) -> None:
    """Print a plan: a line for each thing that a run takes or brings, then the warnings."""
    memory, budget, micro, best = (values[name] for name in ("memory", "budget", "micro_batch", "compute_optimal"))
    parts = ", ".join(f"{name} {_bytes(memory[name])}" for name in ("weights", "gradients", "optimizer", "activations"))
    measured = f"; {_bytes(memory['measured_peak'])} measured" if memory["measured_peak"] else ""
    fits = micro["rows_that_fit"]
    known = budget["tokens"] is not None
    rows = {
        "machine": f"{values['processor']}, {values['dtype']}",
        "parameters": f"{values['parameters']:,}, of them {values['trunk_parameters']:,} in the trunk",
        "memory of a step": f"{_bytes(memory['peak'])} estimated{measured} ({parts}, each at its highest); "
        f"{_bytes(memory['free'])} free; the process itself takes some hundred MB more",
        "micro-batch": f"{micro['rows']} rows, {micro['tokens']:,} tokens"
        + (f"; up to {fits} rows of a step fit" if fits is not None else ""),
        "speed": f"{values['probe']['tokens_per_second']:,.0f} tokens a second" if values["probe"] else "not known",
        "budget": f"{budget['tokens']:,} tokens, {budget['steps']:,} steps" if known else "not known in tokens",
        "passes over the data": f"{budget['epochs']:.2f} of {budget['tokens_in_data']:,} tokens" if known else "-",
        "time": _time(values["seconds"]),
    }
    if values["cost"]:
        rows["cost"] = f"{values['cost']['total']:,.2f} at {values['cost']['price']:,.2f} an hour"
    rows["expected held-out loss"] = f"{_figure(values['loss']) if values['loss'] else '-'}; {values['loss_note']}"
    if best:
        rows["compute-optimal size"] = (
            f"{best['parameters']:,} parameters on {best['tokens']:,} tokens for the same operations; this run has "
            f"{best['tokens_per_parameter']:.3g} tokens a parameter. {best['rule']}"
        )
    result(rows, as_json=False)
    for warning in values["warnings"]:
        print(f"Warning: {warning}.")


def _bytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _plain(value: Any) -> Any:
    """The value as strict JSON can hold it: a figure that is not finite becomes null, a path its string."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(record, Mapping) for record in value)


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Names with their figures; what is nested comes as `outer: inner`."""
    if isinstance(value, Mapping) and not _is_interval(value):
        for inner, item in value.items():
            yield from _rows(f"{name}: {inner}", item)
    else:
        yield _words(name), _figure(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys()


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(value: Any) -> str:
    if _is_interval(value):
        return f"{_figure(value['value'])}  ({_figure(value['low'])} to {_figure(value['high'])})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_figure, value))
    return "-" if value is None else str(value)
