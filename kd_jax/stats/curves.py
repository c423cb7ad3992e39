"""What the figures of a report show, as arrays: accuracy by epoch and by bias, and confusion (host side)."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from kd_jax.stats.description import RunDescription
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import BiasRow, Confusion, HistoryRow
from kd_jax.stats.summary import Summary, interval_of

TITLES = {
    "accuracy": "all classes",
    "accuracy_omitted": "classes omitted from the training data",
    "accuracy_omitted_corrected": "the omitted ones, bias corrected",
    "accuracy_omitted_probe": "the omitted ones, by a linear probe",
}
"""The metrics of history.csv that have curves, and what they are of."""


def by_epoch(
    history: Iterable[HistoryRow], description: RunDescription, split: str
) -> dict[tuple[str, str], np.ndarray]:
    """(setting, metric) -> f64[E,4]: epoch, mean, low, high in %, where defined."""
    values: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
    for row in history:
        shown = row.split == split and row.metric in TITLES
        if shown and not math.isnan(row.value):
            of_epoch = values.setdefault((row.setting, row.metric), {})
            of_epoch.setdefault(row.epoch, {})[row.seed] = row.value
    teachers = description.teachers_of_runs()
    return {
        key: in_percent({e: interval_of(key[0], of_epoch[e], teachers) for e in sorted(of_epoch)})
        for key, of_epoch in values.items()
    }


def most_worth(curves: Mapping[tuple[str, str], np.ndarray], settings: Sequence[str], most: int) -> list[str]:
    """At most so many of the settings, in their order: those with omitted classes first, then those with the
    best last mean.  curves: of `by_epoch`."""

    def rank(name: str) -> tuple[bool, float]:
        return (name, "accuracy_omitted") not in curves, -curves[name, "accuracy"][-1, 1]

    best = sorted(settings, key=rank)[:most]
    return [name for name in settings if name in best]


def by_bias(
    curve: Iterable[BiasRow],
    summary: Summary,
    description: RunDescription,
    setting: str,
    parts: Collection[str],
) -> dict[str, dict[float, Interval]]:
    """Of each part, a class of bias_curve.csv, the accuracy (a fraction) by bias (nats)."""
    by_part: dict[str, dict[float, dict[int, float]]] = {part: {} for part in parts}
    for row in curve:
        if row.setting == setting and row.class_ in by_part:
            by_part[row.class_].setdefault(row.bias, {})[row.seed] = row.accuracy
    teachers = description.teachers_of_runs()
    return {
        part: {
            bias: interval_of(setting, by_seed, teachers, _total(summary, setting, part))
            for bias, by_seed in sorted(by_bias.items())
        }
        for part, by_bias in by_part.items()
    }


def _total(summary: Summary, setting: str, part: str) -> float | None:
    """How many test examples the part has; None where it is not known."""
    interval = summary.get(setting, "support", part)
    return interval.mean if interval else None


def confusion(rows: Iterable[Confusion], num_classes: int, setting: str, correction: str) -> np.ndarray:
    """f64[K,K], %: of each true class (row), the share of its test examples that is called each class, the
    mean over seeds; a row without examples is 0."""
    total, number = np.zeros((num_classes, num_classes)), 0
    for row in rows:
        if (row.setting, row.correction) == (setting, correction):
            total += row.counts / np.maximum(row.counts.sum(-1, keepdims=True), 1)
            number += 1
    return 100 * total / max(number, 1)


def in_percent(intervals: Mapping[float, Interval]) -> np.ndarray:
    """f64[points,4]: place, mean, low, high, the latter three in %."""
    points = [(at, *(100 * value for value in interval[:3])) for at, interval in intervals.items()]
    return np.array(points).reshape(-1, 4)
