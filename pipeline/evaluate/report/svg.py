"""A matplotlib figure -> SVG to put into a page: no addresses, ids of its own, colours and fonts that the page sets."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

INK, SOFT, LINE = "#000001", "#000002", "#000003"
FIRST, SECOND, REST = "#000004", "#000005", "#000006"
ROLES = {INK: "ink", SOFT: "soft", LINE: "line", FIRST: "first", SECOND: "second", REST: "rest"}
"""Stand-ins for the colours that the page's style sheet names `--ink` and so on, in light and in dark."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.facecolor": "none",
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
WIDTH = 390.0
"""Of every figure, in the units of its text sizes: on a page the figures and their texts are all of one scale."""

CLEANING = (
    (r"<metadata>.*?</metadata>\s*", ""),
    (r"<style[^>]*>.*?</style>\s*", ""),  # it would hold for the whole page
    (r"<!--.*?-->\s*", ""),
    (r'<g id="[^"]*"', "<g"),
    (r'\bid="', 'id="{name}-'),
    (r"url\(#", "url(#{name}-"),
    (r'xlink:href="#', 'href="#{name}-'),
    (r"font-family: [^;\"]*; ", ""),
    (r' transform="rotate\(-?0 [^"]*"', ""),
)
"""Pattern -> replacement: what is of no use in a page, and the ids, which are to be of one page."""


@contextmanager
def canvas(height: float) -> Iterator[Figure]:
    """A figure to draw in, in the report's style; `height` is in the units of WIDTH."""
    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def inline(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an `<svg>` element.

    Args:
        name: unique in the page; each id in the drawing begins with it.
        description: for those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    opening = f'<svg viewBox="0 0 {_viewbox(drawing)}" role="img" aria-label="{escape(description)}">'
    drawing = re.sub(r"<svg[^>]*>", lambda _: opening, drawing, count=1)
    for pattern, replacement in CLEANING:
        drawing = re.sub(pattern, replacement.format(name=name), drawing, flags=re.DOTALL)
    for colour, role in ROLES.items():
        drawing = drawing.replace(colour, f"var(--{role})")
    return Markup(drawing)


def _viewbox(drawing: str) -> str:
    found = re.search(r'viewBox="0 0 ([\d. ]+)"', drawing)
    assert found, "matplotlib gives its drawings a viewBox that begins at 0 0"
    return found[1]
