"""One progress bar for all long work: percent, rate, time left, and a few live figures, on one line of any terminal."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

Update = Callable[..., None]

WIDEST_BAR, NARROWEST_BAR = 24, 6


def announce(text: str, shown: bool = True) -> None:
    """Print a line on standard error; a bar that is shown there moves below it."""
    if shown:
        print(text, file=sys.stderr, flush=True)


_events = False
_EVENT_SECONDS = 1.0


@contextlib.contextmanager
def progress_events() -> Iterator[None]:
    """Inside the block, what would be shown on a terminal is told to other readers of standard error as JSON lines.

    One a second at most, and one when all is done: `event` ("progress"), `stage`, `done`, `total` (or null), `unit`,
    `seconds` since the stage began, and the figures under their own names.
    """
    global _events
    before, _events = _events, True
    try:
        yield
    finally:
        _events = before


def _event_writer(stage: str, total: float | None, unit: str) -> Update:
    begin = told = time.monotonic()

    def update(done: float, **figures: Any) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _EVENT_SECONDS or done == total:
            told = now
            event = {"event": "progress", "stage": stage, "done": done, "total": total, "unit": unit}
            announce(json.dumps({**event, "seconds": round(now - begin, 1), **figures}))

    return update


@contextlib.contextmanager
def progress_bar(description: str, total: float | None, unit: str, shown: bool = True) -> Iterator[Update]:
    """Show a bar on standard error while the block runs.

    total: how much there is to do in `unit`, or None when unknown. shown: False hides the bar; it is also hidden where
    standard error is not a terminal. The rate is shown from one `unit` a second.
    Yields `update(done, **figures)`: the amount done so far, and figures to show beside the bar, the most wanted first:
    strings, counts, or counts by reason. Where the terminal is too narrow for all, the bar shrinks, then what is least
    needed is left out.
    """
    if shown and _events and not sys.stderr.isatty():
        yield _event_writer(description, total, unit)
        return
    if not (shown and sys.stderr.isatty()):
        yield lambda done, **figures: None
        return

    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

    console = Console(stderr=True)

    class Line(ProgressColumn):
        def render(self, task: Task) -> Text:
            amount = f"{task.percentage:.1f} %" if total else f"{task.completed:,.0f} {unit}"
            speed = task.finished_speed or task.speed or 0
            return progress_line(
                description,
                amount,
                task.percentage / 100 if total else None,
                task.elapsed,
                task.time_remaining if total and not task.finished else None,
                _rate(speed, unit),
                {name: text for name, value in task.fields["figures"].items() if (text := _text(value))},
                console.width,
            )

    with Progress(Line(), console=console) as progress:
        task = progress.add_task(description, total=total, figures={})

        def update(done: float, **figures: Any) -> None:
            progress.update(task, completed=done, figures=figures)

        yield update


def progress_line(
    description: str,
    amount: str,
    share: float | None,
    elapsed: float | None,
    left: float | None,
    rate: str,
    figures: dict[str, str],
    width: int,
) -> "Text":
    """What a bar shows, in at most `width` characters: the parts that are least needed are left out first.

    share: done, from 0 to 1, or None when the total is unknown. elapsed, left: seconds, or None when unknown.
    figures: those that are named `rate` and `now` are shown without their names.
    """
    from rich.text import Text

    shown_figures = [value if name in ("rate", "now") else f"{name} {value}" for name, value in figures.items()]
    # In the order of the line, each with its need: the smaller, the longer it stays.
    parts = [(0, description), (1, amount)]
    if left is not None:
        parts.append((2, f"{_clock(left)} left"))
    parts += [(4 + number, figure) for number, figure in enumerate(shown_figures)]
    if rate:
        parts.append((4 + len(shown_figures), rate))
    if elapsed is not None:
        parts.append((3 if left is None else 5 + len(shown_figures), f"{_clock(elapsed)} elapsed"))
    while len(parts) > 1 and len("  ".join(text for _, text in parts)) > width:
        parts.remove(max(parts))
    texts = [text for _, text in parts]
    line = Text(no_wrap=True, overflow="ellipsis")
    room = min(WIDEST_BAR, width - len("  ".join(texts)) - 2)
    line.append(texts[0])
    if share is not None and room >= NARROWEST_BAR:
        done = round(room * min(1.0, max(0.0, share)))
        line.append("  ").append("━" * done, "green").append("━" * (room - done), "dim")
    for text in texts[1:]:
        line.append(f"  {text}")
    return line


def _text(figure: Any) -> str:
    """How a figure is shown; of no reasons, not at all."""
    if isinstance(figure, dict):
        most = max(figure, key=lambda reason: (figure[reason], reason), default="")
        return f"{sum(figure.values()):,} ({figure[most]:,} {most})" if figure else ""
    return f"{figure:,}" if isinstance(figure, int) else figure


def _rate(speed: float, unit: str) -> str:
    if unit == "bytes":
        return f"{speed / 1e6:,.1f} MB/s" if speed >= 1e5 else ""
    return f"{speed:,.0f} {unit}/s" if speed >= 1 else ""


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
