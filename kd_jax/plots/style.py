"""The one style of all figures: sizes, colours, what stands around the panels, the files.

Widths are those of a printed column and of a page. Colours are Okabe and Ito's, which the colour-blind tell
apart; for print without colour each comes with a line, a marker or a hatch of its own. Bands and error bars
are 95 % intervals, and a note below each figure says so, and of how many. Legends stand outside the data.
Figures are made without pyplot, so there is no global state and no display.
"""

import contextlib
import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kd_jax.stats.description import RunDescription
from kd_jax.stats.intervals import Interval

COLUMN, PAGE = 3.5, 7.2
"""Widths in inches."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvPX"
LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (7, 3)), (0, (3, 1, 1, 1)))
DARK, CONTROL, GREY, SHADE = "#333333", "#777777", "#BBBBBB", "#E4E4E4"

_DOTS_AN_INCH = 300
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # class names are text, whatever signs are in them
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kd_jax",  # names of its parts that are the same each time
}
_NOTE = 6.5  # points


def style(**changes: Any) -> contextlib.AbstractContextManager[None]:
    """The context in which a figure is made and saved."""
    return matplotlib.rc_context(_STYLE | changes)


def render(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a "png", 300 dots an inch, or as an "svg"; a figure drawn anew gives the same bytes."""
    buffer = io.BytesIO()
    with style(), warnings.catch_warnings():
        # Of a class name in a script that the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        if kind == "png":  # the canvas draws once, where savefig draws twice
            figure.set_dpi(_DOTS_AN_INCH)
            FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
        else:
            metadata = {"Date": None, "Creator": None}
            figure.savefig(buffer, format=kind, dpi=_DOTS_AN_INCH, metadata=metadata)
    return buffer.getvalue()


def panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """(figure, its axes [rows,columns]); width and height of all panels together, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def finish(figure: Figure, title: str, note: str) -> None:
    """Title above, below the panels one legend for all of them, each label once, then the note; the figure
    grows by what they need."""
    width, height = figure.get_size_inches()
    heading = textwrap.fill(title, int(13 * width))
    words = textwrap.fill(note, int(20 * width))
    entries = _legend_entries(figure)
    rows, columns = _legend_shape(list(entries), width)
    under = 0.06 + 0.11 * (words.count("\n") + 1)
    below = under + (0.1 + 0.157 * rows if rows else 0)
    height += below + 0.16 * (heading.count("\n") + 1)
    figure.set_figheight(height)
    figure.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - below / height))
    figure.suptitle(heading, x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    figure.text(0.01, 0.04 / height, words, fontsize=_NOTE, color=DARK, va="bottom", linespacing=1.15)
    if entries:
        figure.legend(
            list(entries.values()), list(entries), loc="lower center", bbox_to_anchor=(0.5, under / height),
            ncols=columns, handlelength=2.4, columnspacing=1.2, borderaxespad=0,
        ).set_in_layout(False)  # fmt: skip


def _legend_entries(figure: Figure) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return entries


def _legend_shape(labels: Sequence[str], width: float) -> tuple[int, int]:
    """(rows, columns) that fit into the width, in inches."""
    if not labels:
        return 0, 0
    inches = 0.057 * max(map(len, labels)) + 0.5  # of the widest entry
    rows = math.ceil(len(labels) / max(1, int(width / inches)))
    return rows, math.ceil(len(labels) / rows)


def sample(description: RunDescription, interval: str = "") -> str:
    """What is shown, of how many seeds.  interval: what the 95 % intervals are drawn as; "" for none."""
    name = PurePath(description.data.name).name  # which may be a path
    if len(description.seeds()) == 1:
        return f"{name}; one seed, so no interval."
    what = f"{interval}: 95 % interval; " if interval else ""
    return f"{name}; mean; {what}n = {description.describe_units()}."


def not_shown(count: int) -> str:
    """A sentence on the settings for which there was no room."""
    return f" {count} setting{' is' if count == 1 else 's are'} not shown." if count > 0 else ""


def percent(intervals: Iterable[Interval | None]) -> np.ndarray:
    """f64[n,3]: mean, low, high in %; nan where there is no interval."""
    return 100 * np.array([interval[:3] if interval else (math.nan,) * 3 for interval in intervals])


def errors(rows: np.ndarray) -> np.ndarray | None:
    """f64[2,n]: the lengths of the error bars below and above, inside 0 to 100 %; 0 where undefined, None
    where they all are.  rows: f64[n,3], as of `percent`."""
    mean, low, high = rows.T
    if np.all(np.isnan(high)):
        return None
    return np.nan_to_num(np.stack([mean - np.maximum(low, 0), np.minimum(high, 100) - mean]))


def band(axes: Axes, points: np.ndarray, label: str, shaded: bool = True, **look: Any) -> None:
    """A line, some ten markers on it, and its interval where that is to be `shaded`.

    points: f64[n,4]: x, mean, low, high.  look: color, marker, linestyle.
    """
    x, mean, low, high = points.T
    if len(x) == 1:  # a line of one point draws nothing
        look |= {"capsize": 2, "linestyle": ""}
        axes.errorbar(x, mean, errors(points[:, 1:]), label=label, **look)
        axes.set_xticks(x)
        return
    axes.plot(x, mean, label=label, markevery=max(1, len(x) // 8), **look)
    if shaded:
        low, high = np.maximum(low, 0), np.minimum(high, 100)
        axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def look_of(number: int) -> dict[str, Any]:
    """Colour, marker and line of the number-th of several curves."""
    place = number % len(COLOURS)
    return {"color": COLOURS[place], "marker": MARKERS[place], "linestyle": LINES[place]}
