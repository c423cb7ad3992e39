"""Whether a run agrees with the committed result of its recipe: published, ours, yours, and their difference.

Ours and yours are compared by Welch's interval of the difference of two means. Runs of the same code on the
same kind of CPU have the same figures; elsewhere they differ by rounding that training enlarges.
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.gallery import recipes
from experiments.gallery.recipes import Recipe
from experiments.reporting.markdown import Grid, difference_cells, plain, show, table
from experiments.reporting.text import grouped, wrapped
from kd_jax.errors import InputError
from kd_jax.io import run_config
from kd_jax.stats.intervals import Interval, mean_difference
from kd_jax.stats.rows import TEACHER
from kd_jax.stats.summary import Key, Summary

NOTE = (
    "Test accuracy in %, or errors: mean ± half of the 95 % interval (n). Agrees: whether the 95 % interval "
    "of the difference of both means holds 0 (Welch); one difference in twenty is outside by chance. Without "
    "intervals on both sides there is no test, and equal figures are called equal."
)
REDUCED = "Reduced by --quick: these figures are no reproduction, and are not compared."


class Row(NamedTuple):
    """One figure: what it is of, what others published, and both intervals, None where there is none."""

    key: Key
    published: str
    ours: Interval | None
    yours: Interval | None


class Comparison(NamedTuple):
    """The figures of a recipe."""

    recipe: Recipe
    rows: list[Row]


def is_complete(recipe: Recipe, folder: Path, changed: dict[str, Any], teachers: Sequence[Path] = ()) -> bool:
    """Whether the folder holds a finished run of just these flags, of teachers that were finished before it;
    where it is not sure, False: the entry point then says what it finds.

    changed: flags in place of the recipe's own.  teachers: their run folders.
    """
    result = folder / "results.csv"
    if not (result.is_file() and (folder / "summary.json").is_file()):
        return False
    ends = [path.stat().st_mtime_ns for one in teachers if (path := one / "results.csv").is_file()]
    if len(ends) < len(teachers) or any(end > result.stat().st_mtime_ns for end in ends):
        return False
    held = run_config.read(folder).flags
    wanted = recipe.flags | {name: str(value) for name, value in changed.items()}
    return all(name in held and _same(held[name], text) for name, text in wanted.items())


def _same(held: Any, text: str) -> bool:
    """Whether a flag's recorded value is what this text gives: 0.001 and 1e-3, True and nothing."""
    if isinstance(held, bool):
        return held is (text in ("", "true", "True"))
    try:
        return str(held) == text or (not isinstance(held, str) and float(held) == float(text))
    except (TypeError, ValueError):
        return False


def compare(recipe: Recipe, folder: Path, known: Iterable[Recipe], results: Path) -> Comparison:
    """The figures of a finished run beside those that are committed.  Errors: InputError."""
    yours = _summary(folder)
    where = recipes.where_result_is(recipe, list(known), results)
    ours = _summary(results / where) if where else Summary({})
    figures = recipe.published
    keys = dict.fromkeys([*figures, *_standard(folder, yours)])
    rows = [Row(key, figures.get(key, ""), ours.intervals.get(key), yours.intervals.get(key)) for key in keys]
    return Comparison(recipe, [row for row in rows if row.yours is not None])


def _summary(folder: Path) -> Summary:
    path = folder / "summary.json"
    try:
        return Summary.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read", "one that `report` wrote", error) from None


def _standard(folder: Path, summary: Summary) -> Iterable[Key]:
    """The accuracy of all classes of each setting, and of the omitted ones, as trained and corrected without
    a label."""
    settings = run_config.read(folder).settings
    if not settings:
        yield Key(TEACHER, "test", "none", "all", "accuracy")
    for setting in settings:
        yield Key(setting.name, "test", "none", "all", "accuracy")
        if setting.omitted:
            for correction in ("none", *summary.label_free(setting.name)[:1]):
                yield Key(setting.name, "test", correction, "omitted", "accuracy")


def verdict(row: Row) -> str:
    """Whether ours and yours agree."""
    if row.ours is None or row.yours is None:
        return "-"
    difference = mean_difference(row.yours, row.ours)
    if not math.isnan(difference.low):
        return "yes" if difference.low <= 0 <= difference.high else "NO"
    if abs(difference.difference) <= 1e-9 * max(1.0, abs(row.ours.mean)):
        return "equal"
    return "n = 1" if difference.n < 2 else "no spread"


def label(key: Key) -> str:
    """What a figure is of, in few words."""
    setting, _, correction, class_, metric = key
    parts = [setting, "" if class_ == "all" else f"class {class_}" if class_.isdigit() else class_]
    parts += ["" if correction == "none" else correction, "" if metric == "accuracy" else metric]
    return ", ".join(filter(None, parts))


def cell(interval: Interval | None, key: Key) -> str:
    """mean ± half (n)."""
    if interval is None:
        return "-"
    scale, digits = (1, 1) if key[-1].endswith("errors") else (100, 2)
    return f"{show(interval, scale, digits, ' ± ')} ({interval.n})"


def terminal(comparisons: Sequence[Comparison], quick: bool) -> str:
    """The figures in 80 columns, two lines each, with their explanation."""
    rows = [
        [f"{recipe.name}: {label(row.key)}", *_cells(row), "-" if quick else verdict(row)]
        for recipe, found in comparisons
        for row in found
    ]
    head = ["", "  published", "ours", "yours", "agrees"]
    return "\n".join([*grouped(Grid(head, rows)), "", *wrapped(REDUCED if quick else NOTE)])


def markdown(comparisons: Sequence[Comparison], quick: bool) -> str:
    """The same as a page, with the difference of both means, its interval and p."""
    lines = ["# Reproduced", "", REDUCED if quick else NOTE]
    for recipe, found in comparisons:
        rows = [
            [plain(label(row.key)), *_cells(row), *([] if quick else [*_difference(row), verdict(row)])]
            for row in found
        ]
        head = ["", "published", "ours", "yours"]
        head += [] if quick else ["yours - ours", "95 % interval", "p", "agrees"]
        source = [text for name, text in recipe.facts if name == "source"]
        about = " ".join([recipe.question, *(f"Published: {text}." for text in source)])
        lines += ["", f"## {recipe.name}", "", plain(about), "", *table(head, rows)]
    return "\n".join([*lines, ""])


def _cells(row: Row) -> list[str]:
    return [row.published or "-", *(cell(interval, row.key) for interval in (row.ours, row.yours))]


def _difference(row: Row) -> list[str]:
    """Difference, interval and p: in points, or in errors."""
    if row.ours is None or row.yours is None:
        return ["-"] * 3
    difference = mean_difference(row.yours, row.ours)
    if row.key[-1].endswith("errors"):  # in hundredths, for `difference_cells` shows fractions in %
        difference = difference._replace(
            **{n: getattr(difference, n) / 100 for n in ("difference", "low", "high")}
        )
    return difference_cells(difference)[:3]
