"""Means, intervals and paired differences over seeds (host side, plain Python floats).

Every interval is Student's t interval of a mean over independent units. Seeds are the units, except where
seeds share teachers and there is more than one of those: then the teachers are (`clustered_interval`).

Left out: bootstrap intervals (at the 3 to 30 units of a sweep they cover less than they promise), and any
correction of p for the number of comparisons (the report says how many were made).
"""

import functools
import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from scipy.special import stdtr, stdtrit

_ROUNDING = 4 * 2.0**-52  # a spread below this fraction of the values is rounding, not variation


class Interval(NamedTuple):
    """A mean and the ends of its interval, in the unit of the values; n: the number of independent units."""

    mean: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """The mean of a - b, the ends of its interval, the two-sided p of the paired t test; n as in Interval."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent values and its t interval.

    One value has a mean and no interval (low and high are nan); no value, or one that is not finite, gives
    nan throughout. Values without any spread give an interval of width zero.
    """
    values = [float(value) for value in values]
    mean, half, _ = _student(values, confidence, _noise(values))
    return Interval(mean, mean - half, mean + half, len(values))


def clustered_interval(
    values: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Interval:
    """The interval when value i was made with the teacher `clusters[i]`.

    Students of one teacher share its luck: they are correlated, and counting each as independent makes the
    interval too narrow by a factor of up to sqrt(students a teacher). The teachers are independent, so the
    interval is that of the teachers' means, and n counts teachers. With a single cluster nothing can be
    said about the luck of the teacher: it is the plain interval, for this one teacher; so it is too where
    all clusters are distinct.

    Errors: ValueError when `values` and `clusters` differ in length.
    """
    return mean_interval(_unit_means(values, clusters), confidence)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Difference:
    """The mean of a[i] - b[i] over the same seeds, its t interval and the p of the paired t test.

    clusters: as in `clustered_interval`, the teacher of each pair. Differences without any spread give an
    interval of width zero, and p = 1.0 where the difference is 0, else 0.0. One pair has no interval, no p.

    Errors: ValueError when the lengths differ.
    """
    differences = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    units = differences if clusters is None else _unit_means(differences, clusters)
    mean, half, p = _student(units, confidence, _noise([*a, *b]))
    return Difference(mean, mean - half, mean + half, p, len(units))


def _student(units: Sequence[float], confidence: float, noise: float) -> tuple[float, float, float]:
    """(mean, half width of its interval, two-sided p of a true mean of 0); nan where undefined."""
    n = len(units)
    if n == 0 or not all(map(math.isfinite, units)):
        return math.nan, math.nan, math.nan
    low, high = min(units), max(units)
    mean = min(max(math.fsum(units) / n, low), high)  # rounding must not carry the mean out of its values
    if n == 1:
        return mean, math.nan, math.nan
    if high - low <= noise:
        return (0.0, 0.0, 1.0) if abs(mean) <= noise else (mean, 0.0, 0.0)
    error = math.dist(units, [mean] * n) / math.sqrt(n * (n - 1))
    return mean, _quantile(n - 1, confidence) * error, 2.0 * float(stdtr(n - 1, -abs(mean) / error))


@functools.cache
def _quantile(degrees: int, confidence: float) -> float:
    """Student's t quantile that leaves (1 - confidence) / 2 above it."""
    return float(stdtrit(degrees, 0.5 + confidence / 2))


def _noise(values: Sequence[float]) -> float:
    return _ROUNDING * max((abs(float(value)) for value in values), default=0.0)


def _unit_means(values: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(float(value))
    if len(groups) == 1:
        return [float(value) for value in values]
    return [math.fsum(group) / len(group) for group in groups.values()]
