"""Curves and confusion matrices as inline SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilth.evidence import human
from tilth.evidence.svg import FONT_SIZE, HAIRLINE, INK, MUTED, SERIES, to_svg

_MARKERS = "os^DvPX"
"""One more than there are colours, so that the seventh curve differs from the first."""
_DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)), (0, (3, 1.5)), "-")
Values = Sequence[float | None]
"""Measured values; None and NaN stand for what a run could not measure."""

_CHARACTER_WIDTH = 0.58 * FONT_SIZE
_LINE_HEIGHT = 1.25 * FONT_SIZE


@dataclass(frozen=True)
class Line:
    """One curve. `low` and `high` bound it, drawn as bars at its points, or as a band when `band` is set."""

    label: str
    x: Sequence[float]
    y: Values
    low: Values | None = None
    high: Values | None = None
    series: int = 0
    points: bool = False
    band: bool = False


@dataclass(frozen=True)
class Mark:
    """The point to be named: the evaluation whose model was kept."""

    x: float
    y: float
    text: str


def binned(x: Sequence[float], y: Values, bins: int = 160) -> tuple[list[float], ...]:
    """Shorten a long curve without hiding its spikes: (x, mean, smallest, largest) of at most `bins` stretches."""
    pairs = np.array([(a, b) for a, b in zip(x, y, strict=True) if human.is_number(a) and human.is_number(b)])
    long = max(1, -(-len(pairs) // bins))
    stretches = [pairs[start : start + long] for start in range(0, len(pairs), long)]
    return (
        [float(stretch[:, 0].mean()) for stretch in stretches],
        [float(stretch[:, 1].mean()) for stretch in stretches],
        [float(stretch[:, 1].min()) for stretch in stretches],
        [float(stretch[:, 1].max()) for stretch in stretches],
    )


def line_figure(
    name: str,
    description: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_format: Callable[[float], str] = human.significant,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float | None, float | None] = (None, None),
    x_ticks: Sequence[tuple[float, str]] | None = None,
    log_x: bool = False,
    level: float | None = None,
    mark: Mark | None = None,
    verticals: Sequence[float] = (),
    size: tuple[int, int] = (400, 235),
    names_below: bool = False,
) -> str:
    """Curves over one x axis, each named at its right end, or below the axis where `names_below` is set.

    name: unique on the page; it prefixes the ids inside the SVG. description: what a screen reader says. level: the
    height of a reference line. verticals: x positions of events (resumptions). size: width and height in CSS pixels,
    names below not counted.
    Returns "" when no line has a point to show.
    """
    lines = [finite for line in lines if (finite := _finite(line)).x]
    if not lines:
        return ""
    named = len(lines) > 1
    widest = round(0.9 * size[0] / _CHARACTER_WIDTH) if names_below else 44 if size[0] >= 600 else 15
    names = [_shortened(line.label, widest) for line in lines]
    right = 10 + max(len(name) for name in names) * _CHARACTER_WIDTH if named and not names_below else 14
    below = len(lines) * _LINE_HEIGHT if named and names_below else 0
    size = (size[0], round(size[1] + below))
    figure, axes = _canvas(size, left=52, right=right, bottom=46 + below)
    # On a logarithmic axis, curves step aside a little so that their interval bars do not cover each other.
    span = max(max(line.x) for line in lines) / min(min(line.x) for line in lines) if log_x else 1.0
    if log_x:
        axes.set_xscale("log")
        axes.minorticks_off()
        if span == 1:  # a single place has no range to show
            axes.set_xlim(lines[0].x[0] / 2, lines[0].x[0] * 2)
    for x in verticals:
        axes.axvline(x, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    if level is not None:
        axes.axhline(level, color=MUTED, linewidth=1)
    for index, line in enumerate(lines):
        _draw(axes, line, offset=span ** (0.008 * (index - (len(lines) - 1) / 2)))
    axes.margins(x=0.02 if not log_x else 0.06, y=0.08)
    low, high = y_limits
    axes.set_ylim(bottom=low, top=high)
    if x_limits is not None:
        axes.set_xlim(*x_limits)
    _ticks(axes, size, y_format, x_ticks)
    axes.set_xlabel(x_label, labelpad=5)
    if mark is not None:
        _place_mark(axes, mark, lines[0].series)
    if named and names_below:
        _list_names(figure, lines, names, size)
    elif named:
        _place_names(axes, lines, names, size[1])
    return to_svg(figure, name, description)


def confusion_figure(labels: Sequence[str], matrix: Sequence[Sequence[int]], name: str = "confusion") -> str:
    """A confusion matrix: rows are the true labels, columns the predicted ones, shade is the share of the row.

    matrix: counts, (len(labels), len(labels)); cells show them for up to 20 labels. name: unique on the page.
    Returns an SVG element that can stand in a page or, written to a file, on its own.
    """
    counts = np.asarray(matrix, dtype=float)
    assert counts.shape == (len(labels), len(labels)), (counts.shape, len(labels))
    total = len(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = min(64.0, max(14.0, 420.0 / total))
    names = [_shortened(label, 18) for label in labels]
    margin = 14 + max(len(name) for name in names) * _CHARACTER_WIDTH
    upright = max(len(name) for name in names) * _CHARACTER_WIDTH > cell
    bottom = (margin if upright else 22) + 24
    size = (round(margin + 24 + cell * total + 14), round(bottom + cell * total + 10))
    figure, axes = _canvas(size, left=margin + 24, right=14, bottom=bottom, top=10, grid=False)
    for row in range(total):
        for column in range(total):
            # Opacity of one hue, at most 0.6, keeps the counts readable on light and on dark pages alike.
            axes.add_patch(_rectangle(column - 0.5, row - 0.5, 0.6 * shares[row, column]))
            if total <= 20:
                axes.text(column, row, human.count(counts[row, column]), ha="center", va="center", color=INK,
                          fontsize=min(FONT_SIZE, cell / 3.2))  # fmt: skip
    axes.set_xlim(-0.5, total - 0.5)
    axes.set_ylim(total - 0.5, -0.5)
    axes.set_xticks(range(total), names, rotation=90 if upright else 0)
    axes.set_yticks(range(total), names)
    axes.set_xlabel("predicted", labelpad=6)
    axes.set_ylabel("true", labelpad=6)
    right = sum(counts[index, index] for index in range(total))
    description = f"Confusion matrix of {total} labels: {right:,.0f} of {counts.sum():,.0f} on the diagonal"
    return to_svg(figure, name, description)


def _canvas(
    size: tuple[int, int], left: float, right: float, bottom: float = 46, top: float = 12, grid: bool = True
) -> tuple[Any, Any]:
    """A figure of `size` user units (matplotlib draws 72 to the inch) and bare axes inside the given margins."""
    from matplotlib.figure import Figure

    width, height = size
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=FONT_SIZE, labelcolor=MUTED, pad=6)
    axes.xaxis.label.set(color=MUTED, fontsize=FONT_SIZE)
    axes.yaxis.label.set(color=MUTED, fontsize=FONT_SIZE)
    if grid:
        axes.grid(axis="y", color=HAIRLINE, linewidth=1)
    return figure, axes


def _ticks(axes: Any, size: tuple[int, int], y_format: Callable[[float], str], x_ticks: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: y_format(value)))
    if x_ticks is None:
        axes.xaxis.set_major_locator(MaxNLocator(5 if size[0] < 600 else 8, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _position(value)))
    else:
        axes.set_xticks([x for x, _ in x_ticks], [text for _, text in x_ticks])


def _position(value: float) -> str:
    return human.count(value) if abs(value) >= 1000 else human.significant(value)


def _draw(axes: Any, line: Line, offset: float) -> None:
    """Draw one curve, its x multiplied by `offset`."""
    colour = SERIES[line.series % len(SERIES)]
    x = np.asarray(line.x, dtype=float) * offset
    y = np.asarray(line.y, dtype=float)
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, dtype=float), np.asarray(line.high, dtype=float)
        if line.band:
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        else:
            axes.vlines(x, low, high, color=colour, linewidth=1.6)
    axes.plot(x, y, **_style(line))


def _style(line: Line) -> dict[str, Any]:
    """How a curve is drawn. Its series decides colour, dashes and marker, so that no two of a page look alike."""
    pointed = line.points or len(line.x) == 1
    return {
        "color": SERIES[line.series % len(SERIES)],
        "linewidth": 1.8,
        "linestyle": _DASHES[line.series % len(_DASHES)] if line.points else "-",
        "marker": _MARKERS[line.series % len(_MARKERS)] if pointed else "",
        "markersize": 5 if len(line.x) < 40 else 3,
        "markeredgewidth": 0,
        "solid_capstyle": "round",
        "solid_joinstyle": "round",
    }


def _place_mark(axes: Any, mark: Mark, series: int) -> None:
    axes.plot([mark.x], [mark.y], marker="o", markersize=9, markerfacecolor="none", markeredgewidth=1.6,
              markeredgecolor=SERIES[series % len(SERIES)], clip_on=False)  # fmt: skip
    # It is the lowest or near it: its name goes below, where hardly a curve is, and the axis makes room for it.
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, mark.y - 0.16 * (high - mark.y)), high)
    across = axes.transAxes.inverted().transform(axes.transData.transform((mark.x, mark.y)))[0]
    axes.annotate(mark.text, (mark.x, mark.y), xytext=(0, -11), textcoords="offset points", va="top",
                  ha="right" if across > 0.6 else "left" if across < 0.3 else "center",
                  color=INK, fontsize=FONT_SIZE, fontweight="bold")  # fmt: skip


def _list_names(figure: Any, lines: Sequence[Line], names: Sequence[str], size: tuple[int, int]) -> None:
    """Write the curves' names one below the other at the foot of the figure, each beside a piece of its curve."""
    from matplotlib.lines import Line2D

    width, height = size
    for index, (line, name) in enumerate(zip(lines, names, strict=True)):
        y = (len(lines) - index - 0.5) * _LINE_HEIGHT / height
        figure.add_artist(Line2D([8 / width, 25 / width, 42 / width], [y] * 3, markevery=[1], **_style(line)))
        figure.text(52 / width, y, name, ha="left", va="center", color=SERIES[line.series % len(SERIES)],
                    fontsize=FONT_SIZE, fontweight="bold")  # fmt: skip


def _place_names(axes: Any, lines: Sequence[Line], names: Sequence[str], height: int) -> None:
    """Write each curve's name at its end, moved apart where ends lie closer than a line of text."""
    box = axes.get_position()
    tall = box.height * height
    ends = [
        float(axes.transAxes.inverted().transform(axes.transData.transform((line.x[-1], line.y[-1])))[1])
        for line in lines
    ]
    positions = spread([min(1.0, max(0.0, end)) * tall for end in ends], _LINE_HEIGHT, tall)
    for line, name, position in zip(lines, names, positions, strict=True):
        axes.text(1, position / tall, f" {name}", transform=axes.transAxes, ha="left", va="center", clip_on=False,
                  color=SERIES[line.series % len(SERIES)], fontsize=FONT_SIZE, fontweight="bold")  # fmt: skip


def spread(positions: Sequence[float], gap: float, top: float) -> list[float]:
    """Move positions until neighbours are `gap` apart: up first, then down again from `top`.

    Where there is no room for all, they end below 0 rather than on top of each other.
    """
    order = sorted(range(len(positions)), key=lambda index: (positions[index], index))
    placed = [positions[index] for index in order]
    for index in range(1, len(placed)):
        placed[index] = max(placed[index], placed[index - 1] + gap)
    limit = top
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - gap
    result = [0.0] * len(placed)
    for index, position in zip(order, placed, strict=True):
        result[index] = position
    return result


def _finite(line: Line) -> Line:
    """The line without the points that have no value; a point whose interval is unknown keeps one of no width."""
    keep = [index for index, pair in enumerate(zip(line.x, line.y, strict=True)) if all(map(human.is_number, pair))]
    low = high = None
    if line.low is not None and line.high is not None:
        bounds = zip(line.low, line.high, line.y, strict=True)
        known = [(a, b) if human.is_number(a) and human.is_number(b) else (y, y) for a, b, y in bounds]
        low, high = [known[index][0] for index in keep], [known[index][1] for index in keep]
    x, y = [line.x[index] for index in keep], [line.y[index] for index in keep]
    return replace(line, x=x, y=y, low=low, high=high)


def _shortened(text: str, longest: int) -> str:
    """At most `longest` characters on one line, without what matplotlib would read as mathematics.

    The cut is in the middle, since names often differ at their ends only.
    """
    text = " ".join(text.split())
    if len(text) > longest:
        head = longest // 2
        text = f"{text[:head].rstrip()}…{text[len(text) - (longest - head - 1) :].lstrip()}"
    return text.replace("$", r"\$")


def _rectangle(x: float, y: float, opacity: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=SERIES[0], alpha=opacity, edgecolor="none")
