"""Rewrite the README's tables from experiments/results/; --add=RUN first copies a run's outcome there."""

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
    values = summary.lookup(summary.read(folder))
    interval = values.get((ours.setting, "test", ours.correction, ours.class_, ours.metric))
    if interval is None:
        raise InputError(f"{folder} has no such result", "a setting and correction of its config.json", ours)
    scale, digits = (1, 1) if ours.metric == "errors" else (100, 2)
    width = scale * (interval.high - interval.mean)
    return f"{scale * interval.mean:.{digits}f} ± {width:.{digits}f} ({interval.n})"


def _students(run: str, setting: str, correction: str = "none", class_: str = "all") -> Ours:
    return Ours(run, setting, correction, class_)


def _percent(run: str, setting: str, correction: str = "none", class_: str = "all") -> Ours:
    return Ours(run, setting, correction, class_, "accuracy")


TABLES = {
    "quickstart": Table(
        ("all digits", "the 3s", "the 3s, corrected"),
        (
            Row("teacher", (_percent("quickstart", "teacher"), _percent("quickstart", "teacher", class_="3"), "")),
            Row("student, hard labels", (_percent("quickstart", "labels"), _percent("quickstart", "labels", class_="3"), "")),
            Row("student, distilled", (_percent("quickstart", "T=20"), _percent("quickstart", "T=20", class_="3"), "")),
            *(
                Row(
                    label,
                    (
                        _percent("quickstart", setting),
                        _percent("quickstart", setting, class_="3"),
                        _percent("quickstart", setting, "teacher_matched", "3"),
                    ),
                )
                for label, setting in (
                    ("hard labels, never saw a 3", "labels omit=3"),
                    ("**distilled, never saw a 3**", "T=20 omit=3"),
                )
            ),
        ),
    ),
}


if __name__ == "__main__":
    common.run(main)
