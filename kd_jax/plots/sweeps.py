"""The figure of a sweep: accuracy against the value in which its settings differ."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kd_jax.plots.style import CONTROL, PAGE, errors, finish, look_of, panels, percent, sample, style
from kd_jax.stats.description import RunDescription, SettingInfo
from kd_jax.stats.summary import Summary
from kd_jax.stats.sweep_axis import LABELS, Axis, axis_of, controls_of


def axis(summary: Summary, description: RunDescription) -> Figure:
    """Test accuracy (%) of the students of subliminal learning against the value in which they differ most
    (see axis.py), mean and interval over seeds: numbers along a line, words below each other; of the class
    that all of them miss, where there is one. A colour for each combination of the other values; grey are
    their teachers, and these untrained (reference)."""
    settings = description.settings
    students = [setting for setting in settings if setting.get("logit_mask") is not None]
    shown, part = axis_of(students), _part(students)
    places = list(dict.fromkeys(shown.places.values()))
    at = {place: place if shown.numeric else number for number, place in enumerate(places)}
    names = [setting.name for setting in settings]
    accuracies = percent(summary.accuracy(name, part) for name in names)
    rows = dict(zip(names, accuracies, strict=True))
    with style():
        figure, grid = panels(0.62 * PAGE, 2.4 if shown.numeric else 0.7 + 0.24 * len(places))
        axes = grid[0, 0]
        for (kind, control_of), line in zip(controls_of(settings).items(), ("--", ":"), strict=False):
            if len(set(control_of.values())) == 1:
                _span(axes, rows[next(iter(control_of.values()))], line, kind, upright=not shown.numeric)
                continue
            points = {at[shown.places[student]]: rows[control] for student, control in control_of.items()}
            look = {"color": CONTROL, "marker": "_" if shown.numeric else "|", "linestyle": line}
            _series(axes, points, kind, not shown.numeric, look)
        labels = list(dict.fromkeys(shown.series.values()))
        for number, label in enumerate(labels):
            aside = 0.0 if shown.numeric else 0.2 * (number - (len(labels) - 1) / 2)
            members = [student for student in shown.series if shown.series[student] == label]
            points = {at[shown.places[student]] + aside: rows[student] for student in members}
            _series(axes, points, label or "students", not shown.numeric, look_of(number))
        of = "" if part == "all" else f" of class {description.data.class_names[int(part)]}"
        _scale(axes, places, shown, f"test accuracy{of} (%)")
        finish(figure, "Subliminal learning", sample(description, "bars and bands"))
    return figure


def _part(students: Sequence[SettingInfo]) -> str:
    """The one class that all students miss, else all classes."""
    omitted = {setting.omitted for setting in students}
    return str(*omitted.pop()) if len(omitted) == 1 and len(next(iter(omitted))) == 1 else "all"


def _series(
    axes: Axes, points: dict[float, np.ndarray], label: str, upright: bool, look: dict[str, Any]
) -> None:
    """points: place -> f64[3], mean, low and high. Upright: places go down, without a line through them."""
    places = sorted(points)
    rows = np.array([points[place] for place in places])
    look |= {"capsize": 2, "elinewidth": 0.9, "label": label}
    if upright:
        axes.errorbar(rows[:, 0], places, xerr=errors(rows), **look | {"linestyle": ""})
        return
    axes.errorbar(places, rows[:, 0], yerr=errors(rows), **look)
    low, high = np.maximum(rows[:, 1], 0), np.minimum(rows[:, 2], 100)
    axes.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _span(axes: Axes, row: np.ndarray, line: str, label: str, upright: bool) -> None:
    """A mean and its band over the whole of the axis.  row: f64[3], mean, low and high."""
    mean, low, high = row
    mark, shade = (axes.axvline, axes.axvspan) if upright else (axes.axhline, axes.axhspan)
    mark(mean, color=CONTROL, linestyle=line, linewidth=1.3, label=label)
    if not math.isnan(low):
        shade(max(low, 0), min(high, 100), color=CONTROL, alpha=0.15, linewidth=0)


def _scale(axes: Axes, places: Sequence[Any], shown: Axis, accuracy: str) -> None:
    """Accuracy from 0 to 100 %; a tick at each place, on a logarithmic axis where they span much."""
    if not shown.numeric:
        axes.set(xlim=(0, 102), xlabel=accuracy, ylim=(len(places) - 0.5, -0.5))
        axes.set_yticks(range(len(places)), [str(place) for place in places])
        axes.set_title(f"by {LABELS[shown.name]}")
        axes.grid(axis="y", visible=False)
        return
    axes.set(ylim=(0, 102), ylabel=accuracy, xlabel=textwrap.fill(LABELS[shown.name], 60))
    if min(places) > 0 and max(places) >= 8 * min(places):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [f"{place:g}" for place in places])
