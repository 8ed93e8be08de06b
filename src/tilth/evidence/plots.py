"""Figures as inline SVG: text stays text, colours are CSS variables (light and dark), and equal input gives equal bytes."""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilth.evidence import human

# What each colour written by matplotlib becomes, with the value used where the page defines no variables. The series are
# Okabe and Ito's colour-blind-safe hues, darkened until they can be read as text on a light page.
_COLOURS = {
    "#010101": "var(--ink, #1f1d1a)",
    "#020202": "var(--muted, #6a665f)",
    "#030303": "var(--hairline, #e4e0d8)",
    "#040401": "var(--series-1, #0068a6)",
    "#040402": "var(--series-2, #b84e00)",
    "#040403": "var(--series-3, #00745a)",
    "#040404": "var(--series-4, #a04a80)",
    "#040405": "var(--series-5, #8a6200)",
    "#040406": "var(--series-6, #5a5650)",
}
_INK, _MUTED, _HAIRLINE, *_SERIES = _COLOURS
_MARKERS = "os^DvP"
_DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)), (0, (3, 1.5)), "-")
_FONT_SIZE = 12.5
_CHARACTER_WIDTH = 0.58 * _FONT_SIZE
_LINE_HEIGHT = 1.25 * _FONT_SIZE


@dataclass(frozen=True)
class Line:
    """One curve. `low` and `high` bound it, drawn as bars at its points, or as a band when `band` is set."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    series: int = 0
    points: bool = False
    band: bool = False


@dataclass(frozen=True)
class Mark:
    """A single point worth naming, such as the best evaluation."""

    x: float
    y: float
    text: str


def binned(x: Sequence[float], y: Sequence[float], bins: int = 160) -> tuple[list[float], ...]:
    """Shorten a long curve without hiding its spikes: (x, mean, smallest, largest) of at most `bins` equal stretches."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if human.is_number(a) and human.is_number(b)]
    stretches = [stretch for stretch in np.array_split(np.array(pairs).reshape(-1, 2), bins) if len(stretch)]
    columns = (
        [float(stretch[:, 0].mean()) for stretch in stretches],
        [float(stretch[:, 1].mean()) for stretch in stretches],
        [float(stretch[:, 1].min()) for stretch in stretches],
        [float(stretch[:, 1].max()) for stretch in stretches],
    )
    return columns


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
    level: tuple[float, str] | None = None,
    mark: Mark | None = None,
    verticals: Sequence[float] = (),
    size: tuple[int, int] = (440, 250),
) -> str:
    """Curves over one x axis, each named at its right end.

    name: unique on the page; it prefixes the ids inside the SVG. description: what a screen reader says. level: a
    horizontal reference and its name. verticals: x positions of events (resumptions). size: width and height in CSS pixels.
    """
    lines = [finite for line in lines if (finite := _finite(line)).x]
    if not lines:
        return ""
    named = len(lines) > 1
    widest = 24 if size[0] >= 600 else 15
    names = [_shortened(line.label, widest) for line in lines]
    right = 10 + max(len(name) for name in names) * _CHARACTER_WIDTH if named else 14
    figure, axes = _canvas(size, left=52, right=right)
    if log_x:
        axes.set_xscale("log")
        axes.minorticks_off()
    for x in verticals:
        axes.axvline(x, color=_MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    if level is not None:
        axes.axhline(level[0], color=_MUTED, linewidth=1)
    for index, line in enumerate(lines):
        _draw(axes, line, offset=(index - (len(lines) - 1) / 2) if log_x else 0.0)
    axes.margins(x=0.02 if not log_x else 0.06, y=0.08)
    low, high = y_limits
    axes.set_ylim(bottom=low, top=high)
    if x_limits is not None:
        axes.set_xlim(*x_limits)
    _ticks(axes, size, y_format, x_ticks)
    axes.set_xlabel(x_label, labelpad=5)
    if level is not None and level[1]:
        bottom, top = axes.get_ylim()
        if bottom <= level[0] <= top:
            axes.annotate(level[1], (1, level[0]), xycoords=("axes fraction", "data"), xytext=(0, 3),
                          textcoords="offset points", ha="right", va="bottom", color=_MUTED)  # fmt: skip
    if mark is not None:
        _place_mark(axes, mark, lines[0].series)
    if named:
        _place_names(axes, lines, names, size[1])
    return _svg(figure, name, description)


def confusion_figure(labels: Sequence[str], matrix: Sequence[Sequence[int]], name: str = "confusion") -> str:
    """A confusion matrix: rows are the true labels, columns the predicted ones, shade is the share of the row.

    matrix: counts, (len(labels), len(labels)). Cells show their counts for up to 20 labels. Returns an SVG element that can
    stand in a page or, after writing it to a file, on its own.
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
                axes.text(column, row, human.count(counts[row, column]), ha="center", va="center", color=_INK,
                          fontsize=min(_FONT_SIZE, cell / 3.2))  # fmt: skip
    axes.set_xlim(-0.5, total - 0.5)
    axes.set_ylim(total - 0.5, -0.5)
    axes.set_xticks(range(total), names, rotation=90 if upright else 0)
    axes.set_yticks(range(total), names)
    axes.set_xlabel("predicted", labelpad=6)
    axes.set_ylabel("true", labelpad=6)
    right = sum(counts[index, index] for index in range(total))
    description = f"Confusion matrix of {total} labels: {right:,.0f} of {counts.sum():,.0f} on the diagonal"
    return _svg(figure, name, description)


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
    axes.tick_params(length=0, labelsize=_FONT_SIZE, labelcolor=_MUTED, pad=6)
    axes.xaxis.label.set(color=_MUTED, fontsize=_FONT_SIZE)
    axes.yaxis.label.set(color=_MUTED, fontsize=_FONT_SIZE)
    if grid:
        axes.grid(axis="y", color=_HAIRLINE, linewidth=1)
    return figure, axes


def _ticks(axes: Any, size: tuple[int, int], y_format: Callable[[float], str], x_ticks: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: y_format(value)))
    if x_ticks is None:
        axes.xaxis.set_major_locator(MaxNLocator(5 if size[0] < 600 else 8, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human.count(value)))
    else:
        axes.set_xticks([x for x, _ in x_ticks], [text for _, text in x_ticks])


def _draw(axes: Any, line: Line, offset: float) -> None:
    colour = _SERIES[line.series % len(_SERIES)]
    # On a logarithmic axis, curves step aside by a few per cent so that their interval bars do not cover each other.
    x = np.asarray(line.x, dtype=float) * 1.035**offset
    y = np.asarray(line.y, dtype=float)
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, dtype=float), np.asarray(line.high, dtype=float)
        if line.band:
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        else:
            axes.vlines(x, low, high, color=colour, linewidth=1.6)
    pointed = line.points or len(x) == 1
    axes.plot(
        x, y, color=colour, linewidth=1.8, linestyle=_DASHES[line.series % len(_DASHES)] if line.points else "-",
        marker=_MARKERS[line.series % len(_MARKERS)] if pointed else "", markersize=5 if len(x) < 40 else 3,
        markeredgewidth=0, solid_capstyle="round", solid_joinstyle="round",
    )  # fmt: skip


def _place_mark(axes: Any, mark: Mark, series: int) -> None:
    axes.plot([mark.x], [mark.y], marker="o", markersize=9, markerfacecolor="none", markeredgewidth=1.6,
              markeredgecolor=_SERIES[series % len(_SERIES)], clip_on=False)  # fmt: skip
    across, up = axes.transAxes.inverted().transform(axes.transData.transform((mark.x, mark.y)))
    axes.annotate(mark.text, (mark.x, mark.y), xytext=(0, 11 if up < 0.75 else -11), textcoords="offset points",
                  ha="right" if across > 0.6 else "left" if across < 0.3 else "center",
                  va="bottom" if up < 0.75 else "top", color=_INK, fontsize=_FONT_SIZE, fontweight="bold")  # fmt: skip


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
                  color=_SERIES[line.series % len(_SERIES)], fontsize=_FONT_SIZE, fontweight="bold")  # fmt: skip


def spread(positions: Sequence[float], gap: float, top: float) -> list[float]:
    """Move positions as little as an upward and a downward pass need so that neighbours are `gap` apart, within [0, top].

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
    """The line without the points where the run logged null or NaN, or whose interval is missing."""
    keep = [index for index, pair in enumerate(zip(line.x, line.y, strict=True)) if all(map(human.is_number, pair))]
    low = high = None
    if line.low is not None and line.high is not None:
        low = [_or(line.low[index], line.y[index]) for index in keep]
        high = [_or(line.high[index], line.y[index]) for index in keep]
    x, y = [line.x[index] for index in keep], [line.y[index] for index in keep]
    return Line(line.label, x, y, low, high, line.series, line.points, line.band)


def _or(value: float | None, otherwise: float) -> float:
    return value if value is not None and math.isfinite(value) else otherwise


def _shortened(text: str, longest: int) -> str:
    """At most `longest` characters on one line, with nothing that matplotlib would read as mathematics."""
    text = " ".join(text.split())
    text = text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
    return text.replace("$", r"\$")


def _rectangle(x: float, y: float, opacity: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=_SERIES[0], alpha=opacity, edgecolor="none")


def _svg(figure: Any, name: str, description: str) -> str:
    """Save, then turn matplotlib's stand-alone file into an element that shares a page with others."""
    import matplotlib
    from markupsafe import escape

    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "DejaVu Sans", "font.size": _FONT_SIZE}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):
        nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    used = set(re.findall(r"(?:href=\"|url\()#([\w.-]+)", svg))
    # Only tags are changed: what stands between them is the text of labels.
    svg = re.sub(r"<[^>]+>", lambda tag: _shared_tag(tag[0], name, used), svg)
    svg = re.sub(r">\s+<", "><", svg)
    width, height = (round(float(value)) for value in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(description)}" stroke-linejoin="round">'
    )
    return opening + svg[svg.index(">") + 1 :].strip()


def _shared_tag(tag: str, name: str, used: set[str]) -> str:
    """One tag with page-wide unique ids, the page's font and colours, and coordinates to a hundredth of a pixel."""
    tag = re.sub(r' id="([\w.-]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", tag)
    tag = re.sub(r"(?:xlink:)?(href=\"|url\()#", rf"\1#{name}-", tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", tag)
    tag = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 system-ui, sans-serif", tag)
    tag = re.sub("|".join(_COLOURS), lambda match: _COLOURS[match[0]], tag)
    return re.sub(r"\s+", " ", re.sub(r"(\d\.\d\d)\d+", r"\1", tag))
