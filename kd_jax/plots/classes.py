"""Figures of single classes: bars of their accuracies, and what is taken for what."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_jax.plots.curves import MOST_PANELS
from kd_jax.plots.style import (
    COLOURS,
    COLUMN,
    DARK,
    PAGE,
    SHADE,
    errors,
    finish,
    look_of,
    not_shown,
    panels,
    percent,
    sample,
    style,
)
from kd_jax.stats.corrections import title
from kd_jax.stats.curves import confusion
from kd_jax.stats.description import RunDescription, SettingInfo, describe_omitted
from kd_jax.stats.rows import Confusion
from kd_jax.stats.summary import Summary

MOST_CLASSES, MOST_NUMBERS = 20, 12
_BARS: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[0]},
    {"color": COLOURS[1], "hatch": "////", "edgecolor": "white"},
)


def class_bars(summary: Summary, description: RunDescription, corrections: dict[str, str]) -> Figure:
    """Test accuracy (%) of each class, one panel a setting, bars before and after the correction that
    `corrections` names for the setting (none: one bar); the omitted classes are shaded. With more than 20
    classes the bars are all, seen and omitted. At most 6 settings, those with omitted classes first.
    Where nothing is omitted, points in one panel, on an axis that shows how they differ."""
    settings = sorted(description.settings, key=lambda setting: not setting.omitted)[:MOST_PANELS]
    many = description.data.num_classes > MOST_CLASSES
    classes = ["all", "seen", "omitted"] if many else [str(i) for i in range(description.data.num_classes)]
    names = classes if many else description.data.class_names
    some_omitted = any(setting.omitted for setting in settings)
    rows = len(settings) if some_omitted else 1
    with style():
        figure, grid = panels(
            PAGE, 1.1 * rows + (0.5 if some_omitted else 1.2), rows, sharex=True, sharey=True
        )
        for axes, setting in zip(grid[:, 0], settings if some_omitted else (), strict=False):
            after = corrections.get(setting.name, "none")
            _bars(axes, summary, setting, classes, list(dict.fromkeys(["none", after])))
        if not some_omitted:
            _points(grid[0, 0], summary, settings, classes)
        turned: dict[str, Any] = {"rotation": 35, "ha": "right"} if max(map(len, names)) > 8 else {}
        grid[-1, 0].set_xticks(range(len(classes)), names, **turned)
        grid[-1, 0].set_xlabel("class")
        left_out = not_shown(len(description.settings) - len(settings))
        finish(figure, "Test accuracy of each class", sample(description, "whiskers") + left_out)
    return figure


def _bars(
    axes: Axes, summary: Summary, setting: SettingInfo, classes: Sequence[str], shown: Sequence[str]
) -> None:
    """One panel.  shown: corrections, the first of them none."""
    for place, correction in enumerate(shown):
        rows = percent(summary.accuracy(setting.name, class_, correction) for class_ in classes)
        at = np.arange(len(classes)) + (place - (len(shown) - 1) / 2) * 0.4
        error = {"elinewidth": 0.8, "capsize": 1.5, "capthick": 0.8, "ecolor": DARK}
        look = _BARS[place]
        axes.bar(
            at,
            rows[:, 0],
            0.4,
            label=title(correction),
            yerr=errors(rows),
            error_kw=error,
            linewidth=0,
            **look,
        )
    omitted = {*map(str, setting.omitted), "omitted"} if setting.omitted else set()
    for index in [index for index, class_ in enumerate(classes) if class_ in omitted]:
        axes.axvspan(
            index - 0.5, index + 0.5, color=SHADE, zorder=0, linewidth=0, label=describe_omitted([setting])
        )
    axes.set(title=setting.name, xlim=(-0.5, len(classes) - 0.5), ylim=(0, 104), ylabel="accuracy (%)")
    axes.set_yticks([0, 50, 100])
    axes.grid(axis="x", visible=False)


def _points(axes: Axes, summary: Summary, settings: Sequence[SettingInfo], classes: Sequence[str]) -> None:
    """Of each class its settings side by side, as trained."""
    for number, setting in enumerate(settings):
        rows = percent(summary.accuracy(setting.name, class_) for class_ in classes)
        at = np.arange(len(classes)) + (number - (len(settings) - 1) / 2) * 0.7 / len(settings)
        look = {"capsize": 2, "elinewidth": 0.9} | look_of(number) | {"linestyle": ""}
        axes.errorbar(at, rows[:, 0], yerr=errors(rows), label=setting.name, **look)
    axes.set(xlim=(-0.5, len(classes) - 0.5), ylabel="accuracy (%)")
    axes.grid(axis="x", visible=False)


def confusion_matrix(
    rows: Iterable[Confusion], description: RunDescription, setting: str, corrections: Sequence[str]
) -> Figure:
    """Of each true class (row), the share in % that is called each class (column): the mean over seeds, one
    panel a correction; the omitted classes' names are marked by *. Of more than 12 classes no numbers stand
    in the cells, of more than 20 only the omitted ones are named."""
    count = description.data.num_classes
    shown = description.setting(setting)
    omitted = shown.omitted
    names = [name + (" *" if i in omitted else "") for i, name in enumerate(description.data.class_names)]
    rows = list(rows)
    named = range(count) if count <= MOST_CLASSES else omitted[:MOST_CLASSES]
    single = len(corrections) == 1
    with style(**{"axes.grid": False, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5}):
        figure, grid = panels(COLUMN + 0.6 if single else PAGE, 3.1, 1, len(corrections), sharey=True)
        for axes, correction in zip(grid[0], corrections, strict=True):
            shares = confusion(rows, count, setting, correction)
            image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
            axes.set(title=title(correction))
            axes.set_xlabel("called")
            turned: dict[str, Any] = {"rotation": 45, "ha": "right"} if max(map(len, names)) > 3 else {}
            axes.set_xticks(named, [names[i] for i in named], **turned)
            axes.set_yticks(named, [names[i] for i in named])
            if count <= MOST_NUMBERS:
                _numbers(axes, shares)
        grid[0, 0].set_ylabel("true class")
        figure.colorbar(image, ax=figure.axes, shrink=0.8, label="share of the true class (%)")
        marked = f" * {describe_omitted([shown])}." if omitted else ""
        finish(figure, f"Confusion on the test split: {setting}", sample(description) + marked)
    return figure


def _numbers(axes: Axes, shares: np.ndarray) -> None:
    for (true, called), share in np.ndenumerate(shares):
        if share >= 0.05:
            text = f"{share:.0f}" if share >= 9.95 else f"{share:.1f}"
            colour = "white" if share > 50 else "black"
            axes.text(called, true, text, ha="center", va="center", fontsize=5.5, color=colour)
