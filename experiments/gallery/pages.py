"""The pages of results: README.md and experiments/results/*.md are written by hand around generated blocks.

A block stands between `<!-- table NAME -->` and `<!-- end NAME -->`. `blocks` names all there are; `fill`
writes their present content. `./launch.sh tables` does so for every page.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path

from experiments.gallery import methods, performance, recipes, reliability
from experiments.gallery.rows import FIXED, Ours, Table
from experiments.gallery.studies import TABLES
from experiments.reporting.markdown import NO_SPREAD, bound, half_width, rounded_width, table
from experiments.reporting.sections import hidden_signals
from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.stats.summary import Summary

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
RECIPES, RESULTS = REPOSITORY / "experiments" / "recipes", REPOSITORY / "experiments" / "results"
PROBED = ("mnist_cnn_students", "missing_images_cnn")  # runs whose representation.csv is shown
FIXED_FILE = "fixed_bias.json"


def paths() -> list[Path]:
    """The pages that hold blocks."""
    return [README, *sorted(RESULTS.glob("*.md"))]


def blocks(recipe_folder: Path, results: Path) -> dict[str, Callable[[], str]]:
    """Every block by its name; what it returns is Markdown."""
    by_name: dict[str, Callable[[], str]] = {name: partial(render, t, results) for name, t in TABLES.items()}
    by_name |= performance.blocks_of(results / "benchmark")
    by_name |= methods.blocks(results)
    by_name["reliability"] = partial(reliability.table, results / "reliability")
    by_name |= {f"features_{run}": partial(hidden_signals.last_layer, results / run) for run in PROBED}
    return by_name | recipes.blocks(recipe_folder, results)


def fill(text: str, known: Mapping[str, Callable[[], str]], page: str) -> str:
    """The text of a page with the content of its blocks written anew.

    known: of `blocks`.  page: its name, for errors.
    Errors: InputError for a block that is not known or does not end.
    """
    names = re.findall(r"<!-- table (\w+) -->", text)
    if unknown := sorted({*names} - {*known}):
        raise InputError(
            f"a block of {page} has no results", "a name of a table with results", ", ".join(unknown)
        )
    for name in names:
        start, end = f"<!-- table {name} -->\n", f"<!-- end {name} -->"
        before, _, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not closed or names.count(name) > 1:
            raise InputError(
                f"block {name} of {page} is malformed", f"it once, ended by {end}", "another form"
            )
        text = f"{before}{start}{known[name]()}\n{end}{after}"
    return text


def render(shown: Table, results: Path) -> str:
    """The table in Markdown."""
    rows = [
        [row.label, *(cell if isinstance(cell, str) else show(cell, results) for cell in row.cells)]
        for row in shown.rows
    ]
    return "\n".join(table(["", *shown.columns], rows))


@lru_cache(maxsize=16)  # a table asks one file for each of its cells
def _parsed(content: bytes) -> Summary:
    return Summary.from_json(json.loads(content))


def show(ours: Ours, results: Path) -> str:
    """mean ± half width (n), or mean (1) where there is one value, from the committed json files; of an
    interval whose sides differ, the larger one, or its `bound`."""
    folder = results / ours.run
    name = FIXED_FILE if ours.correction == FIXED else "summary.json"
    if (content := run_files.read(folder / name)) is None:
        expected = f"{name} there, as tables --add=runs/{ours.run} copies it"
        raise InputError("a table needs a result that is not committed", expected, folder)
    summary = _parsed(content)
    interval = summary.get(ours.setting, ours.metric, ours.class_, ours.correction)
    if interval is None:
        raise InputError(f"{folder} has no such result", "a setting and correction of its config.json", ours)
    scale, digits = (1, 1) if ours.metric == "errors" else (100, 2)
    width = scale * half_width(interval)
    half = f" ± {rounded_width(width, digits)}" if not math.isnan(width) else ""
    half = bound(interval, scale, digits) or half
    half = f", {NO_SPREAD}" if not half and interval.n > 1 else half
    return f"{scale * interval.mean:.{digits}f}{half} ({interval.n})"
