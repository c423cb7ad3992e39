"""Figures of a run folder, data in, matplotlib Figure out; the only importer of matplotlib.

One style: Okabe and Ito's colours, which the colour-blind tell apart; what is before a correction is blue,
what is after it vermillion; bands and error bars are 95 % intervals; legends stand outside the data. Figures
are made without pyplot, so there is no global state and no display.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from kd_jax import results
from kd_jax.axis import LABELS, Axis, axis_of, controls_of
from kd_jax.learning import judged_split
from kd_jax.stats import Interval
from kd_jax.summary import Values, absence, interval_of, teachers_of, units_of

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BEFORE, AFTER, SHADE, GREY = COLOURS[0], COLOURS[1], "#E4E4E4", "#BBBBBB"
MARKERS = "osD^vPX"
CONTROL = "#777777"
MOST_CURVES = len(COLOURS)
MOST_PANELS = 6
MOST_BANDS = 4
MOST_CLASSES = 20

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # class names are text, whatever signs are in them
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
_TITLES = {
    "accuracy": "all classes",
    "accuracy_missing": "classes missing from the training data",
    "accuracy_missing_corrected": "the missing ones, bias corrected",
    "accuracy_missing_probe": "the missing ones, by a linear probe",
}
_LINES = {"test_tuned": ":", "validation_tuned": "-.", "prior_matched": "--", "teacher_matched": "-"}


def to_png(figure: Figure) -> bytes:
    """The figure at 150 dots an inch; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # of a class name in a script that the font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def learning_curves(history: Sequence[results.HistoryRow], config: dict[str, Any]) -> Figure:
    """Validation accuracy (%; training accuracy where nothing is held out) against epoch, mean and (of at
    most 4 settings, for more could not be told apart) band over seeds: of all classes, and beside it of the
    missing ones where some setting has them. Of more than 7 settings, 7 are coloured and the others grey:
    those with missing classes first, then those with the best last mean."""
    split = judged_split(history)
    curves = _curves(history, config, split)
    settings = [s["name"] for s in config["settings"] if (s["name"], "accuracy") in curves]
    metrics = [m for m in _TITLES if any((s, m) in curves for s in settings)]

    def rank(name: str) -> tuple[bool, float]:
        return (name, "accuracy_missing") not in curves, -curves[name, "accuracy"][-1, 1]

    best = sorted(settings, key=rank)[:MOST_CURVES]
    coloured = [name for name in settings if name in best]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * max(len(metrics), 1) + 2.4, 3.6), layout="constrained")
        for axes, metric in zip(_row(figure, len(metrics)), metrics, strict=True):
            for name in [s for s in settings if s not in best]:
                if (name, metric) in curves:
                    epoch, mean, _, _ = curves[name, metric].T
                    label = f"{len(settings) - len(best)} other settings"
                    axes.plot(epoch, mean, color=GREY, linewidth=0.8, label=label)
            for colour, name in zip(COLOURS, coloured, strict=False):
                if (name, metric) in curves:
                    _band(axes, curves[name, metric], colour, name, shaded=len(coloured) <= MOST_BANDS)
            axes.set_title(_TITLES[metric])
            axes.set_xlabel("epoch")
            axes.set_ylabel(f"{'validation' if split == 'validation' else 'training'} accuracy (%)")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            if metric != "accuracy":
                axes.set_ylim(-2, 102)
        _legend(figure)
        _heading(figure, f"Learning curves: {_sample(config)}")
    return figure


def is_grid(settings: Sequence[dict[str, Any]]) -> bool:
    """Whether the settings that have a temperature differ in it and in alpha, by several values of each, and
    all of them in nothing else: then a panel a temperature shows what neither one does alone."""
    distilled = [setting for setting in settings if setting.get("temperature") is not None]
    values = [{setting.get(name) for setting in distilled} for name in ("temperature", "alpha")]
    free = ("name", "temperature", "alpha")
    rest = [{key: value for key, value in setting.items() if key not in free} for setting in settings]
    return min(map(len, values)) > 1 and all(others == rest[0] for others in rest)


def learning_grid(
    history: Sequence[results.HistoryRow], config: dict[str, Any], level: float = math.nan
) -> Figure:
    """The learning curves of a grid (see `is_grid`): a panel a temperature, a colour an alpha (6 of each at
    most), the students without a teacher black in every panel; `level`, a fraction, as a line."""
    split = judged_split(history)
    curves = _curves(history, config, split)
    settings = [s for s in config["settings"] if (s["name"], "accuracy") in curves]
    distilled = [s for s in settings if s.get("temperature") is not None]
    temperatures = sorted({s["temperature"] for s in distilled})[:MOST_PANELS]
    *colours, black = COLOURS
    colour_of = dict(zip(sorted({s["alpha"] for s in distilled}), colours, strict=False))
    height = max(1, math.ceil(len(temperatures) / 3))
    width = max(1, math.ceil(len(temperatures) / height))
    shown = [s for s in distilled if s["temperature"] in temperatures and s["alpha"] in colour_of]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4 * width + 1.4, 1.0 + 2.7 * height), layout="constrained")
        panels = figure.subplots(height, width, squeeze=False, sharex=True, sharey=True)
        for axes in panels.ravel()[len(temperatures) :]:
            axes.set_axis_off()
        for axes, temperature in zip(panels.ravel(), temperatures, strict=False):
            for setting in (s for s in settings if s.get("temperature") is None):
                _band(axes, curves[setting["name"], "accuracy"], black, setting["name"])
            for setting in (s for s in shown if s["temperature"] == temperature):
                label = f"alpha={setting['alpha']:g}"
                _band(axes, curves[setting["name"], "accuracy"], colour_of[setting["alpha"]], label)
            if not math.isnan(level):
                label = f"{100 * level:g} %"
                axes.axhline(100 * level, color="#333333", linestyle=":", linewidth=1.1, label=label)
            axes.set(title=f"T={temperature:g}", xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        for row in panels[:, 0]:
            row.set_ylabel(f"{'validation' if split == 'validation' else 'training'} accuracy (%)")
        _legend(figure)
        left_out = len(distilled) - len(shown)
        _heading(figure, f"Learning curves: {_sample(config)}{_not_shown(left_out)}")
    return figure


def class_bars(values: Values, config: dict[str, Any], corrections: dict[str, str]) -> Figure:
    """Test accuracy (%) of each class, one panel a setting, bars before and after the correction that
    `corrections` names for the setting (none: one bar); the missing classes are shaded. With more than 20
    classes the bars are all, kept and missing. At most 6 settings, those with missing classes first."""
    settings = sorted(config["settings"], key=lambda setting: not setting["missing"])[:MOST_PANELS]
    many = config["data"]["num_classes"] > MOST_CLASSES
    classes = ["all", "kept", "missing"] if many else [str(i) for i in range(config["data"]["num_classes"])]
    names = classes if many else config["data"]["class_names"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.0, 1.1 + 1.5 * len(settings)), layout="constrained")
        panels = figure.subplots(len(settings), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for axes, setting in zip(panels, settings, strict=True):
            name, missing = setting["name"], {*map(str, setting["missing"]), "missing"}
            after = corrections.get(name, "none")
            shown = ["none"] if after == "none" else ["none", after]
            for place, correction in enumerate(shown):
                rows = _percent(values.get((name, "test", correction, c, "accuracy")) for c in classes)
                at = np.arange(len(classes)) + (place - (len(shown) - 1) / 2) * 0.4
                label = "as trained" if correction == "none" else f"bias corrected, {correction}"
                error = {"elinewidth": 0.9, "capsize": 1.5, "ecolor": "#333333"}
                colour = (BEFORE, AFTER)[place]
                axes.bar(at, rows[:, 0], 0.4, color=colour, label=label, yerr=_errors(rows), error_kw=error)
            for index, class_ in enumerate(classes):
                if class_ in missing and setting["missing"]:
                    label = absence([setting])
                    axes.axvspan(index - 0.5, index + 0.5, color=SHADE, zorder=0, label=label)
            axes.set(title=name, xlim=(-0.5, len(classes) - 0.5), ylim=(0, 104), ylabel="accuracy (%)")
            axes.grid(axis="x", visible=False)
        turned: dict[str, Any] = {"rotation": 35, "ha": "right"} if max(map(len, names)) > 8 else {}
        panels[-1].set_xticks(range(len(classes)), names, **turned)
        panels[-1].set_xlabel("class")
        _legend(figure)
        left_out = len(config["settings"]) - len(settings)
        _heading(figure, f"Test accuracy of each class: {_sample(config)}{_not_shown(left_out)}")
    return figure


def bias_curve(
    curve: Sequence[results.BiasRow], values: Values, config: dict[str, Any], settings: Sequence[str]
) -> Figure:
    """Test accuracy (%) of the missing, the kept and all classes against the bias of the missing ones
    (nats), mean and band over seeds, one panel a setting (6 at most); vertical lines mark the mean bias that
    each correction chose, also where it lies outside the curve."""
    left_out = len(settings) - MOST_PANELS
    settings = list(settings)[:MOST_PANELS]
    width = min(len(settings), 3)
    height = math.ceil(len(settings) / width)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4 * width + 2.4, 0.8 + 2.8 * height), layout="constrained")
        panels = figure.subplots(height, width, squeeze=False, sharey=True).ravel()
        for axes in panels[len(settings) :]:
            axes.set_axis_off()
        for axes, name in zip(panels, settings, strict=False):
            for colour, (part, points) in zip(COLOURS, _by_bias(curve, values, config, name), strict=False):
                _band(axes, points, colour, f"{part} classes")
            beyond = _mark_chosen(axes, values, name)
            title = textwrap.fill(name, 42, break_long_words=True)
            label = f"added to the missing classes' logits (nats)\n{textwrap.fill(beyond, 50)}".strip()
            axes.set(title=title, ylim=(-2, 102), xlabel=label)
        for row in panels[::width]:
            row.set_ylabel("test accuracy (%)")
        _legend(figure)
        _heading(figure, f"Accuracy against bias: {_sample(config)}{_not_shown(left_out)}")
    return figure


def axis(values: Values, config: dict[str, Any]) -> Figure:
    """Test accuracy (%) of the students of subliminal learning against the value in which they differ most
    (see axis.py), mean and interval over seeds: numbers along a line, words below each other. A colour for
    each combination of the other values; grey are their teachers, and these untrained (reference)."""
    settings = config["settings"]
    shown = axis_of([setting for setting in settings if setting["outputs"] is not None])
    places = list(dict.fromkeys(shown.places.values()))
    at = {place: place if shown.numeric else number for number, place in enumerate(places)}
    rows = {
        s["name"]: _percent([values.get((s["name"], "test", "none", "all", "accuracy"))])[0] for s in settings
    }
    with matplotlib.rc_context(_STYLE):
        height = 3.6 if shown.numeric else 2.0 + 0.3 * len(places)
        figure = Figure(figsize=(5.2, height), layout="constrained")
        axes = figure.subplots()
        for (kind, own), line in zip(controls_of(settings).items(), ("--", ":"), strict=False):
            if len(set(own.values())) == 1:
                _span(axes, rows[next(iter(own.values()))], line, kind, upright=not shown.numeric)
                continue
            points = {at[shown.places[student]]: rows[control] for student, control in own.items()}
            _series(axes, points, CONTROL, "_" if shown.numeric else "|", line, kind, not shown.numeric)
        labels = list(dict.fromkeys(shown.series.values()))
        for number, label in enumerate(labels):
            aside = 0.0 if shown.numeric else 0.2 * (number - (len(labels) - 1) / 2)
            members = [student for student in shown.series if shown.series[student] == label]
            points = {at[shown.places[student]] + aside: rows[student] for student in members}
            style = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], "-"
            _series(axes, points, *style, label or "students", not shown.numeric)
        _scale(axes, places, shown)
        _legend(figure)
        _heading(figure, f"{config['data']['name']}: {_sample(config)}")
    return figure


def _series(
    axes: Axes,
    points: dict[float, np.ndarray],
    colour: str,
    marker: str,
    line: str,
    label: str,
    upright: bool,
) -> None:
    """points: place -> f64[3], mean, low and high. Upright: places go down, without a line through them."""
    places = sorted(points)
    rows = np.array([points[place] for place in places])
    style: dict[str, Any] = {
        "color": colour,
        "marker": marker,
        "markersize": 4.5,
        "capsize": 2,
        "label": label,
    }
    if upright:
        axes.errorbar(rows[:, 0], places, xerr=_errors(rows), linestyle="", elinewidth=1.2, **style)
        return
    axes.errorbar(places, rows[:, 0], yerr=_errors(rows), linestyle=line, elinewidth=1.0, **style)
    low, high = np.maximum(rows[:, 1], 0), np.minimum(rows[:, 2], 100)
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def _span(axes: Axes, row: np.ndarray, line: str, label: str, upright: bool) -> None:
    """A mean and its band over the whole of the axis.  row: f64[3], mean, low and high."""
    mean, low, high = row
    mark, shade = (axes.axvline, axes.axvspan) if upright else (axes.axhline, axes.axhspan)
    mark(mean, color=CONTROL, linestyle=line, linewidth=1.3, label=label)
    if not math.isnan(low):
        shade(max(low, 0), min(high, 100), color=CONTROL, alpha=0.15, linewidth=0)


def _scale(axes: Axes, places: Sequence[Any], shown: Axis) -> None:
    """Accuracy from 0 to 100 %; a tick at each place, on a logarithmic axis where they span much."""
    if not shown.numeric:
        axes.set(xlim=(0, 102), xlabel="test accuracy (%)", ylim=(len(places) - 0.5, -0.5))
        axes.set_yticks(range(len(places)), [str(place) for place in places])
        axes.set_title(f"by {LABELS[shown.name]}")
        axes.grid(axis="y", visible=False)
        return
    axes.set(ylim=(0, 102), ylabel="test accuracy (%)", xlabel=LABELS[shown.name])
    if min(places) > 0 and max(places) >= 8 * min(places):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [f"{place:g}" for place in places])


def compression(models: Sequence[tuple[str, Interval, float, float, float]], batch_size: int) -> Figure:
    """Test accuracy (%) of models against their size (MB), the time of one image and that of a batch (ms), on
    logarithmic axes; models: (label, accuracy as a fraction, MB, ms of an image, ms of a batch)."""
    width = min(max(len(label) for label, *_ in models), 60)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(
            figsize=(10.2, 3.2 + 0.2 * math.ceil(len(models) * width / 120)), layout="constrained"
        )
        panels = figure.subplots(1, 3, sharey=True)
        heads = (
            "size of a checkpoint (MB)",
            "time of one image (ms)",
            f"time of a batch of {batch_size} (ms)",
        )
        for index, (label, accuracy, *costs) in enumerate(models):
            colour, marker = COLOURS[index % len(COLOURS)], "osD^vP"[index // len(COLOURS) % 6]
            error = _errors(_percent([accuracy]))
            for axes, cost in zip(panels, costs, strict=True):
                axes.errorbar(
                    cost,
                    100 * accuracy.mean,
                    error,
                    fmt=marker,
                    color=colour,
                    capsize=2,
                    elinewidth=0.9,
                    label=label,
                )
        for axes, head in zip(panels, heads, strict=True):
            low, high = np.log10(axes.dataLim.intervalx)
            axes.set(xscale="log", xlim=(0.8 * 10 ** np.floor(low), 1.25 * 10 ** np.ceil(high)), xlabel=head)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("test accuracy (%)")
        _legend(figure)
        _heading(figure, "Accuracy against size and time: mean and 95 % interval over runs")
    return figure


def features(panels: Sequence[tuple[str, str, np.ndarray, np.ndarray]], class_: str) -> Figure:
    """Networks' features in the plane, by PCA and beside it by t-SNE, one class marked.

    panels: (network, "pca" or "tsne", places f64[N,2], who belongs to the class bool[N]).
    """
    networks = list(dict.fromkeys(network for network, *_ in panels))
    width = min(2, len(networks))
    height = math.ceil(len(networks) / width)
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(5.2 * width, 0.8 + 2.6 * height), layout="constrained")
        grid = figure.subplots(height, 2 * width, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for network, how, places, member in panels:
            row, column = divmod(networks.index(network), width)
            axes = grid[row, 2 * column + (how == "tsne")]
            axes.set_axis_on()
            for part, colour, label in ((~member, GREY, "other classes"), (member, AFTER, f"class {class_}")):
                axes.plot(*places[part].T, ".", markersize=4, markeredgewidth=0, color=colour, label=label)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(f"{network}, {'PCA' if how == 'pca' else 't-SNE'}", fontsize=8)
        _legend(figure)
        _heading(figure, "Test images by the last hidden layer, one seed")
    return figure


def _mark_chosen(axes: Axes, values: Values, setting: str) -> str:
    """A vertical line at the mean bias that each correction chose; the axis extends to it. What is further
    from the curve than the curve is wide would squash it, and is returned in words instead."""
    low, high = axes.dataLim.intervalx
    beyond = []
    for correction, line in _LINES.items():
        chosen = values.get((setting, "test", correction, "missing", "bias"))
        if chosen is None:
            continue
        if max(low - chosen.mean, chosen.mean - high) > high - low:
            beyond.append(f"{correction} {chosen.mean:.1f}")
        else:
            label = f"bias chosen, {correction}"
            axes.axvline(chosen.mean, color="#333333", linestyle=line, linewidth=1.1, label=label)
    return f"chosen beyond this axis: {', '.join(beyond)}" if beyond else ""


def confusion_matrix(
    rows: Iterable[results.ResultRow], config: dict[str, Any], setting: str, corrections: Sequence[str]
) -> Figure:
    """Of each true class (row), the share in % that is called each class (column): the mean over seeds, one
    panel a correction; the missing classes' names are marked by *. Of more than 20 classes only the missing
    ones are named, and no numbers stand in the cells."""
    count = config["data"]["num_classes"]
    missing = next(s["missing"] for s in config["settings"] if s["name"] == setting)
    names = [name + (" *" if i in missing else "") for i, name in enumerate(config["data"]["class_names"])]
    rows = list(rows)
    size = min(max(0.42 * count, 3.0), 7.0)
    named = range(count) if count <= MOST_CLASSES else missing[:MOST_CLASSES]
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=((size + 0.6) * len(corrections) + 1.4, size + 1.2), layout="constrained")
        for axes, correction in zip(_row(figure, len(corrections)), corrections, strict=True):
            shares = _shares(rows, count, setting, correction)
            image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
            axes.set(title="as trained" if correction == "none" else f"bias corrected, {correction}")
            axes.set(xlabel="called", ylabel="true class")
            turned: dict[str, Any] = {"rotation": 45, "ha": "right"} if max(map(len, names)) > 3 else {}
            axes.set_xticks(named, [names[i] for i in named], **turned)
            axes.set_yticks(named, [names[i] for i in named])
            if count <= MOST_CLASSES:
                _numbers(axes, shares)
        figure.colorbar(image, ax=figure.axes, shrink=0.8, label="share of the true class (%)")
        own = [s for s in config["settings"] if s["name"] == setting]
        marked = f"; * {absence(own)}" if missing else ""
        _heading(figure, f"Confusion, test split: {setting}, {_sample(config, 'mean')}{marked}")
    return figure


def _curves(
    history: Iterable[results.HistoryRow], config: dict[str, Any], split: str
) -> dict[tuple[str, str], np.ndarray]:
    """(setting, metric) -> f64[E,4]: epoch, mean, low, high in %, where defined."""
    values: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
    for row in history:
        shown = row.split == split and row.metric in _TITLES
        if shown and not math.isnan(row.value):
            by_epoch = values.setdefault((row.setting, row.metric), {})
            by_epoch.setdefault(row.epoch, {})[row.seed] = row.value
    teachers = teachers_of(config)
    return {
        key: np.array([_point(epoch, key[0], by_epoch[epoch], teachers) for epoch in sorted(by_epoch)])
        for key, by_epoch in values.items()
    }


def _point(
    at: float, setting: str, by_seed: dict[int, float], teachers: dict[Any, Any]
) -> tuple[float, float, float, float]:
    """(at, mean, low, high), the latter in %."""
    interval = interval_of(setting, by_seed, teachers)
    return at, 100 * interval.mean, 100 * interval.low, 100 * interval.high


def _by_bias(
    curve: Sequence[results.BiasRow], values: Values, config: dict[str, Any], setting: str
) -> list[tuple[str, np.ndarray]]:
    """(part, f64[points,4]: bias, mean, low, high in %) for the missing, the kept and all classes; a part's
    accuracy weighs each class by its number of test examples."""
    missing = set(next(s["missing"] for s in config["settings"] if s["name"] == setting))
    every = set(range(config["data"]["num_classes"]))
    totals = {k: getattr(values.get((setting, "test", "none", str(k), "total")), "mean", 0.0) for k in every}
    accuracies: dict[float, dict[int, dict[int, float]]] = {}
    for row in curve:
        if row.setting == setting and not math.isnan(row.accuracy):
            accuracies.setdefault(row.bias, {}).setdefault(row.seed, {})[row.class_] = row.accuracy

    def share(by_class: dict[int, float], part: set[int]) -> float:
        total = sum(totals[k] for k in part & by_class.keys())
        return sum(totals[k] * by_class[k] for k in part & by_class.keys()) / total if total else math.nan

    teachers = teachers_of(config)
    return [
        (
            part,
            np.array(
                [
                    _point(bias, setting, {seed: share(c, members) for seed, c in by_seed.items()}, teachers)
                    for bias, by_seed in sorted(accuracies.items())
                ]
            ),
        )
        for part, members in (("missing", missing), ("kept", every - missing), ("all", every))
    ]


def _shares(rows: Iterable[results.ResultRow], count: int, setting: str, correction: str) -> np.ndarray:
    """f64[K,K], %: the mean over seeds of the row-normalised counts; a row without examples is 0."""
    counts: dict[int, np.ndarray] = {}
    for row in rows:
        here = (row.setting, row.split, row.correction) == (setting, "test", correction)
        if here and row.class_.isdigit() and row.metric.startswith("predicted_as_"):
            called = int(row.metric.removeprefix("predicted_as_"))
            counts.setdefault(row.seed, np.zeros((count, count)))[int(row.class_), called] = row.value
    if not counts:
        return np.zeros((count, count))
    stacked = np.stack(list(counts.values()))
    return 100 * (stacked / np.maximum(stacked.sum(-1, keepdims=True), 1)).mean(0)


def _numbers(axes: Axes, shares: np.ndarray) -> None:
    for (true, called), share in np.ndenumerate(shares):
        if share >= 0.05:
            text = f"{share:.0f}" if share >= 9.95 else f"{share:.1f}"
            colour = "white" if share > 50 else "black"
            axes.text(called, true, text, ha="center", va="center", fontsize=7, color=colour)


def _percent(intervals: Iterable[Interval | None]) -> np.ndarray:
    """f64[n,3]: mean, low, high in %; nan where there is no interval."""
    return 100 * np.array([interval[:3] if interval else (math.nan,) * 3 for interval in intervals])


def _errors(rows: np.ndarray) -> np.ndarray | None:
    """f64[2,n]: the lengths of the error bars below and above, inside 0 to 100 %; 0 where undefined, None
    where they all are."""
    mean, low, high = rows.T
    if np.all(np.isnan(high)):
        return None
    return np.nan_to_num(np.stack([mean - np.maximum(low, 0), np.minimum(high, 100) - mean]))


def _band(axes: Axes, points: np.ndarray, colour: str, label: str, shaded: bool = True) -> None:
    """points f64[n,4]: x, mean, low, high; the interval is drawn where it is to be `shaded`."""
    x, mean, low, high = points.T
    if len(x) == 1:  # a line of one point draws nothing
        axes.errorbar(x, mean, _errors(points[:, 1:]), fmt="o", color=colour, capsize=2, label=label)
        axes.set_xticks(x)
        return
    axes.plot(x, mean, color=colour, label=label)
    if shaded:
        axes.fill_between(x, np.maximum(low, 0), np.minimum(high, 100), color=colour, alpha=0.2, linewidth=0)


def _sample(config: dict[str, Any], of: str = "mean and 95 % interval") -> str:
    """What the figure shows, of how many seeds."""
    seeds = {run["seed"] for run in config["runs"]}
    return "one seed" if len(seeds) == 1 else f"{of}, n = {units_of(config)}"


def _not_shown(count: int) -> str:
    return f"; {count} setting{' is' if count == 1 else 's are'} not shown" if count > 0 else ""


def _row(figure: Figure, count: int) -> Sequence[Axes]:
    return figure.subplots(1, count, squeeze=False)[0] if count else []


def _legend(figure: Figure) -> None:
    """One legend for all panels, each label once, below them."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        inches = 0.075 * max(map(len, entries)) + 0.55  # of the widest entry
        most = max(1, int(figure.get_figwidth() / inches))
        columns = math.ceil(len(entries) / math.ceil(len(entries) / most))
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def _heading(figure: Figure, text: str) -> None:
    wrapped = textwrap.fill(text, int(11 * figure.get_figwidth()))
    figure.suptitle(wrapped, x=0.01, ha="left", fontsize=10, fontweight="bold")
