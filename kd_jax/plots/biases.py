"""The figure of a bias: what adding it to the omitted classes' logits does to each part of the classes."""

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_jax.plots.curves import MOST_PANELS
from kd_jax.plots.style import DARK, PAGE, band, finish, look_of, not_shown, panels, sample, style
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.curves import by_bias, in_percent
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import BiasRow
from kd_jax.stats.summary import Summary


def bias_curve(
    curve: Sequence[BiasRow], summary: Summary, description: RunDescription, settings: Sequence[str]
) -> Figure:
    """Test accuracy (%) of the omitted, the seen and all classes against the bias of the omitted ones
    (nats), mean and band over seeds, one panel a setting (6 at most); vertical lines mark the mean bias that
    each correction chose, also where it lies outside the curve."""
    left_out = len(settings) - MOST_PANELS
    settings = list(settings)[:MOST_PANELS]
    columns = min(len(settings), 3)
    rows = math.ceil(len(settings) / columns)
    width = PAGE if columns > 1 else 4.6
    with style():
        figure, grid = panels(width, 2.3 * rows, rows, columns, sharey=True)
        for axes in grid.ravel()[len(settings) :]:
            axes.set_axis_off()
        for axes, name in zip(grid.ravel(), settings, strict=False):
            bands = by_bias(curve, summary, description, name, ("omitted", "seen", "all"))
            for number, (part, intervals) in enumerate(bands.items()):
                look = look_of(number) | {"linestyle": "-"}  # the other lines are those of corrections
                band(axes, in_percent(intervals), f"{part} classes", **look)
            beyond = _mark_chosen(axes, summary, name)
            room = int(17 * width / columns)
            words = "added to the omitted classes' logits (nats)" if columns < 3 else "bias (nats)"
            label = f"{words}\n{textwrap.fill(beyond, room)}".strip()
            title = textwrap.fill(name, room - 6, break_long_words=True)
            axes.set(title=title, ylim=(-2, 102), xlabel=label)
        for axes in grid[:, 0]:
            axes.set_ylabel("test accuracy (%)")
        note = f"{sample(description, 'bands')} Vertical lines: mean bias chosen.{not_shown(left_out)}"
        finish(figure, "Accuracy against the bias of the omitted classes' logits", note)
    return figure


def _mark_chosen(axes: Axes, summary: Summary, setting: str) -> str:
    """A vertical line at the mean bias that each correction chose; the axis extends to it. What is further
    from the curve than the curve is wide would squash it, and is returned in words instead."""
    low, high = axes.dataLim.intervalx
    beyond = []
    for correction, entry in CORRECTIONS.items():
        chosen = summary.bias(setting, correction)
        if chosen is None or correction == "none":
            continue
        if max(low - chosen.mean, chosen.mean - high) > high - low:
            beyond.append(f"{correction} {chosen.mean:.1f}")
        else:
            label, line = f"bias chosen, {correction}", (0, entry.dashes) if entry.dashes else "-"
            axes.axvline(chosen.mean, color=DARK, linestyle=line, linewidth=1.0, label=label)
    return f"chosen beyond this axis: {', '.join(beyond)}" if beyond else ""
