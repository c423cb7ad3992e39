"""Rewrite the README's tables and the gallery from experiments/results/; --add=RUN first copies a run there.

Of summary.json the test split is copied, without what is rarely asked of a single class. With the copies
goes fixed_bias.json, in the format of summary.json: the test accuracy of each class and their mean where
FIXED_BIAS is added to the missing classes' logits, whatever the run (correction FIXED). It is what
bias_curve.csv, too large to commit, says at that bias.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags

from experiments.cli import common
from experiments.gallery import page, performance, reliability
from experiments.gallery.rows import FIXED, FIXED_BIAS, Ours, Table
from experiments.gallery.studies import TABLES
from experiments.reporting.markdown import NO_SPREAD, half_width, rounded_width
from experiments.reporting.sections import hidden_signals
from kd_jax.io import run_config, run_files, run_folder
from kd_jax.stats import summary
from kd_jax.types import InputError

FLAGS = flags.FLAGS
EXAMPLE = "tables --add=runs/quickstart"
flags.DEFINE_multi_string("add", [], "Run folder whose small files are copied to experiments/results/.")

REPOSITORY = Path(__file__).resolve().parent.parent
PROBED = ("mnist_cnn_students", "cifar10_reduced_soft")  # whose last hidden layer the README shows
RESULTS = REPOSITORY / "experiments" / "results"
README = REPOSITORY / "README.md"
RECIPES, GALLERY = REPOSITORY / "experiments" / "recipes", RESULTS / "README.md"
FIXED_FILE = "fixed_bias.json"
SMALL = (
    "config.json", "summary.json", "representation.csv",
    "figures/axis.png", "figures/bias_curve.png", "figures/class_bars.png", "figures/features.png",
)  # fmt: skip


def main(argv: Sequence[str]) -> None:
    common.refuse_arguments(argv)
    outcomes = {
        folder: outcome(folder) for folder in map(Path, FLAGS.add)
    }  # all are read before one is written
    for folder, files in outcomes.items():
        write(folder.resolve().name, files)
    run_files.write(README, fill(README.read_text()).encode())
    run_files.write(GALLERY, page.page(RECIPES, RESULTS, render).encode())


def outcome(folder: Path) -> dict[str, bytes]:
    """The small files of a run folder; fixed_bias.json is derived where it has a curve.

    Errors: InputError when it is no run folder, or a file of it is malformed.
    """
    config = run_config.read(folder)
    held = {name: run_files.read(folder / name) for name in SMALL}
    files = {name: content for name, content in held.items() if content is not None}
    try:
        sums = json.loads(files.get("summary.json", b'{"results": []}'))
        summary.lookup(sums)
        shown = list(filter(worth, sums["results"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / 'summary.json'} is damaged", "one that `report` wrote", error) from None
    tested: list[run_folder.ResultRow] = []
    if (folder / "results.csv").is_file():  # for which its sha256 vouches
        tested = run_folder.read_results(folder, config)
        sums = summary.summarise(tested, config)
        shown = list(filter(worth, sums["results"]))
    if "summary.json" in files:
        files["summary.json"] = run_files.to_json(sums | {"results": shown})
    if (folder / "bias_curve.csv").is_file():
        rows = [row for row in run_folder.read_bias_curve(folder, config) if row.bias == FIXED_BIAS]
        if rows:
            files[FIXED_FILE] = run_files.to_json(at_fixed_bias(rows, config, tested))
    return files


def worth(entry: dict[str, Any]) -> bool:
    """Whether an entry of summary.json is committed: of the test split, and of a single class its
    accuracy and errors alone."""
    of_class = entry["class"].isdigit() and entry["metric"] not in ("accuracy", "errors")
    return entry["split"] == "test" and entry["metric"] != "total" and not of_class


def write(name: str, files: dict[str, bytes]) -> None:
    """Makes RESULTS/name hold these files, and none of another run's."""
    for stale in {*SMALL, FIXED_FILE} - set(files):
        (RESULTS / name / stale).unlink(missing_ok=True)
    for file, content in files.items():
        run_files.write(RESULTS / name / file, content)


def at_fixed_bias(
    curve: Sequence[run_folder.BiasRow], config: dict[str, Any], tested: Sequence[run_folder.ResultRow]
) -> dict[str, Any]:
    """The content of fixed_bias.json from the rows of a single bias; intervals as in summary.json.

    tested: the rows of results.csv, which say how many examples each class has.
    """
    by_run: dict[tuple[str, int], list[float]] = {}
    rows = []
    for row in curve:
        key = row.setting, row.seed, "test", FIXED
        rows.append(run_folder.ResultRow(*key, str(row.class_), "accuracy", row.accuracy))
        if not math.isnan(row.accuracy):
            by_run.setdefault(key[:2], []).append(row.accuracy)
    for (setting, seed), accuracies in by_run.items():
        mean = math.fsum(accuracies) / len(accuracies)
        rows.append(run_folder.ResultRow(setting, seed, "test", FIXED, "all", "macro_accuracy", mean))
    totals = [row for row in tested if (row.split, row.correction, row.metric) == ("test", "none", "total")]
    sums = summary.summarise([*rows, *totals], config)
    return sums | {"results": [entry for entry in sums["results"] if entry["metric"] != "total"]}


def fill(text: str) -> str:
    """The README with each block between `<!-- table NAME -->` and `<!-- end NAME -->` made anew."""
    blocks: dict[str, Callable[[], str]] = {name: partial(render, table) for name, table in TABLES.items()}
    blocks |= performance.blocks_of(RESULTS / "benchmark")
    blocks["reliability"] = partial(reliability.table, RESULTS / "reliability")
    blocks |= {f"features_{run}": partial(hidden_signals.last_layer, RESULTS / run) for run in PROBED}
    if unknown := sorted(set(re.findall(r"<!-- table (\w+) -->", text)) - set(blocks)):
        expected = f"results in {RESULTS} for each block that README.md has"
        raise InputError("a table of README.md has no results", expected, f"none of {', '.join(unknown)}")
    for name, block in blocks.items():
        start, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise InputError("README.md lacks a table", f"{start} ... {end}", "no such block")
        text = f"{before}{start}\n{block()}\n{end}{after}"
    return text


def render(table: Table) -> str:
    """The table in Markdown."""
    lines = [f"| | {' | '.join(table.columns)} |", "---".join("|" * (len(table.columns) + 2))]
    for row in table.rows:
        cells = [cell if isinstance(cell, str) else show(cell) for cell in row.cells]
        lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def show(ours: Ours) -> str:
    """mean ± half width (n), mean (1) where there is one alone, from the committed json files; of an interval
    whose sides differ, the larger one."""
    folder = RESULTS / ours.run
    name = FIXED_FILE if ours.correction == FIXED else "summary.json"
    values = summary.lookup(json.loads((folder / name).read_text()))
    interval = values.get((ours.setting, "test", ours.correction, ours.class_, ours.metric))
    if interval is None:
        raise InputError(f"{folder} has no such result", "a setting and correction of its config.json", ours)
    scale, digits = (1, 1) if ours.metric == "errors" else (100, 2)
    width = scale * half_width(interval)
    half = f" ± {rounded_width(width, digits)}" if not math.isnan(width) else ""
    half = f", {NO_SPREAD}" if not half and interval.n > 1 else half
    return f"{scale * interval.mean:.{digits}f}{half} ({interval.n})"


if __name__ == "__main__":
    common.run(main, EXAMPLE)
