"""What the rows of results.csv come to: intervals, paired differences, and what is worth showing (host side).

The format of summary.json is documented in results.py, the intervals in stats.py.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from kd_jax.io.run_config import FORMAT
from kd_jax.io.run_folder import CORRECTIONS, DIVERGED, TEACHER, ResultRow
from kd_jax.stats import intervals

LABEL_FREE_FIRST = ("teacher_matched", "prior_matched", "validation_tuned")
"""Never test_tuned: what is tuned on the test labels is no result, so it heads nothing."""

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


def unit_of(config: dict[str, Any]) -> str:
    """What n counts, as " teachers", where these are fewer than the seeds; nothing where it is seeds."""
    seeds = {run["seed"] for run in config["runs"]}
    teachers = {run["teacher_seed"] for run in config["runs"]} - {None}
    return " teachers" if 1 < len(teachers) < len(seeds) else ""


def teachers_of(config: dict[str, Any]) -> dict[tuple[str, int], int | None]:
    """(setting, seed) -> the seed of the teacher that this run learnt from."""
    return {(run["setting"], run["seed"]): run["teacher_seed"] for run in config["runs"]}


def interval_of(
    setting: str, by_seed: dict[int, float], teachers: dict[tuple[str, int], int | None]
) -> intervals.Interval:
    """The interval over the seeds at which the value is defined, clustered by the teachers they share."""
    defined = {seed: value for seed, value in by_seed.items() if not math.isnan(value)}
    if setting == TEACHER:
        return intervals.mean_interval(list(defined.values()))
    return intervals.clustered_interval(
        list(defined.values()), [teachers.get((setting, seed)) for seed in defined]
    )


def group(rows: Iterable[ResultRow]) -> dict[Key, dict[int, float]]:
    """The values by seed of every measurement, in the order of the rows."""
    groups: dict[Key, dict[int, float]] = {}
    for setting, seed, *rest, value in rows:
        groups.setdefault((setting, *rest), {})[seed] = value  # type: ignore[arg-type]
    return groups


def summarise(rows: Iterable[ResultRow], config: dict[str, Any]) -> dict[str, Any]:
    """The content of summary.json.

    results: the interval of every measurement but predicted_as_*.
    paired: accuracy and errors on the test split, of all classes and of the missing ones (where both settings
    miss the same): every two settings under the same correction, and each correction against none within a
    setting. Of more than 16 settings, only those that differ in a single value are compared with each other.
    Pairs that share fewer than two seeds are left out.
    diverged: the runs that are in no mean.
    """
    rows = list(rows)
    groups = group(
        row for row in rows if not row.metric.startswith("predicted_as_") and row.metric != DIVERGED
    )
    teachers = teachers_of(config)
    # Teachers of several folders are no sample of anything: their mean has no interval.
    mixed = "members" in (config["teacher"] or {})
    results = []
    for key, by_seed in groups.items():
        interval = interval_of(key[0], by_seed, teachers)
        if mixed and key[0] == TEACHER and not key[-1].startswith("ensemble_"):
            interval = interval._replace(low=math.nan, high=math.nan)
        names = dict(zip(("setting", "split", "correction", "class", "metric"), key, strict=True))
        results.append(names | _defined(interval))
    paired = [
        entry
        for a, b in _pairs(config["settings"])
        for correction in CORRECTIONS
        for class_ in ("all", "missing")
        for metric in ("accuracy", "errors")
        for entry in _pair(a, b, correction, class_, metric, groups, teachers)
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
    """Of the setting's corrections the one that needs the fewest labels, and none of the test split; "none"
    where it has no such."""
    found = corrections_of(setting, values)
    return next((c for c in LABEL_FREE_FIRST if c in found), "none")


def label_free(setting: str, values: Values) -> list[str]:
    """The setting's corrections that need no label, those that need the least else first."""
    found = corrections_of(setting, values)
    return [c for c in LABEL_FREE_FIRST if c in found and c != "validation_tuned"]


def best_setting(settings: list[dict[str, Any]], values: Values) -> str:
    """The setting (with missing classes, if any has; that heard a teacher, if any did) that is best on the
    validation split, never on the test split."""

    def validation(setting: dict[str, Any]) -> float:
        interval = values.get((setting["name"], "validation", "none", "all", "accuracy"))
        return interval.mean if interval and not math.isnan(interval.mean) else -1.0

    candidates = [s for s in settings if s["missing"]] or settings
    taught = [s for s in candidates if s.get("alpha") != 0]
    return max(taught or candidates, key=validation)["name"]


def absence(settings: Sequence[dict[str, Any]]) -> str:
    """What being left out means for these settings, in words."""
    if any(setting.get("left") for setting in settings):
        return "left out of training, but for the examples that left counts"
    return "never seen in training"


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
    if (within and correction == "none") or (class_ == "missing" and a["missing"] != b["missing"]):
        return
    of_a = groups.get((a["name"], "test", correction, class_, metric), {})
    of_b = groups.get((b["name"], "test", "none" if within else correction, class_, metric), {})
    seeds = [seed for seed in of_a if not math.isnan(of_a[seed] - of_b.get(seed, math.nan))]
    if len(seeds) < 2:
        return
    shared = [(teachers.get((a["name"], seed)), teachers.get((b["name"], seed))) for seed in seeds]
    difference = intervals.paired_difference(
        [of_a[seed] for seed in seeds], [of_b[seed] for seed in seeds], shared
    )
    names = {"a": a["name"], "b": b["name"], "split": "test", "correction": correction}
    yield names | {"class": class_, "metric": metric} | _defined(difference)
