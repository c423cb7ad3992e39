"""Means, intervals and paired differences over seeds (host side, plain Python floats).

Every interval is Student's t interval of a mean over independent units. Seeds are the units, except where
seeds share teachers and there is more than one of those: then the teachers are (`clustered_interval`).

Units that show no spread leave Student's t nothing to estimate it from: its interval would have no width, and
p would be 0, whatever the units are. Of shares of a known number of examples the interval is then that of
`binomial_interval`; of anything else, and of differences, there is no interval and no p.

Left out: bootstrap intervals (at the 3 to 30 units of a sweep they cover less than they promise). Of a
report's many p none is corrected (it says how many there are); a page that asks one question of several uses
`holm`.
"""

import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from scipy.special import betaincinv, stdtr, stdtrit

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


Kind = TypeVar("Kind", Interval, Difference)


def to_json(numbers: Interval | Difference) -> dict[str, Any]:
    """The fields; None where undefined, for JSON has no nan."""
    return {name: None if math.isnan(value) else value for name, value in numbers._asdict().items()}


def from_json(kind: type[Kind], entry: dict[str, Any]) -> Kind:
    """An Interval or a Difference of what `to_json` wrote; other keys are ignored. Errors: KeyError."""
    return kind._make(math.nan if entry[name] is None else entry[name] for name in kind._fields)


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, total: float | None = None, most: float = 1.0
) -> Interval:
    """The mean of independent values and its t interval.

    total: where each value is a share of examples, the number of these; most: the value that all of them
    give, 1 for a share, `total` for a count.
    One value has a mean and no interval (low and high are nan); no value, or one that is not finite, gives
    nan throughout. Values without any spread have the interval of `binomial_interval` over the examples of
    all of them where `total` is known, else none.
    """
    values = [float(value) for value in values]
    mean, half, _ = _student(values, confidence, _noise(values))
    low, high = mean - half, mean + half
    if total and len(values) > 1 and math.isnan(half) and not math.isnan(mean):
        low, high = (most * end for end in binomial_interval(mean / most, len(values) * total, confidence))
    return Interval(mean, low, high, len(values))


def binomial_interval(share: float, trials: float, confidence: float) -> tuple[float, float]:
    """The ends of the exact interval of a probability of which `share` of the `trials` came true.

    As an interval over seeds it is a floor: it takes the examples of a test set, and the seeds on one
    example, as independent, which is the most that so many answers can say. It has a width at 0 and 1 too.
    Source: Clopper & Pearson 1934, by quantiles of the Beta distribution, for which share * trials need not
    be whole.
    """
    right, tail = share * trials, (1 - confidence) / 2
    low = float(betaincinv(right, trials - right + 1, tail)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, trials - right, 1 - tail)) if right < trials else 1.0
    return low, high


def clustered_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
    total: float | None = None,
    most: float = 1.0,
) -> Interval:
    """The interval when value i was made with the teacher `clusters[i]`.

    Students of one teacher are correlated, and counting each as independent makes the interval too narrow by
    a factor of up to sqrt(students a teacher). The teachers are independent, so the interval is that of the
    teachers' means, and n counts teachers. With a single cluster nothing can be said about the variation
    between teachers: it is the plain interval, for this one teacher; so it is too where all clusters are
    distinct. Values that depend on no teacher are all of the cluster None.
    total, most: as in `mean_interval`, whose examples are then those of one student of each teacher.

    Errors: ValueError when `values` and `clusters` differ in length.
    """
    return mean_interval(_unit_means(values, clusters), confidence, total, most)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Difference:
    """The mean of a[i] - b[i] over the same seeds, its t interval and the p of the paired t test.

    clusters: as in `clustered_interval`, the teachers on which each pair depends. One pair has no interval
    and no p, nor have differences without any spread: low, high and p are nan.

    Errors: ValueError when the lengths differ.
    """
    differences = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    units = differences if clusters is None else _unit_means(differences, clusters)
    mean, half, p = _student(units, confidence, _noise([*a, *b]))
    return Difference(mean, mean - half, mean + half, p, len(units))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of each comparison, corrected for the number of comparisons; rejecting those at most 0.05 keeps
    the chance of any false one at most 0.05, whatever depends on what.

    p_values: in [0, 1], or nan where there is none: nan again, and not counted.
    Source: Holm 1979, in the form of adjusted values: the largest of (m - j + 1) p_(j) over j up to the rank.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def mean_difference(a: Interval, b: Interval, confidence: float = 0.95) -> Difference:
    """The difference a - b of two means over independent units, its interval and two-sided p, from their t
    intervals alone (both of this confidence); n: the smaller number of units.

    Source: Welch 1947, with the degrees of freedom of Satterthwaite 1946: the variances may differ. A mean
    without a t interval, as one of a single unit, or of units without spread, gives no interval and no p.
    """
    n, difference = min(a.n, b.n), a.mean - b.mean
    halves = [(one.high - one.low) / 2 for one in (a, b)]
    if n < 2 or not all(_is_student(one) for one in (a, b)):
        return Difference(difference, math.nan, math.nan, math.nan, n)
    squares = [
        (half / _quantile(one.n - 1, confidence)) ** 2 for half, one in zip(halves, (a, b), strict=True)
    ]
    error = math.sqrt(sum(squares))
    degrees = error**4 / sum(square**2 / (one.n - 1) for square, one in zip(squares, (a, b), strict=True))
    half = _quantile(degrees, confidence) * error
    p = 2.0 * float(stdtr(degrees, -abs(difference) / error))
    return Difference(difference, difference - half, difference + half, p, n)


def _is_student(interval: Interval) -> bool:
    """Whether both ends are equally far from the mean, which an exact binomial interval's are not."""
    above, below = interval.high - interval.mean, interval.mean - interval.low
    return above > 0 and abs(above - below) <= 1e-6 * above


def _student(units: Sequence[float], confidence: float, noise: float) -> tuple[float, float, float]:
    """(mean, half width of its interval, two-sided p of a true mean of 0); nan where undefined, the
    latter two also where the units show no spread, as one alone does not."""
    n = len(units)
    if n == 0 or not all(map(math.isfinite, units)):
        return math.nan, math.nan, math.nan
    low, high = min(units), max(units)
    mean = min(max(math.fsum(units) / n, low), high)  # rounding must not carry the mean out of its values
    if high - low <= noise:
        return (0.0 if abs(mean) <= noise else mean), math.nan, math.nan
    error = math.dist(units, [mean] * n) / math.sqrt(n * (n - 1))
    return mean, _quantile(n - 1, confidence) * error, 2.0 * float(stdtr(n - 1, -abs(mean) / error))


@functools.cache
def _quantile(degrees: float, confidence: float) -> float:
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
