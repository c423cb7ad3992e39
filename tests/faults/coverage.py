"""Do the 95 % intervals of stats.py hold the true mean in 95 % of cases? By simulation, at the n of sweeps.

Of R intervals that hold the truth with probability 0.95 each, the share that does has the standard error
sqrt(0.95 * 0.05 / R); the promise is kept where it is within 3 of those, on either side.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from kd_jax.stats import intervals
from tests.faults.tried import Tried

SIZES = (3, 5, 10, 30)
REPEATS = 20_000
STUDENTS = 4  # of each teacher
MEAN = 0.7

Interval = Callable[[list[float]], tuple]


def share(samples: np.ndarray, interval: Interval) -> float:
    """Of the intervals of these samples f64[R,...], those that hold MEAN."""
    found = map(interval, samples.reshape(len(samples), -1).tolist())
    return float(np.mean([low <= MEAN <= high for _, low, high, *_ in found]))


def tolerance(repeats: int) -> float:
    return 3 * math.sqrt(0.95 * 0.05 / repeats)


def normal(random: np.random.Generator, repeats: int, n: int) -> np.ndarray:
    return random.normal(MEAN, 0.1, (repeats, n))


def skewed(random: np.random.Generator, repeats: int, n: int) -> np.ndarray:
    return random.exponential(MEAN, (repeats, n))


def of_teachers(random: np.random.Generator, repeats: int, n: int) -> np.ndarray:
    """n teachers with STUDENTS each: the luck of a teacher is as large as that of a student."""
    teachers = random.normal(MEAN, 0.1, (repeats, n, 1))
    return teachers + random.normal(0, 0.1, (repeats, n, STUDENTS))


def clustered(values: list[float]) -> tuple:
    """The clustered interval where each STUDENTS values have a teacher."""
    return intervals.clustered_interval(values, [index // STUDENTS for index in range(len(values))])


def paired(values: list[float]) -> tuple:
    """Of the difference of two settings, where one seed does far better than another in both."""
    luck = np.linspace(3, 7, len(values))
    about_truth = intervals.paired_difference(luck + values, luck + MEAN)
    assert (about_truth.p < 0.05) == (about_truth.low > 0 or about_truth.high < 0), values
    return intervals.paired_difference(luck + values, luck)


def shares(draw: Callable, interval: Interval, repeats: int = REPEATS) -> list[float]:
    """For each of SIZES."""
    return [share(draw(np.random.default_rng(n), repeats, n), interval) for n in SIZES]


def percent(values: Iterable[float]) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in values) + " %"


def kept(what: str, draw: Callable, interval: Interval) -> Tried:
    found = shares(draw, interval)
    off = [n for n, one in zip(SIZES, found, strict=True) if abs(one - 0.95) > tolerance(REPEATS)]
    outcome = f"95 % hold the true mean, within three standard errors of the simulation: {percent(found)}"
    return Tried(what, len(SIZES), len(SIZES) - len(off), outcome, tuple(f"n = {n}" for n in off))


def told(what: str, draw: Callable, interval: Interval) -> Tried:
    """What is not promised."""
    outcome = f"no promise; the true mean is held by {percent(shares(draw, interval))}"
    return Tried(what, len(SIZES), len(SIZES), outcome, least=0.0)


def campaign() -> list[Tried]:
    each = f"n = {', '.join(map(str, SIZES))}: {REPEATS:,} intervals each"
    return [
        kept(f"interval of the mean of n normal values, {each}", normal, intervals.mean_interval),
        kept(f"interval of the paired difference of n seeds, {each}", normal, paired),
        kept(f"interval of n teachers with {STUDENTS} students each, {each}", of_teachers, clustered),
        told(f"the same students taken as independent, {each}", of_teachers, intervals.mean_interval),
        told(f"interval of the mean of n exponential values, {each}", skewed, intervals.mean_interval),
    ]
