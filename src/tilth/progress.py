"""One progress bar for all long work: percent, rate, time left, and a few live figures."""

import contextlib
import sys
from collections.abc import Callable, Iterator

Update = Callable[..., None]


@contextlib.contextmanager
def progress_bar(description: str, total: float | None, unit: str, shown: bool = True) -> Iterator[Update]:
    """Show a bar on standard error while the block runs.

    total: how much there is to do in `unit`, or None when unknown. shown: False hides the bar (`--json`, tests); it is
    also hidden where standard error is not a terminal.
    Yields `update(done, **figures)`: the amount done so far, and figures to show beside the bar, as strings.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda done, **figures: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>5.1f} %" if total else "{task.completed:,.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        task = progress.add_task(description, total=total, unit=unit, figures="")

        def update(done: float, **figures: str) -> None:
            progress.update(
                task, completed=done, figures="  ".join(f"{name} {value}" for name, value in figures.items())
            )

        yield update
