"""Rewrite the README's tables from experiments/results/; --add=RUN first copies a run's outcome there.

With the copies goes fixed_bias.json, in the format of summary.json: the test accuracy of each class and their
mean where FIXED_BIAS is added to the missing classes' logits, whatever the run (correction FIXED). It is
what bias_curve.csv, too large to commit, says at that bias.
"""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments import common, performance
from kd_jax import results, summary
from kd_jax.types import InputError

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("add", [], "Run folder whose small files are copied to experiments/results/.")

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "experiments" / "results"
README = REPOSITORY / "README.md"
FIXED_BIAS = 3.5  # the paper's for the 3s, tuned on its test set, which others then took over as it is
FIXED_FILE = "fixed_bias.json"
FIXED = f"fixed {FIXED_BIAS:+}"
SMALL = ("config.json", "summary.json", "figures/bias_curve.png", "figures/class_bars.png")


class Ours(NamedTuple):
    """One figure of ours: which interval of which run. Errors are counts, accuracies are shown in %."""

    run: str
    setting: str
    correction: str = "none"
    class_: str = "all"
    metric: str = "errors"


class Row(NamedTuple):
    """label, then the cells as text or as an `Ours` that is looked up."""

    label: str
    cells: tuple[str | Ours, ...]


class Table(NamedTuple):
    """A table of the README: its columns after the label, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def main(argv: Sequence[str]) -> None:
    common.refuse_arguments(argv)
    common.refuse_flags()
    outcomes = {
        folder: outcome(folder) for folder in map(Path, FLAGS.add)
    }  # all are read before one is written
    for folder, files in outcomes.items():
        write(folder.resolve().name, files)
    results.write_file(README, fill(README.read_text()).encode())


def outcome(folder: Path) -> dict[str, bytes]:
    """The small files of a run folder; fixed_bias.json is derived where it has a curve.

    Errors: InputError when it is no run folder, or a file of it is malformed.
    """
    config = results.read_config(folder)
    files = {name: (folder / name).read_bytes() for name in SMALL if (folder / name).is_file()}
    try:
        summary.lookup(json.loads(files.get("summary.json", b'{"results": []}')))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'summary.json'} is damaged", "one that `report` wrote", error) from None
    if (folder / "bias_curve.csv").is_file():
        rows = [row for row in results.read_bias_curve(folder, config) if row.bias == FIXED_BIAS]
        if rows:
            files[FIXED_FILE] = results.to_json(at_fixed_bias(rows, config))
    return files


def write(name: str, files: dict[str, bytes]) -> None:
    """Makes RESULTS/name hold these files, and none of another run's."""
    for stale in {*SMALL, FIXED_FILE} - set(files):
        (RESULTS / name / stale).unlink(missing_ok=True)
    for file, content in files.items():
        results.write_file(RESULTS / name / file, content)


def at_fixed_bias(curve: Sequence[results.BiasRow], config: dict[str, Any]) -> dict[str, Any]:
    """The content of fixed_bias.json from the rows of a single bias; intervals as in summary.json."""
    by_run: dict[tuple[str, int], list[float]] = {}
    rows = []
    for row in curve:
        key = row.setting, row.seed, "test", FIXED
        rows.append(results.ResultRow(*key, str(row.class_), "accuracy", row.accuracy))
        if not math.isnan(row.accuracy):
            by_run.setdefault(key[:2], []).append(row.accuracy)
    for (setting, seed), accuracies in by_run.items():
        mean = math.fsum(accuracies) / len(accuracies)
        rows.append(results.ResultRow(setting, seed, "test", FIXED, "all", "macro_accuracy", mean))
    return summary.summarise(rows, config)


def fill(text: str) -> str:
    """The README with each block between `<!-- table NAME -->` and `<!-- end NAME -->` made anew."""
    benchmarks = performance.read(RESULTS / "benchmark")
    blocks = {name: partial(render, table) for name, table in TABLES.items()}
    blocks |= {name: partial(block, benchmarks) for name, block in performance.BLOCKS.items()}
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
    """mean ± half width (n), mean (1) where there is one alone, from the committed json files."""
    folder = RESULTS / ours.run
    name = FIXED_FILE if ours.correction == FIXED else "summary.json"
    values = summary.lookup(json.loads((folder / name).read_text()))
    interval = values.get((ours.setting, "test", ours.correction, ours.class_, ours.metric))
    if interval is None:
        raise InputError(f"{folder} has no such result", "a setting and correction of its config.json", ours)
    scale, digits = (1, 1) if ours.metric == "errors" else (100, 2)
    width = scale * (interval.high - interval.mean)
    half = "" if math.isnan(width) else f" ± {width:.{digits}f}"
    return f"{scale * interval.mean:.{digits}f}{half} ({interval.n})"


def _quickstart(label: str, setting: str, missing: bool = False) -> Row:
    cell = lambda correction, class_: Ours("quickstart", setting, correction, class_, "accuracy")  # noqa: E731
    corrected = (("teacher_matched", "3"), ("prior_matched", "3"), ("prior_matched", "all"))
    cells = [cell(*which) if missing else "" for which in corrected]
    return Row(label, (cell("none", "all"), cell("none", "3"), *cells))


def _hinton(label: str, paper: str, *cells: str | Ours, others: str = "") -> Row:
    return Row(label, (paper, others, *cells))


def _soft(
    run: str, masked: str, correction: str = "none", class_: str = "all", metric: str = "errors"
) -> Ours:
    return Ours(run, f"T=20{masked}", correction, class_, metric)


def _general(label: str, setting: str, theirs: str = "", threes: str = "", correction: str = "none") -> Row:
    ours = Ours(GENERAL, setting, correction, "all", "macro_accuracy")
    return Row(label, (theirs, threes, ours, Ours(GENERAL, setting, correction, "3", "accuracy")))


PLAIN, PAPER_WAY, QUERIED = "hinton_plain", "hinton_students", "hinton_queried"
GENERAL = "generalisation_students"

TABLES = {
    "quickstart": Table(
        (
            "all digits",
            "the 3s",
            "the 3s, `teacher_matched`",
            "the 3s, `prior_matched`",
            "all digits, `prior_matched`",
        ),
        (
            _quickstart("teacher", "teacher"),
            _quickstart("student, hard labels", "labels"),
            _quickstart("student, distilled", "T=20"),
            _quickstart("hard labels, never saw a 3", "labels omit=3", True),
            _quickstart("**distilled, never saw a 3**", "T=20 omit=3", True),
        ),
    ),
    "hinton": Table(
        ("paper", "others, derived", "ours, the paper's way", "ours, teacher queried on augmented images"),
        (
            _hinton("teacher", "67", Ours(PAPER_WAY, "teacher"), ""),
            _hinton("student, hard labels", "146", Ours(PLAIN, "labels"), ""),
            _hinton("student, distilled, T = 20", "74", _soft(PAPER_WAY, ""), _soft(QUERIED, "")),
            _hinton("no 3s", "206", _soft(PAPER_WAY, " omit=3"), _soft(QUERIED, " omit=3")),
            *(
                _hinton(
                    f"no 3s, bias `{correction}`",
                    paper,
                    _soft(PAPER_WAY, " omit=3", correction),
                    _soft(QUERIED, " omit=3", correction),
                )
                for correction, paper in (
                    ("test_tuned", "109"),
                    ("prior_matched", ""),
                    ("teacher_matched", ""),
                )
            ),
            _hinton(
                "no 3s, errors on the 1,010 threes",
                "133",
                *(_soft(run, " omit=3", class_="3") for run in (PAPER_WAY, QUERIED)),
                others="82 (91.88 % right)",
            ),
            *(
                _hinton(
                    f"no 3s, errors on threes, bias `{correction}`",
                    paper,
                    *(_soft(run, " omit=3", correction, "3") for run in (PAPER_WAY, QUERIED)),
                    others=others,
                )
                for correction, paper, others in (
                    ("test_tuned", "14", ""),
                    ("prior_matched", "", "22 (97.82 % right)"),
                    ("teacher_matched", "", ""),
                )
            ),
            *(
                _hinton(
                    f"only 7s and 8s{how}",
                    paper,
                    *(_soft(run, " keep=7+8", correction) for run in (PAPER_WAY, QUERIED)),
                )
                for how, correction, paper in (
                    ("", "none", "4730"),
                    (", bias `test_tuned`", "test_tuned", "1320"),
                    (", bias `prior_matched`", "prior_matched", ""),
                    (", bias `teacher_matched`", "teacher_matched", ""),
                )
            ),
        ),
    ),
    "generalisation": Table(
        ("theirs (one seed)", "theirs, the 3s", "ours", "ours, the 3s"),
        (
            _general("teacher", "teacher", "98.18", "97.3"),
            _general("plain", "labels", "97.72", "96.9"),
            _general("distilled", "T=4 alpha=0.9", "97.25", "96.2"),
            _general("plain, no 3s", "labels omit=3", "87.01", "0.0"),
            _general("plain, no 3s, bias `prior_matched`", "labels omit=3", correction="prior_matched"),
            _general("distilled, no 3s", "T=4 alpha=0.9 omit=3", "87.91", "2.9"),
            _general(
                f"distilled, no 3s, bias {FIXED_BIAS:+}, fixed",
                "T=4 alpha=0.9 omit=3",
                "91.02",
                "39.1",
                FIXED,
            ),
            *(
                _general(
                    f"distilled, no 3s, bias `{correction}`",
                    "T=4 alpha=0.9 omit=3",
                    correction=correction,
                )
                for correction in ("test_tuned", "prior_matched", "teacher_matched")
            ),
        ),
    ),
}


if __name__ == "__main__":
    common.run(main)
