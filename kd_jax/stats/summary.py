"""The summary of results.csv: intervals, paired differences, and which of them a report shows (host side).

The format of summary.json is documented in io/run_folder.py, the intervals in intervals.py.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kd_jax.stats import corrections, intervals
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.description import RunDescription, SettingInfo, candidates
from kd_jax.stats.intervals import Difference, Interval
from kd_jax.stats.rows import DIVERGED, FORMAT, MEASURES_OF_SYNTHESISED, TEACHER, ResultRow

OF_TEACHER = ("agreement", "kl_to_teacher", "cka", *MEASURES_OF_SYNTHESISED)
"""Metrics and measures that compare a student with its teacher, or are of images that teachers made."""

SHARES = ("accuracy", "top5_accuracy", "agreement", "ensemble_accuracy")
COUNTS = ("errors", "ensemble_errors")
"""Metrics of which each value is a share of the examples of its class, or a number of these."""

_MOST_SETTINGS_FOR_ALL_PAIRS = 16


class Key(NamedTuple):
    """What was measured. class_: all, omitted, seen or an index."""

    setting: str
    split: str
    correction: str
    class_: str
    metric: str


class Pair(NamedTuple):
    """The difference a - b of two settings under a correction; of one setting (a = b), that of the correction
    to none."""

    a: str
    b: str
    split: str
    correction: str
    class_: str
    metric: str
    difference: Difference


class Diverged(NamedTuple):
    """A run that is in no mean, and the epoch in which it diverged."""

    setting: str
    seed: int
    epoch: int


@dataclass(frozen=True)
class Summary:
    """The content of summary.json.

    intervals: of every measurement; of shares of the test examples and of numbers of these it is that of
    `intervals.binomial_interval` where the seeds show no spread.
    paired: accuracy and errors on the test split, of all classes and of the omitted ones (where both settings
    omit the same): every two settings under the same correction, and each correction against none within a
    setting. Of more than 16 settings, only those that differ in a single value are compared with each other.
    Pairs that share fewer than two seeds are left out. The unit of a difference is the teacher as soon as one
    of both sides depends on it: the differences of a plain student to distilled ones of one teacher share
    that teacher. Between two plain settings it is the seed.
    """

    intervals: Mapping[Key, Interval]
    paired: tuple[Pair, ...] = ()
    diverged: tuple[Diverged, ...] = ()

    def get(
        self, setting: str, metric: str, class_: str = "all", correction: str = "none", split: str = "test"
    ) -> Interval | None:
        """None where it was not measured."""
        return self.intervals.get(Key(setting, split, correction, class_, metric))

    def accuracy(
        self, setting: str, class_: str = "all", correction: str = "none", split: str = "test"
    ) -> Interval | None:
        """A fraction; of a single class its recall."""
        return self.get(setting, "accuracy", class_, correction, split)

    def errors(self, setting: str, class_: str = "all", correction: str = "none") -> Interval | None:
        """The number of test examples that are misclassified."""
        return self.get(setting, "errors", class_, correction)

    def bias(self, setting: str, correction: str) -> Interval | None:
        """What the correction adds to the logits of the omitted classes, in nats."""
        return self.get(setting, "bias", "omitted", correction)

    def corrections_of(self, setting: str) -> list[str]:
        """The corrections under which the setting was tested, "none" included."""
        return [c for c in CORRECTIONS if self.accuracy(setting, correction=c) is not None]

    def preferred_correction(self, setting: str) -> str:
        """Of the setting's corrections the `corrections.preferred` one."""
        return corrections.preferred(self.corrections_of(setting))

    def label_free(self, setting: str) -> list[str]:
        """The setting's corrections that need no label, those that need the least else first."""
        return corrections.label_free(self.corrections_of(setting))

    def validation_accuracy(self, setting: SettingInfo) -> float:
        """Of the seen classes, as trained; nan where the setting was not judged on a validation split.

        Not of all classes: a choice by that uses labels of the omitted ones, and what it chooses would be no
        result without a label of theirs.
        """
        class_ = "seen" if setting.omitted else "all"
        interval = self.accuracy(setting.name, class_, split="validation")
        return interval.mean if interval else math.nan

    def best_setting(self, settings: Sequence[SettingInfo]) -> str:
        """Of the `candidates` the one with the best `validation_accuracy`, of equal ones the first."""

        def rank(setting: SettingInfo) -> float:
            accuracy = self.validation_accuracy(setting)
            return -1.0 if math.isnan(accuracy) else accuracy

        return max(candidates(settings), key=rank).name

    def only(self, keep: Callable[[Key], bool]) -> "Summary":
        """The summary without the intervals of other keys."""
        return replace(self, intervals={key: value for key, value in self.intervals.items() if keep(key)})

    def to_json(self) -> dict[str, Any]:
        """What is undefined is null."""
        return {
            "format": FORMAT,
            "results": [_named(key) | intervals.to_json(value) for key, value in self.intervals.items()],
            "paired": [_named(pair[:-1], Pair) | intervals.to_json(pair.difference) for pair in self.paired],
            "diverged": [run._asdict() for run in self.diverged],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Summary":
        """Errors: KeyError or TypeError for what `to_json` did not write."""
        by_key = {
            Key._make(_words(Key, entry)): intervals.from_json(Interval, entry)
            for entry in content["results"]
        }
        pairs = [
            Pair._make([*_words(Pair, entry), intervals.from_json(Difference, entry)])
            for entry in content.get("paired", [])
        ]
        return cls(by_key, tuple(pairs), tuple(Diverged(**entry) for entry in content.get("diverged", [])))


def _named(words: Sequence[str], kind: Any = Key) -> dict[str, Any]:
    names = [name.rstrip("_") for name in kind._fields]
    return dict(zip(names, words, strict=False))


def _words(kind: Any, entry: dict[str, Any]) -> list[str]:
    return [entry[name.rstrip("_")] for name in kind._fields if name != "difference"]


def depends_on_teacher(correction: str, metric: str) -> bool:
    """Whether a value depends on the teacher beyond what the student learnt from it."""
    return correction in corrections.of_teacher() or metric in OF_TEACHER


def interval_of(
    setting: str,
    by_seed: dict[int, float],
    teachers: dict[tuple[str, int], int | None],
    total: float | None = None,
    most: float = 1.0,
) -> Interval:
    """The interval over the seeds at which the value is defined, clustered by the teachers they share.

    teachers: of `RunDescription.teachers_of_runs`.  total, most: as in `intervals.mean_interval`.
    """
    defined = {seed: value for seed, value in by_seed.items() if not math.isnan(value)}
    if setting == TEACHER:
        return intervals.mean_interval(list(defined.values()), total=total, most=most)
    clusters = [teachers.get((setting, seed)) for seed in defined]
    return intervals.clustered_interval(list(defined.values()), clusters, total=total, most=most)


def group(rows: Iterable[ResultRow]) -> dict[Key, dict[int, float]]:
    """The values by seed of every measurement, in the order of the rows."""
    groups: dict[Key, dict[int, float]] = {}
    for setting, seed, *rest, value in rows:
        groups.setdefault(Key(setting, *rest), {})[seed] = value  # type: ignore[arg-type]
    return groups


def summarise(rows: Iterable[ResultRow], description: RunDescription) -> Summary:
    """The intervals and paired differences of all rows, as `Summary` has them."""
    rows = list(rows)
    groups = group(row for row in rows if row.metric != DIVERGED)
    teachers = {made_with: description.teachers_of_runs(made_with) for made_with in (False, True)}
    # Teachers of several folders are no sample of anything: they are one unit, whose mean has no interval.
    mixed = "members" in (description.teacher or {})
    by_key = {}
    for key, by_seed in groups.items():
        clusters = teachers[depends_on_teacher(key.correction, key.metric)]
        interval = interval_of(key.setting, by_seed, clusters, *_examples(key, groups))
        if mixed and key.setting == TEACHER and not key.metric.startswith("ensemble_"):
            interval = interval._replace(low=math.nan, high=math.nan, n=1)
        by_key[key] = interval
    paired = [
        pair
        for a, b in _pairs(description.settings)
        for correction in CORRECTIONS
        for class_ in ("all", "omitted")
        for metric in ("accuracy", "errors")
        for pair in _pair(
            a, b, correction, class_, metric, groups, teachers[depends_on_teacher(correction, metric)]
        )
    ]
    diverged = [Diverged(row.setting, row.seed, int(row.value)) for row in rows if row.metric == DIVERGED]
    return Summary(by_key, tuple(paired), tuple(diverged))


def _examples(key: Key, groups: dict[Key, dict[int, float]]) -> tuple[float | None, float]:
    """(total, most) of `mean_interval` for the values of this key; total None where it is unknown."""
    totals = groups.get(key._replace(correction="none", metric="support"))
    if key.metric not in (*SHARES, *COUNTS) or not totals:
        return None, 1.0
    total = next(iter(totals.values()))
    return total, total if key.metric in COUNTS else 1.0


def _pairs(settings: Sequence[SettingInfo]) -> Iterable[tuple[SettingInfo, SettingInfo]]:
    """Every setting with itself (its corrections against none), and the settings worth comparing.

    A value that one of two settings does not have (null) is no difference: a student without a teacher has no
    temperature, and is compared with the distilled ones of every temperature.
    """
    yield from ((setting, setting) for setting in settings)
    for a, b in itertools.combinations(settings, 2):
        both = [(a.get(name), b.get(name)) for name in {**a.values, **b.values}]
        differing = sum(x != y for x, y in both if x is not None and y is not None)
        if len(settings) <= _MOST_SETTINGS_FOR_ALL_PAIRS or differing <= 1:
            yield a, b


Side = tuple[str, dict[int, float], dict[tuple[str, int], int | None]]
"""(setting, its values by seed, `teachers_of_runs` of its run)"""


def paired(a: Side, b: Side) -> tuple[Difference, list[int]]:
    """The difference a - b over the seeds at which both are defined, and these seeds."""
    (name_a, of_a, teachers_a), (name_b, of_b, teachers_b) = a, b
    seeds = [seed for seed in of_a if not math.isnan(of_a[seed] - of_b.get(seed, math.nan))]
    shared = [(teachers_a.get((name_a, seed)), teachers_b.get((name_b, seed))) for seed in seeds]
    first, second = ([of_side[seed] for seed in seeds] for of_side in (of_a, of_b))
    return intervals.paired_difference(first, second, shared), seeds


def _pair(
    a: SettingInfo,
    b: SettingInfo,
    correction: str,
    class_: str,
    metric: str,
    groups: dict[Key, dict[int, float]],
    teachers: dict[tuple[str, int], int | None],
) -> Iterable[Pair]:
    """One pair, or none where it would say nothing."""
    within = a is b
    if (within and correction == "none") or (class_ == "omitted" and a.omitted != b.omitted):
        return
    of_a = groups.get(Key(a.name, "test", correction, class_, metric), {})
    of_b = groups.get(Key(b.name, "test", "none" if within else correction, class_, metric), {})
    difference, seeds = paired((a.name, of_a, teachers), (b.name, of_b, teachers))
    if len(seeds) >= 2:
        yield Pair(a.name, b.name, "test", correction, class_, metric, difference)
