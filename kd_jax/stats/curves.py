"""What the figures of a report show, as arrays: accuracy by epoch and by bias, and confusion (host side)."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kd_jax.io.run_folder import BiasRow, HistoryRow, ResultRow
from kd_jax.stats.intervals import Interval
from kd_jax.stats.summary import Values, interval_of, teachers_of

TITLES = {
    "accuracy": "all classes",
    "accuracy_missing": "classes missing from the training data",
    "accuracy_missing_corrected": "the missing ones, bias corrected",
    "accuracy_missing_probe": "the missing ones, by a linear probe",
}
"""The metrics of history.csv that have curves, and what they are of."""


def by_epoch(
    history: Iterable[HistoryRow], config: dict[str, Any], split: str
) -> dict[tuple[str, str], np.ndarray]:
    """(setting, metric) -> f64[E,4]: epoch, mean, low, high in %, where defined."""
    values: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
    for row in history:
        shown = row.split == split and row.metric in TITLES
        if shown and not math.isnan(row.value):
            of_epoch = values.setdefault((row.setting, row.metric), {})
            of_epoch.setdefault(row.epoch, {})[row.seed] = row.value
    teachers = teachers_of(config)
    return {
        key: in_percent({e: interval_of(key[0], of_epoch[e], teachers) for e in sorted(of_epoch)})
        for key, of_epoch in values.items()
    }


def most_worth(curves: Mapping[tuple[str, str], np.ndarray], settings: Sequence[str], most: int) -> list[str]:
    """At most so many of the settings, in their order: those with missing classes first, then those with the
    best last mean.  curves: of `by_epoch`."""

    def rank(name: str) -> tuple[bool, float]:
        return (name, "accuracy_missing") not in curves, -curves[name, "accuracy"][-1, 1]

    best = sorted(settings, key=rank)[:most]
    return [name for name in settings if name in best]


def by_bias(
    curve: Iterable[BiasRow],
    values: Values,
    config: dict[str, Any],
    setting: str,
    parts: Mapping[str, Collection[int]],
) -> dict[str, dict[float, Interval]]:
    """Of each part, by name, the accuracy (a fraction) by bias (nats).

    parts: sets of classes; a part's accuracy weighs each class by its number of test examples.
    """
    every = range(config["data"]["num_classes"])
    totals = {k: getattr(values.get((setting, "test", "none", str(k), "total")), "mean", 0.0) for k in every}
    right: dict[float, dict[int, dict[int, int]]] = {}
    for row in curve:
        if row.setting == setting and not math.isnan(row.accuracy):
            # The count that the fraction was made of: whole, so that sums are exact, as those of results.csv.
            of_class = right.setdefault(row.bias, {}).setdefault(row.seed, {})
            of_class[row.class_] = round(totals[row.class_] * row.accuracy)

    def share(of_class: dict[int, int], part: Collection[int]) -> float:
        known = [k for k in part if k in of_class]
        total = sum(totals[k] for k in known)
        return sum(of_class[k] for k in known) / total if total else math.nan

    teachers = teachers_of(config)
    return {
        name: {
            bias: interval_of(
                setting,
                {seed: share(c, part) for seed, c in by_seed.items()},
                teachers,
                sum(totals[k] for k in part),
            )
            for bias, by_seed in sorted(right.items())
        }
        for name, part in parts.items()
    }


def confusion(rows: Iterable[ResultRow], num_classes: int, setting: str, correction: str) -> np.ndarray:
    """f64[K,K], %: of each true class (row), the share of its test examples that is called each class, the
    mean over seeds; a row without examples is 0."""
    counts: dict[int, np.ndarray] = {}
    for row in rows:
        here = (row.setting, row.split, row.correction) == (setting, "test", correction)
        if here and row.class_.isdigit() and row.metric.startswith("predicted_as_"):
            called = int(row.metric.removeprefix("predicted_as_"))
            matrix = counts.setdefault(row.seed, np.zeros((num_classes, num_classes)))
            matrix[int(row.class_), called] = row.value
    if not counts:
        return np.zeros((num_classes, num_classes))
    stacked = np.stack(list(counts.values()))
    return 100 * (stacked / np.maximum(stacked.sum(-1, keepdims=True), 1)).mean(0)


def in_percent(intervals: Mapping[float, Interval]) -> np.ndarray:
    """f64[points,4]: place, mean, low, high, the latter three in %."""
    return np.array([(at, *(100 * value for value in interval[:3])) for at, interval in intervals.items()])
