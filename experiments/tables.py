"""Rewrite the README's tables from experiments/results/; --add=RUN first copies a run's outcome there."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from experiments import common
from kd_jax import results, summary
from kd_jax.types import InputError

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("add", [], "Run folder whose small files are copied to experiments/results/.")

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "experiments" / "results"
README = REPOSITORY / "README.md"
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
    for folder in map(Path, FLAGS.add):
        results.read_config(folder)
        for name in SMALL:
            if (folder / name).is_file():
                target = RESULTS / folder.resolve().name / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, target)
    results.write_file(README, fill(README.read_text()).encode())


def fill(text: str) -> str:
    """The README with each block between `<!-- table NAME -->` and `<!-- end NAME -->` made anew."""
    for name, table in TABLES.items():
        start, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise InputError("README.md lacks a table", f"{start} ... {end}", "no such block")
        text = f"{before}{start}\n{render(table)}\n{end}{after}"
    return text


def render(table: Table) -> str:
    """The table in Markdown."""
    lines = [" | ".join(["", *table.columns, ""]).strip(), "---".join("|" * (len(table.columns) + 1))]
    for row in table.rows:
        cells = [cell if isinstance(cell, str) else show(cell) for cell in row.cells]
        lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def show(ours: Ours) -> str:
    """mean ± half width (n), from the committed summary.json."""
    folder = RESULTS / ours.run
    values = summary.lookup(json.loads((folder / "summary.json").read_text()))
    interval = values.get((ours.setting, "test", ours.correction, ours.class_, ours.metric))
    if interval is None:
        raise InputError(f"{folder} has no such result", "a setting and correction of its config.json", ours)
    scale, digits = (1, 1) if ours.metric == "errors" else (100, 2)
    width = scale * (interval.high - interval.mean)
    return f"{scale * interval.mean:.{digits}f} ± {width:.{digits}f} ({interval.n})"


def _quickstart(label: str, setting: str, missing: bool = False) -> Row:
    cell = lambda correction, class_: Ours("quickstart", setting, correction, class_, "accuracy")  # noqa: E731
    corrected = [cell(name, "3") if missing else "" for name in ("teacher_matched", "prior_matched")]
    return Row(label, (cell("none", "all"), cell("none", "3"), *corrected))


def _hinton(label: str, paper: str, *cells: str | Ours) -> Row:
    return Row(label, (paper, *cells))


def _soft(
    run: str, masked: str, correction: str = "none", class_: str = "all", metric: str = "errors"
) -> Ours:
    return Ours(run, f"T=20{masked}", correction, class_, metric)


def _general(label: str, theirs: str, run: str, setting: str, correction: str = "none") -> Row:
    ours = Ours(run, setting, correction, "all", "macro_accuracy")
    return Row(label, (theirs, ours, Ours(run, setting, correction, "3", "accuracy")))


PLAIN, PAPER_WAY, QUERIED = "hinton_plain", "hinton_students", "hinton_queried"
GENERAL = "generalisation_students"

TABLES = {
    "quickstart": Table(
        ("all digits", "the 3s", "the 3s, `teacher_matched`", "the 3s, `prior_matched`"),
        (
            _quickstart("teacher", "teacher"),
            _quickstart("student, hard labels", "labels"),
            _quickstart("student, distilled", "T=20"),
            _quickstart("hard labels, never saw a 3", "labels omit=3", True),
            _quickstart("**distilled, never saw a 3**", "T=20 omit=3", True),
        ),
    ),
    "hinton": Table(
        ("paper", "ours, the paper's way", "ours, teacher queried on augmented images"),
        (
            _hinton("teacher", "67", Ours(PAPER_WAY, "teacher"), ""),
            _hinton("student, hard labels", "146", Ours(PLAIN, "labels"), ""),
            _hinton("student, distilled, T = 20", "74", _soft(PAPER_WAY, ""), _soft(QUERIED, "")),
            _hinton("no 3s", "206", _soft(PAPER_WAY, " omit=3"), _soft(QUERIED, " omit=3")),
            *(
                _hinton(
                    f"no 3s, bias {correction}",
                    paper,
                    _soft(PAPER_WAY, " omit=3", correction),
                    _soft(QUERIED, " omit=3", correction),
                )
                for correction, paper in (
                    ("`test_tuned`", "109"),
                    ("`prior_matched`", ""),
                    ("`teacher_matched`", ""),
                )
            ),
            _hinton(
                "no 3s, errors on the 1,010 threes",
                "133",
                *(_soft(run, " omit=3", class_="3") for run in (PAPER_WAY, QUERIED)),
            ),
            *(
                _hinton(
                    f"no 3s, errors on threes, bias {correction}",
                    paper,
                    *(_soft(run, " omit=3", correction, "3") for run in (PAPER_WAY, QUERIED)),
                )
                for correction, paper in (
                    ("`test_tuned`", "14"),
                    ("`prior_matched`", ""),
                    ("`teacher_matched`", ""),
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
        ("theirs (one seed)", "ours", "ours, the 3s"),
        (
            _general("teacher", "98.18", GENERAL, "teacher"),
            _general("plain", "97.72", GENERAL, "labels"),
            _general("distilled", "97.25", GENERAL, "T=4 alpha=0.9"),
            _general("plain, no 3s", "87.01", GENERAL, "labels omit=3"),
            _general("distilled, no 3s", "87.91", GENERAL, "T=4 alpha=0.9 omit=3"),
            _general(
                "distilled, no 3s, bias `test_tuned`",
                "91.02 (+3.5)",
                GENERAL,
                "T=4 alpha=0.9 omit=3",
                "test_tuned",
            ),
            _general(
                "distilled, no 3s, bias `prior_matched`", "", GENERAL, "T=4 alpha=0.9 omit=3", "prior_matched"
            ),
            _general(
                "distilled, no 3s, bias `teacher_matched`",
                "",
                GENERAL,
                "T=4 alpha=0.9 omit=3",
                "teacher_matched",
            ),
        ),
    ),
}


if __name__ == "__main__":
    common.run(main)
