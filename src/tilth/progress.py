"""One progress bar for all long work: percent, rate, time left, and a few live figures."""

import contextlib
import sys
from collections.abc import Callable, Iterator

Update = Callable[..., None]


def announce(text: str, shown: bool = True) -> None:
    """Print a line on standard error; a bar that is shown there moves below it."""
    if shown:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(description: str, total: float | None, unit: str, shown: bool = True) -> Iterator[Update]:
    """Show a bar on standard error while the block runs.

    total: how much there is to do in `unit`, or None when unknown. shown: False hides the bar; it is also hidden where
    standard error is not a terminal. The rate is shown from one `unit` a second.
    Yields `update(done, **figures)`: the amount done so far, and figures to show beside the bar, as strings.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda done, **figures: None
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed or 0
            return Text(f"{speed:,.0f} {unit}/s" if speed >= 1 else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>5.1f} %" if total else "{task.completed:,.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        Rate(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, unit=unit, figures="")

        def update(done: float, **figures: str) -> None:
            shown_figures = "  ".join(f"{name} {value}" for name, value in figures.items())
            progress.update(task, completed=done, figures=shown_figures)

        yield update
