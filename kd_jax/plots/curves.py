"""Figures of training: accuracy against epoch."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kd_jax.plots.style import (
    COLOURS,
    COLUMN,
    DARK,
    GREY,
    PAGE,
    band,
    finish,
    look_of,
    not_shown,
    panels,
    sample,
    style,
)
from kd_jax.stats.curves import TITLES, by_epoch, most_worth
from kd_jax.stats.description import RunDescription, SettingInfo
from kd_jax.stats.learning_speed import judged_split
from kd_jax.stats.rows import HistoryRow

MOST_CURVES = len(COLOURS)
MOST_BANDS = 4
MOST_PANELS = 6


def learning_curves(history: Sequence[HistoryRow], description: RunDescription) -> Figure:
    """Validation accuracy (%; training accuracy where nothing is held out) against epoch, mean and (of at
    most 4 settings, for more could not be told apart) band over seeds: of all classes, and beside it of the
    omitted ones where some setting has them. Of more than 7 settings, 7 are coloured and the others grey:
    those with omitted classes first, then those with the best last mean."""
    split = judged_split(history)
    curves = by_epoch(history, description, split)
    settings = [s.name for s in description.settings if (s.name, "accuracy") in curves]
    metrics = [m for m in TITLES if any((s, m) in curves for s in settings)] or ["accuracy"]

    coloured = most_worth(curves, settings, MOST_CURVES)
    shaded = len(coloured) <= MOST_BANDS
    rows, columns = math.ceil(len(metrics) / 2), min(2, len(metrics))
    with style():
        figure, grid = panels(PAGE if columns == 2 else COLUMN, 2.3 * rows, rows, columns)
        for axes in grid.ravel()[len(metrics) :]:
            axes.set_axis_off()
        for axes, metric in zip(grid.ravel(), metrics, strict=False):
            for name in [s for s in settings if s not in coloured and (s, metric) in curves]:
                epoch, mean, _, _ = curves[name, metric].T
                others = [setting for setting in settings if setting not in coloured]
                label = f"{len(others)} other settings" if len(others) > 1 else others[0]
                axes.plot(epoch, mean, color=GREY, linewidth=0.6, label=label)
            for number, name in enumerate(coloured):
                if (name, metric) in curves:
                    band(axes, curves[name, metric], name, shaded, **look_of(number))
            axes.set_title(TITLES[metric])
            _epochs(axes, split)
            if metric != "accuracy":
                axes.set_ylim(-2, 102)
        finish(figure, "Learning curves", sample(description, "bands" if shaded else ""))
    return figure


def _epochs(axes: Axes, split: str) -> None:
    axes.set(xlabel="epoch", ylabel=f"{'validation' if split == 'validation' else 'training'} accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def is_grid(settings: Sequence[SettingInfo]) -> bool:
    """Whether the settings that have a temperature differ in it and in alpha, by several values of each, and
    all of them in nothing else: then a panel a temperature shows what neither one does alone."""
    distilled = [setting for setting in settings if setting.get("temperature") is not None]
    values = [{setting.get(name) for setting in distilled} for name in ("temperature", "alpha")]
    rest = [setting.without("temperature", "alpha") for setting in settings]
    return min(map(len, values)) > 1 and all(others == rest[0] for others in rest)


def learning_grid(
    history: Sequence[HistoryRow], description: RunDescription, target: float = math.nan
) -> Figure:
    """The learning curves of a grid (see `is_grid`): a panel a temperature, a colour an alpha (6 of each at
    most), the students without a teacher black in every panel; `target`, a fraction, as a line."""
    split = judged_split(history)
    curves = by_epoch(history, description, split)
    settings = [s for s in description.settings if (s.name, "accuracy") in curves]
    distilled = [s for s in settings if s.get("temperature") is not None]
    temperatures = sorted({s.get("temperature") for s in distilled})[:MOST_PANELS]
    alphas = sorted({s.get("alpha") for s in distilled})[: MOST_CURVES - 1]
    rows = max(1, math.ceil(len(temperatures) / 3))
    columns = max(1, math.ceil(len(temperatures) / rows))
    shown = [s for s in distilled if s.get("temperature") in temperatures and s.get("alpha") in alphas]
    with style():
        figure, grid = panels(PAGE, 0.3 + 2.0 * rows, rows, columns, sharex=True, sharey=True)
        for axes in grid.ravel()[len(temperatures) :]:
            axes.set_axis_off()
        for axes, temperature in zip(grid.ravel(), temperatures, strict=False):
            for setting in (s for s in settings if s.get("temperature") is None):
                band(axes, curves[setting.name, "accuracy"], setting.name, **look_of(MOST_CURVES - 1))
            for setting in (s for s in shown if s.get("temperature") == temperature):
                label, look = f"alpha={setting.get('alpha'):g}", look_of(alphas.index(setting.get("alpha")))
                band(axes, curves[setting.name, "accuracy"], label, **look)
            if not math.isnan(target):
                label = f"{100 * target:g} %"
                axes.axhline(100 * target, color=DARK, linestyle=":", linewidth=1.0, label=label)
            axes.set_title(f"T={temperature:g}")
            _epochs(axes, split)
        for axes in grid.ravel():
            axes.label_outer()
        left_out = not_shown(len(distilled) - len(shown))
        finish(figure, "Learning curves, a panel a temperature", sample(description, "bands") + left_out)
    return figure
