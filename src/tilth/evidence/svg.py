"""A matplotlib figure as an SVG element: text stays text, colours follow the page, equal input gives equal bytes."""

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT_SIZE = 12.5
"""In CSS pixels of the figure."""

# What each colour drawn with becomes: a variable of the page, with a value for where there is none. The series are
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
INK, MUTED, HAIRLINE, *SERIES = _COLOURS


def to_svg(figure: "Figure", name: str, description: str) -> str:
    """Draw `figure` as one `<svg>` element, which can share a page with others or stand in a file alone.

    name: unique on the page, the start of every id. description: what a screen reader says.
    """
    import matplotlib
    from markupsafe import escape

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "DejaVu Sans", "font.size": FONT_SIZE}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The page's fonts draw the text; those matplotlib measures it with need not have every script.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
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
