"""The parts of a table of results: a figure of ours, a row, a table."""

from collections.abc import Sequence
from typing import NamedTuple

FIXED_BIAS = 3.5  # the paper's for the 3s, tuned on its test set, which others then took over as it is
FIXED = f"fixed {FIXED_BIAS:+}"
LABEL_FREE = ("teacher_matched", "prior_matched")
EACH = (*LABEL_FREE, "validation_tuned", "test_tuned")


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
    """A table of a page: its columns after the label, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def _omitted(label: str, run: str, setting: str, class_: str, corrections: Sequence[str]) -> Row:
    """Accuracy of all classes and of the omitted class, then of that class under each of these corrections,
    then of all classes under `prior_matched`; `corrections` is empty where no class is omitted."""
    cell = lambda correction, of: Ours(run, setting, correction, of, "accuracy")  # noqa: E731
    corrected = [cell(correction, class_) for correction in corrections]
    corrected += [cell("prior_matched", "all")] if corrections else []
    return Row(label, (cell("none", "all"), cell("none", class_), *corrected))


def omission(class_: str, plural: str, corrections: Sequence[str], rows: Sequence[tuple]) -> Table:
    """Accuracy of all and of a class, also under these corrections.

    rows: (label, run, setting, whether the class is omitted there).
    """
    columns = [f"the {plural}, `{correction}`" for correction in corrections]
    filled = []
    for label, run, setting, omitted in rows:
        row = _omitted(label, run, setting, class_, corrections if omitted else ())
        filled.append(Row(label, (*row.cells, *[""] * (len(columns) + 3 - len(row.cells)))))
    return Table(("all classes", f"the {plural}", *columns, "all classes, `prior_matched`"), tuple(filled))
