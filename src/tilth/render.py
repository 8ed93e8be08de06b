"""Results for people and for programs, on standard output; errors on standard error."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tilth.errors import TilthError


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
    from rich.console import Console
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
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(names_and_values)
    for name, records in tables.items():
        table = Table(*(_words(column) for column in records[0]), box=None, pad_edge=False, title=_words(name))
        table.title_justify = "left"
        for record in records:
            table.add_row(*(_figure(record.get(column)) for column in records[0]))
        console.print()
        console.print(table)


@_on_standard_output()
def predictions(items: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each text: label, probability, text. What was cut is said on standard error."""
    for item in items:
        print(f"{item['label']}\t{item['probabilities'][item['label']]:.3f}\t{item['text']}")
    if cut := sum(item.get("truncated", False) for item in items):
        print(f"The model read only the beginning of {cut} of {len(items)} texts.", file=sys.stderr)


@_on_standard_output()
def card(values: Mapping[str, Any], folder: str) -> None:
    """Print what is in a corpus. folder: where it is."""
    from rich.console import Console

    from tilth.corpus.card_text import render_card

    Console(highlight=False, markup=False, emoji=False).print(render_card(dict(values), Path(folder)))


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
        "memory of a step": f"{_bytes(memory['peak'])} estimated{measured} ({parts}); {_bytes(memory['free'])} free",
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
