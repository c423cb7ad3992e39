"""Figures of models: what they cost, and how their features lie."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from kd_jax.plots.style import COLOURS, GREY, MARKERS, PAGE, errors, finish, panels, percent, style
from kd_jax.stats.intervals import Interval


def compression(models: Sequence[tuple[str, Interval, float, float, float]], batch_size: int) -> Figure:
    """Test accuracy (%) of models against their size (MB), the time of one image and that of a batch (ms), on
    logarithmic axes; models: (label, accuracy as a fraction, MB, ms of an image, ms of a batch). Settings of
    one run, whose size and times are the same, stand side by side, 6 % apart."""
    alike: dict[tuple[float, ...], list[int]] = {}
    for index, (_, _, *costs) in enumerate(models):
        alike.setdefault(tuple(costs), []).append(index)
    heads = "size of a checkpoint (MB)", "time of one image (ms)", f"time of a batch of {batch_size} (ms)"
    with style():
        figure, grid = panels(PAGE, 2.5, 1, 3, sharey=True)
        for index, (label, accuracy, *costs) in enumerate(models):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + index // 7) % len(MARKERS)]
            error = errors(percent([accuracy]))
            look = {"color": colour, "capsize": 2, "elinewidth": 0.9, "label": textwrap.shorten(label, 60)}
            group = alike[tuple(costs)]
            aside = 1.06 ** (group.index(index) - (len(group) - 1) / 2)
            for axes, cost in zip(grid[0], costs, strict=True):
                axes.errorbar(aside * cost, 100 * accuracy.mean, error, fmt=marker, **look)
        for axes, head in zip(grid[0], heads, strict=True):
            _logarithmic(axes)
            axes.set_xlabel(head)
        grid[0, 0].set_ylabel("test accuracy (%)")
        note = f"Mean; bars: 95 % interval; n = {_units(models)}. Times: median of repeated calls."
        note += " Settings of one model stand side by side." if len(alike) < len(models) else ""
        finish(figure, "Accuracy against size and time", note)
    return figure


def _units(models: Sequence[tuple[str, Interval, float, float, float]]) -> str:
    counts = sorted({accuracy.n for _, accuracy, *_ in models})
    return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} runs or teachers"


def _logarithmic(axes: Axes) -> None:
    """Between the powers of ten around the points."""
    low, high = np.log10(axes.dataLim.intervalx)
    axes.set(xscale="log", xlim=(0.8 * 10 ** np.floor(low), 1.25 * 10 ** np.ceil(high)))
    axes.xaxis.set_major_locator(LogLocator(numticks=5))  # more labels would overlap
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def features(places: Sequence[tuple[str, str, np.ndarray, np.ndarray]], class_: str) -> Figure:
    """Networks' features in the plane, by PCA and beside it by t-SNE, one class marked.

    places: (network, "pca" or "tsne", places f64[N,2], their groups i64[N]: 0 of other classes, 1 of the
    class, 2 of synthesised images of the class).
    """
    made = any(2 in groups for *_, groups in places)
    networks = list(dict.fromkeys(network for network, *_ in places))
    columns = min(2, len(networks))
    rows = math.ceil(len(networks) / columns)
    with style(**{"axes.grid": False, "legend.markerscale": 3}):
        figure, grid = panels(PAGE / 2 * columns, 1.95 * rows, rows, 2 * columns)
        for axes in grid.ravel():
            axes.set_axis_off()
        for network, how, points, groups in places:
            row, column = divmod(networks.index(network), columns)
            axes = grid[row, 2 * column + (how == "tsne")]
            for group, (colour, marker, label) in enumerate((
                (GREY, "o", "other classes"), (COLOURS[1], "^", f"class {class_}"),
                (COLOURS[0], "s", f"class {class_}, synthesised"),
            )[:2 + made]):  # fmt: skip
                # As vectors, ten thousand dots would be megabytes.
                axes.plot(*points[groups == group].T, marker, markersize=1.8, markeredgewidth=0, color=colour,
                          label=label, rasterized=True)  # fmt: skip
            title = textwrap.fill(f"{network}, {'PCA' if how == 'pca' else 't-SNE'}", 30)
            axes.set_title(title, fontsize=7)
        what = "Test images and synthesised images" if made else "Test images"
        finish(figure, f"{what} by the last hidden layer", "One seed; the axes have no unit.")
    return figure
