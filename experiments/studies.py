"""The README's tables of studies: their rows, what others published, which of our intervals stands beside it.

`./launch.sh tables` fills them from experiments/results/.
"""

from typing import NamedTuple

FIXED_BIAS = 3.5  # the paper's for the 3s, tuned on its test set, which others then took over as it is
FIXED = f"fixed {FIXED_BIAS:+}"


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
