"""The tables of the studies: their rows, what others published, which of our intervals stands beside it.

`./launch.sh tables` fills them from experiments/results/.
"""

from collections.abc import Sequence

from experiments.gallery import hidden_studies
from experiments.gallery.rows import EACH, FIXED, FIXED_BIAS, Ours, Row, Table, omission


def _omitted_class(noun: str, soft: str, hard: str, setting: str) -> Table:
    """Class 3, a `noun`, of the runs `soft` (whose distilled setting is `setting`) and `hard`."""
    ways = (
        ("hard labels", soft, "labels"),
        ("teacher's argmax", hard, "hard_label"),
        ("soft targets", soft, setting),
    )
    seen = [(f"student, {label}", run, name, False) for label, run, name in ways]
    unseen = [(f"{label}, {noun} omitted", run, f"{name} omit=3", True) for label, run, name in ways]
    return omission("3", f"{noun}s", EACH, [("teacher", soft, "teacher", False), *seen, *unseen])


def _architecture(label: str, theirs: str, run: str, setting: str, metric: str = "accuracy") -> Row:
    return Row(label, (theirs, Ours(run, setting, metric=metric)))


def _compression(label: str, theirs: Sequence[str], run: str, setting: str) -> Row:
    ours = (Ours(run, setting, metric=metric) for metric in ("accuracy", "macro_precision", "macro_recall"))
    return Row(label, tuple(cell for pair in zip(theirs, ours, strict=True) for cell in pair))


def _hinton(label: str, paper: str, *cells: str | Ours, others: str = "") -> Row:
    return Row(label, (paper, others, *cells))


def _soft(
    run: str, masked: str, correction: str = "none", class_: str = "all", metric: str = "errors"
) -> Ours:
    return Ours(run, f"T=20{masked}", correction, class_, metric)


def _general(label: str, setting: str, theirs: str = "", threes: str = "", correction: str = "none") -> Row:
    ours = Ours(GENERAL, setting, correction, "all", "macro_recall")
    return Row(label, (theirs, threes, ours, Ours(GENERAL, setting, correction, "3", "accuracy")))


PLAIN, PAPER_WAY, QUERIED = "hinton_plain", "hinton_students", "hinton_queried"
GENERAL, COMPRESSED = "generalisation_students", "compression_reduced_students"

PAPER_COLUMN, QUERIED_COLUMN = "ours, as in the paper", "ours, teacher queried on augmented images"
HEADLINE = (
    "teacher",
    "student, hard labels",
    "student, distilled, T = 20",
    "3 omitted",
    "3 omitted, bias `test_tuned`",
    "3 omitted, bias `prior_matched`",
    "3 omitted, errors on the 1,010 3s",
    "3 omitted, errors on the 3s, bias `prior_matched`",
    "only 7s and 8s",
    "only 7s and 8s, bias `prior_matched`",
)
"""The rows of the table `hinton` that the README shows."""

TABLES: dict[str, Table] = {
    "quickstart": omission(
        "3",
        "3s",
        ("teacher_matched", "prior_matched"),
        (
            ("teacher", "quickstart", "teacher", False),
            ("student, hard labels", "quickstart", "labels", False),
            ("student, distilled", "quickstart", "T=20", False),
            ("hard labels, 3 omitted", "quickstart", "labels omit=3", True),
            ("**distilled, 3 omitted**", "quickstart", "T=20 omit=3", True),
        ),
    ),
    "mnist_cnn": _omitted_class("3", "mnist_cnn_students", "mnist_cnn_hard_label", "T=20"),
    "cifar10_reduced": omission(
        "3",
        "cats",
        EACH,
        (
            ("teacher", COMPRESSED, "teacher", False),
            ("student, hard labels", COMPRESSED, "labels", False),
            ("student, distilled, alpha = 0.8", COMPRESSED, "T=4 alpha=0.8", False),
            ("soft targets, cat omitted", "cifar10_reduced_soft", "T=4 omit=3", True),
        ),
    ),
    "architectures": Table(
        ("theirs", "ours"),
        (
            _architecture("VGG-16", "99.68", "architectures_vgg16", "teacher"),
            _architecture("ResNet-164", "99.70", "architectures_resnet164", "teacher"),
            _architecture("CNN of 3 convolutions alone", "97.00", "architectures_vgg16_cnn", "labels"),
            _architecture("CNN under VGG-16", "97.65", "architectures_vgg16_cnn", "T=4 alpha=0.9"),
            _architecture("CNN under ResNet-164", "98.16", "architectures_resnet164_cnn", "T=4 alpha=0.9"),
            *(
                _architecture(label, "", "architectures_vgg16_cnn", setting, "ensemble_accuracy")
                for label, setting in (
                    ("ensemble of three CNNs alone", "labels"),
                    ("ensemble of three CNNs under VGG-16", "T=4 alpha=0.9"),
                )
            ),
            _architecture("two dense layers alone", "", "architectures_vgg16_mlp", "labels"),
            _architecture("two dense layers under VGG-16", "", "architectures_vgg16_mlp", "T=4 alpha=0.9"),
        ),
    ),
    "compression": Table(
        ("accuracy, theirs", "ours", "precision, theirs", "ours", "recall, theirs", "ours"),
        (
            _compression("teacher, 2.2 M parameters", ("89", "89", "89"), COMPRESSED, "teacher"),
            _compression("distilled, 330 K", ("86", "87", "86"), COMPRESSED, "T=4 alpha=0.8"),
            _compression("plain, 330 K", ("79", "80", "79"), COMPRESSED, "labels"),
        ),
    ),
    "hinton": Table(
        ("paper", "others, derived", PAPER_COLUMN, QUERIED_COLUMN),
        (
            _hinton("teacher", "67", Ours(PAPER_WAY, "teacher"), ""),
            _hinton("student, hard labels", "146", Ours(PLAIN, "labels"), ""),
            _hinton("student, distilled, T = 20", "74", _soft(PAPER_WAY, ""), _soft(QUERIED, "")),
            _hinton("3 omitted", "206", _soft(PAPER_WAY, " omit=3"), _soft(QUERIED, " omit=3")),
            *(
                _hinton(
                    f"3 omitted, bias `{correction}`",
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
                "3 omitted, errors on the 1,010 3s",
                "133",
                *(_soft(run, " omit=3", class_="3") for run in (PAPER_WAY, QUERIED)),
                others="82 (91.88 % correct)",
            ),
            *(
                _hinton(
                    f"3 omitted, errors on the 3s, bias `{correction}`",
                    paper,
                    *(_soft(run, " omit=3", correction, "3") for run in (PAPER_WAY, QUERIED)),
                    others=others,
                )
                for correction, paper, others in (
                    ("test_tuned", "14", ""),
                    ("prior_matched", "", "22 (97.82 % correct)"),
                    ("teacher_matched", "", ""),
                )
            ),
            *(
                _hinton(
                    f"only 7s and 8s{how}",
                    paper,
                    *(_soft(run, " seen=7+8", correction) for run in (PAPER_WAY, QUERIED)),
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
            _general("plain, 3 omitted", "labels omit=3", "87.01", "0.0"),
            _general("plain, 3 omitted, bias `prior_matched`", "labels omit=3", correction="prior_matched"),
            _general("distilled, 3 omitted", "T=4 alpha=0.9 omit=3", "87.91", "2.9"),
            _general(
                f"distilled, 3 omitted, bias {FIXED_BIAS:+}, fixed",
                "T=4 alpha=0.9 omit=3",
                "91.02",
                "39.1",
                FIXED,
            ),
            *(
                _general(
                    f"distilled, 3 omitted, bias `{correction}`",
                    "T=4 alpha=0.9 omit=3",
                    correction=correction,
                )
                for correction in ("test_tuned", "prior_matched", "teacher_matched")
            ),
        ),
    ),
} | hidden_studies.TABLES

_OURS = tuple(number for number, name in enumerate(TABLES["hinton"].columns) if name != "others, derived")
TABLES["headline"] = Table(
    tuple(TABLES["hinton"].columns[number] for number in _OURS),
    tuple(
        Row(row.label, tuple(row.cells[number] for number in _OURS))
        for row in TABLES["hinton"].rows
        if row.label in HEADLINE
    ),
)
