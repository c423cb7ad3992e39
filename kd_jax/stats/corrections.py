"""The bias corrections: all that is known of one is its entry in CORRECTIONS.

A correction chooses one number for one student, which is added to the logits of its omitted classes. The
names stand in results.csv. Reports read labels, order and line styles here, so this file imports no JAX: what
a rule computes is in evaluate/bias_correction.py; its argument is `CorrectionInputs` of evaluate/evaluate.py.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

NEEDS = ("nothing", "teacher", "validation_images", "validation_labels", "test_labels")
"""What a rule takes beside the student and the transfer set, what is preferred first. `validation_images` are
unlabelled, with the share of the omitted classes among them."""


class Correction(NamedTuple):
    """label: how the bias is chosen, in words; needs: of NEEDS; dashes: lengths of the line and of the gap
    that mark the bias in figures, none for a solid line; choose: `CorrectionInputs` -> f32[]."""

    label: str
    needs: str
    dashes: tuple[float, ...]
    choose: Callable[[Any], Any]


CORRECTIONS = {
    "none": Correction("as trained", "nothing", (), lambda inputs: inputs.no_bias()),
    "test_tuned": Correction(
        "bias tuned on the TEST set, which shows what is possible and is no result",
        "test_labels",
        (1, 2),
        lambda inputs: inputs.min_error_bias("test"),
    ),
    "validation_tuned": Correction(
        "bias tuned on the labels of the validation split",
        "validation_labels",
        (6, 2, 1, 2),
        lambda inputs: inputs.min_error_bias("validation"),
    ),
    "prior_matched": Correction(
        "bias set from unlabelled validation images and the known shares of the classes in them",
        "validation_images",
        (4, 2),
        lambda inputs: inputs.prior_matching_bias("validation"),
    ),
    "teacher_matched": Correction(
        "bias set from the teacher on the transfer set, without an example of what is omitted",
        "teacher",
        (),
        lambda inputs: inputs.teacher_matching_bias(),
    ),
}


def title(name: str) -> str:
    """What heads figures and tables of one correction."""
    return "as trained" if name == "none" else f"bias corrected, {name}"


def is_result(name: str) -> bool:
    """Whether no label of the test split is used: else it is an upper bound, which heads nothing."""
    return CORRECTIONS[name].needs != "test_labels"


def label_free(names: Iterable[str]) -> list[str]:
    """Of these, the corrections that need no label, what is preferred first."""
    return [name for name in _by_needs(names) if not CORRECTIONS[name].needs.endswith("_labels")]


def preferred(names: Iterable[str]) -> str:
    """Of these, the correction that needs the fewest labels, and none of the test split; else "none"."""
    return next(filter(is_result, _by_needs(names)), "none")


def of_teacher() -> list[str]:
    """The corrections that are made with the teacher."""
    return [name for name, correction in CORRECTIONS.items() if correction.needs == "teacher"]


def _by_needs(names: Iterable[str]) -> list[str]:
    return sorted(set(names) - {"none"}, key=lambda name: (NEEDS.index(CORRECTIONS[name].needs), name))
