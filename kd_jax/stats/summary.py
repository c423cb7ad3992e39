"""What the rows of results.csv come to: intervals, paired differences, and what is worth showing (host side).

The format of summary.json is documented in io/run_folder.py, the intervals in intervals.py.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from kd_jax.stats import corrections, intervals
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.rows import DIVERGED, FORMAT, TEACHER, ResultRow

OF_TEACHER = ("agreement", "kl_to_teacher", "cka")
"""Metrics and measures that compare a student with its teacher."""

SHARES = ("accuracy", "top5_accuracy", "agreement", "ensemble_accuracy")
COUNTS = ("errors", "ensemble_errors")
"""Metrics of which each value is a share of the examples of its class, or a number of these."""

_MOST_SETTINGS_FOR_ALL_PAIRS = 16

Key = tuple[str, str, str, str, str]
"""(setting, split, correction, class, metric)"""

Values = dict[Key, intervals.Interval]
"""The intervals of a summary, as `lookup` gives them."""


def units_of(config: dict[str, Any]) -> str:
    """How many seeds and, where there are several, teachers, in words."""
    seeds = len({run["seed"] for run in config["runs"]})
    teachers = len({run["teacher_seed"] for run in config["runs"]} - {None})
    words = f"{seeds} seed{'s' if seeds != 1 else ''}"
    return f"{words} of {teachers} teachers" if teachers > 1 else words


def unit_of(config: dict[str, Any], setting: str) -> str:
    """What n counts of this setting, as " teachers", where these are fewer than the seeds; nothing where it
    is seeds."""
    own = {seed: teacher for (name, seed), teacher in teachers_of(config).items() if name == setting}
    teachers = set(own.values()) - {None}
    return " teachers" if 1 < len(teachers) < len(own) else ""


def learns_from_teacher(setting: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether students of this setting depend on the teacher that they were given.

    True if the distillation loss or a feature loss has a weight above 0, if the students start from the
    teacher's initial weights, or if its outputs replace the labels. False if the ablation leaves one class
    of its output.
    """
    if setting.get("student_init") == "teacher" or setting.get("feature_weight"):
        return True
    if setting.get("teacher_ablation") == "omitted_removed":
        return len(setting["omitted"]) < config["data"]["num_classes"] - 1
    return setting.get("alpha") != 0 or config["flags"].get("transfer", "own") != "own"


def teachers_of(config: dict[str, Any], of_teacher: bool = False) -> dict[tuple[str, int], int | None]:
    """(setting, seed) -> the seed of the teacher on which this run depends; None: on none.

    of_teacher: of values that are made with the teacher (`depends_on_teacher`), so that a run depends on the
    one it was given even if it learnt nothing from it.
    """
    taught = {s["name"] for s in config["settings"] if of_teacher or learns_from_teacher(s, config)}
    return {
        (run["setting"], run["seed"]): run["teacher_seed"] if run["setting"] in taught else None
        for run in config["runs"]
    }


def teachers_of_seeds(config: dict[str, Any]) -> list[int | None]:
    """Of each seed, in the order of the runs, the teacher on which any of its runs depends: the clusters of
    means over all settings."""
    found: dict[int, int | None] = {}
    for (_, seed), teacher in teachers_of(config).items():
        if found.get(seed) is None:
            found[seed] = teacher
    return list(found.values())


def depends_on_teacher(correction: str, metric: str) -> bool:
    """Whether a value depends on the teacher beyond what the student learnt from it."""
    return correction in corrections.of_teacher() or metric in OF_TEACHER


def interval_of(
    setting: str,
    by_seed: dict[int, float],
    teachers: dict[tuple[str, int], int | None],
    total: float | None = None,
    most: float = 1.0,
) -> intervals.Interval:
    """The interval over the seeds at which the value is defined, clustered by the teachers they share.

    total, most: as in `intervals.mean_interval`.
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
        groups.setdefault((setting, *rest), {})[seed] = value  # type: ignore[arg-type]
    return groups


def summarise(rows: Iterable[ResultRow], config: dict[str, Any]) -> dict[str, Any]:
    """The content of summary.json.

    results: the interval of every measurement; of shares of the test examples and of
    numbers of these it is that of `stats.binomial_interval` where the seeds show no spread.
    paired: accuracy and errors on the test split, of all classes and of the omitted ones (where both settings
    miss the same): every two settings under the same correction, and each correction against none within a
    setting. Of more than 16 settings, only those that differ in a single value are compared with each other.
    Pairs that share fewer than two seeds are left out. The unit of a difference is the teacher as soon as one
    of both sides depends on it: the differences of a plain student to distilled ones of one teacher share
    that teacher. Between two plain settings it is the seed.
    diverged: the runs that are in no mean.
    """
    rows = list(rows)
    groups = group(row for row in rows if row.metric != DIVERGED)
    teachers = {made_with: teachers_of(config, made_with) for made_with in (False, True)}
    # Teachers of several folders are no sample of anything: they are one unit, whose mean has no interval.
    mixed = "members" in (config["teacher"] or {})
    results = []
    for key, by_seed in groups.items():
        _, _, correction, _, metric = key
        clusters = teachers[depends_on_teacher(correction, metric)]
        interval = interval_of(key[0], by_seed, clusters, *_examples(key, groups))
        if mixed and key[0] == TEACHER and not metric.startswith("ensemble_"):
            interval = interval._replace(low=math.nan, high=math.nan, n=1)
        names = dict(zip(("setting", "split", "correction", "class", "metric"), key, strict=True))
        results.append(names | _defined(interval))
    paired = [
        entry
        for a, b in _pairs(config["settings"])
        for correction in CORRECTIONS
        for class_ in ("all", "omitted")
        for metric in ("accuracy", "errors")
        for entry in _pair(
            a, b, correction, class_, metric, groups, teachers[depends_on_teacher(correction, metric)]
        )
    ]
    diverged = [
        {"setting": row.setting, "seed": row.seed, "epoch": int(row.value)}
        for row in rows
        if row.metric == DIVERGED
    ]
    return {"format": FORMAT, "results": results, "paired": paired, "diverged": diverged}


def lookup(summary: dict[str, Any]) -> Values:
    """The intervals of a summary by (setting, split, correction, class, metric)."""

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return {
        (e["setting"], e["split"], e["correction"], e["class"], e["metric"]): intervals.Interval(
            number(e["mean"]), number(e["low"]), number(e["high"]), e["n"]
        )
        for e in summary["results"]
    }


def corrections_of(setting: str, values: Values) -> list[str]:
    """The corrections under which the setting was tested, "none" included."""
    return [c for c in CORRECTIONS if (setting, "test", c, "all", "accuracy") in values]


def preferred_correction(setting: str, values: Values) -> str:
    """Of the setting's corrections the `corrections.preferred` one."""
    return corrections.preferred(corrections_of(setting, values))


def label_free(setting: str, values: Values) -> list[str]:
    """The setting's corrections that need no label, those that need the least else first."""
    return corrections.label_free(corrections_of(setting, values))


def candidates(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings among which the one that a report speaks of is chosen, without a look at a result.

    Conditions: omitted classes; a teacher in the loss; no teacher ablation; random initial weights; no shots
    of an omitted class; and the same omitted classes as the first setting that omits the fewest, so that all
    are judged on the same classes. A condition that no setting meets is dropped.
    """
    conditions = (
        lambda s: s["omitted"],
        lambda s: s.get("alpha") != 0,
        lambda s: not s.get("teacher_ablation"),
        lambda s: not s.get("student_init"),
        lambda s: not s.get("shots"),
    )
    for condition in conditions:
        settings = list(filter(condition, settings)) or settings
    first = min(settings, key=lambda s: len(s["omitted"]))
    return [s for s in settings if s["omitted"] == first["omitted"]]


def validation_accuracy(setting: dict[str, Any], values: Values) -> float:
    """Of the classes that were seen, as trained; nan where the setting was not judged on a validation split.

    Not of all classes: a choice by that uses labels of the omitted ones, and what it chooses would be no
    result without a label of theirs.
    """
    class_ = "seen" if setting["omitted"] else "all"
    interval = values.get((setting["name"], "validation", "none", class_, "accuracy"))
    return interval.mean if interval else math.nan


def best_setting(settings: list[dict[str, Any]], values: Values) -> str:
    """Of the `candidates` the one with the best `validation_accuracy`, of equal ones the first."""

    def rank(setting: dict[str, Any]) -> float:
        accuracy = validation_accuracy(setting, values)
        return -1.0 if math.isnan(accuracy) else accuracy

    return max(candidates(settings), key=rank)["name"]


def describe_omitted(settings: Sequence[dict[str, Any]]) -> str:
    """What omission means for these settings, in words."""
    if any(setting.get("shots") for setting in settings):
        return "omitted from training, except for the shots"
    return "never seen in training"


def _examples(key: Key, groups: dict[Key, dict[int, float]]) -> tuple[float | None, float]:
    """(total, most) of `mean_interval` for the values of this key; total None where it is unknown."""
    setting, split, _, class_, metric = key
    totals = groups.get((setting, split, "none", class_, "support"))
    if metric not in (*SHARES, *COUNTS) or not totals:
        return None, 1.0
    total = next(iter(totals.values()))
    return total, total if metric in COUNTS else 1.0


def _defined(numbers: Any) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in numbers._asdict().items()}


def _pairs(settings: list[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """Every setting with itself (its corrections against none), and the settings worth comparing.

    A value that one of two settings does not have (null) is no difference: a student without a teacher has no
    temperature, and is compared with the distilled ones of every temperature.
    """
    yield from ((setting, setting) for setting in settings)
    for a, b in itertools.combinations(settings, 2):
        both = [(a.get(name), b.get(name)) for name in a | b if name != "name"]
        differing = sum(x != y for x, y in both if x is not None and y is not None)
        if len(settings) <= _MOST_SETTINGS_FOR_ALL_PAIRS or differing <= 1:
            yield a, b


Side = tuple[str, dict[int, float], dict[tuple[str, int], int | None]]
"""(setting, its values by seed, `teachers_of` its run)"""


def paired(a: Side, b: Side) -> tuple[intervals.Difference, list[int]]:
    """The difference a - b over the seeds at which both are defined, and these seeds."""
    (name_a, of_a, teachers_a), (name_b, of_b, teachers_b) = a, b
    seeds = [seed for seed in of_a if not math.isnan(of_a[seed] - of_b.get(seed, math.nan))]
    shared = [(teachers_a.get((name_a, seed)), teachers_b.get((name_b, seed))) for seed in seeds]
    first, second = ([of_side[seed] for seed in seeds] for of_side in (of_a, of_b))
    return intervals.paired_difference(first, second, shared), seeds


def _pair(
    a: dict[str, Any],
    b: dict[str, Any],
    correction: str,
    class_: str,
    metric: str,
    groups: dict[Key, dict[int, float]],
    teachers: dict[tuple[str, int], int | None],
) -> Iterable[dict[str, Any]]:
    """One entry, or none where it would say nothing."""
    within = a is b
    if (within and correction == "none") or (class_ == "omitted" and a["omitted"] != b["omitted"]):
        return
    of_a = groups.get((a["name"], "test", correction, class_, metric), {})
    of_b = groups.get((b["name"], "test", "none" if within else correction, class_, metric), {})
    difference, seeds = paired((a["name"], of_a, teachers), (b["name"], of_b, teachers))
    if len(seeds) < 2:
        return
    names = {"a": a["name"], "b": b["name"], "split": "test", "correction": correction}
    yield names | {"class": class_, "metric": metric} | _defined(difference)
