"""How quickly runs learn: when an accuracy is first reached, and the area under the curve (host side).

Of the accuracy of all classes in history.csv, on the validation split where there is one, else on the
training batches; the test split is not measured on the way. Epochs are whole ones, the unit in which accuracy
is measured: a time between two of them would be a guess. Left out: accuracy against the time of a clock,
which is the machine's as well as the method's.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from kd_jax.stats.description import RunDescription
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import HistoryRow
from kd_jax.stats.summary import interval_of

_ROUNDING = 1e-9  # of a target that was given in %; shares of fewer than 10^9 examples are further apart
_SHARE = 0.9

Curves = dict[str, dict[int, dict[int, float]]]
"""Setting -> seed -> epoch (from 1) -> accuracy, a fraction."""


class Speed(NamedTuple):
    """How quickly a setting's runs learn.

    reached: how many of the seeds, `seeds` in all, ever reach the target accuracy. epochs: until they first
    do, over those that do. area: under the accuracy curve, divided by its number of epochs, which is the mean
    accuracy over the epochs, a fraction. final: the accuracy after the last epoch.
    """

    reached: int
    seeds: int
    epochs: Interval
    area: Interval
    final: Interval


def judged_split(history: Iterable[HistoryRow]) -> str:
    """The split on which learning is judged: validation where some row is of it, else train."""
    return "validation" if any(row.split == "validation" for row in history) else "train"


def accuracy_curves(history: Sequence[HistoryRow]) -> Curves:
    """Of every run, on the split on which learning is judged."""
    split = judged_split(history)
    curves: Curves = {}
    for row in history:
        if (row.split, row.metric) == (split, "accuracy"):
            curves.setdefault(row.setting, {}).setdefault(row.seed, {})[row.epoch] = row.value
    return curves


def first_epoch(curve: dict[int, float], target: float) -> float:
    """The first epoch whose accuracy is at least `target`; nan where there is none."""
    return min((epoch for epoch, value in curve.items() if value >= target - _ROUNDING), default=math.nan)


def default_target(curves: Curves, description: RunDescription) -> float:
    """90 % of the best setting's mean accuracy after the last epoch, rounded down to 0.1 %; nan where no
    setting has one."""
    teachers = description.teachers_of_runs()
    finals = [_interval(setting, by_seed, _final, teachers).mean for setting, by_seed in curves.items()]
    best = max((mean for mean in finals if not math.isnan(mean)), default=math.nan)
    return best if math.isnan(best) else math.floor(1000 * (_SHARE * best + _ROUNDING)) / 1000


def speeds(curves: Curves, description: RunDescription, target: float) -> dict[str, Speed]:
    """By setting, in the order of the curves.  target: a fraction."""
    teachers, speeds_of = description.teachers_of_runs(), {}
    for setting, by_seed in curves.items():
        epochs = {seed: first_epoch(curve, target) for seed, curve in by_seed.items()}
        reached = sum(not math.isnan(epoch) for epoch in epochs.values())
        speeds_of[setting] = Speed(
            reached,
            len(by_seed),
            interval_of(setting, epochs, teachers),
            _interval(setting, by_seed, _area, teachers),
            _interval(setting, by_seed, _final, teachers),
        )
    return speeds_of


def updates_per_epoch(description: RunDescription) -> int | None:
    """Of every run, whatever its mask keeps: see train.Config. None where config.json does not say, or where
    the settings of subliminal learning have data of different sizes."""
    batch_size = description.flags.get("batch_size")
    if not isinstance(batch_size, int) or batch_size < 1:
        return None
    if any("classes" in setting.values for setting in description.settings):
        return None
    examples = (description.transfer or {}).get("examples", description.data.train)
    return -(-examples // batch_size)


def _interval(setting: str, by_seed: dict[int, dict[int, float]], measure: Any, teachers: Any) -> Interval:
    return interval_of(setting, {seed: measure(curve) for seed, curve in by_seed.items()}, teachers)


def _area(curve: dict[int, float]) -> float:
    return math.fsum(curve.values()) / len(curve)


def _final(curve: dict[int, float]) -> float:
    return curve[max(curve)]
