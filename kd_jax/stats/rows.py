"""The rows of the tables of a run folder, whose columns io/run_folder.py documents, and the words in them."""

from typing import NamedTuple

import numpy as np

FORMAT = 2
TEACHER = "teacher"  # the setting of the rows of teachers
DIVERGED = "diverged"
METRICS = (
    "accuracy", "errors", "support", "bias", "precision", "f1", "macro_recall", "macro_precision", "macro_f1",
    "ensemble_accuracy", "ensemble_errors", "top5_accuracy", "nll", "ece", "agreement", "kl_to_teacher",
    DIVERGED,
)  # fmt: skip
FRACTIONS = ("precision", "f1", "macro_precision", "macro_f1", "ece", "agreement")  # and all accuracies
MEASURES_OF_SYNTHESISED = ("probe_synthesised", "cka_synthesised", "centroid_distance_synthesised")
MEASURES = ("probe", "neighbours", "cka", "silhouette", "centroid_distance", *MEASURES_OF_SYNTHESISED)
RANDOM = "random"
TRACKED_METRICS = tuple(f"accuracy{of}_{how}" for how in ("corrected", "probe") for of in ("", "_omitted"))
HISTORY_METRICS = ("loss", "accuracy", "agreement", "accuracy_omitted", *TRACKED_METRICS)


class HistoryRow(NamedTuple):
    """One line of history.csv."""

    run: int
    setting: str
    seed: int
    epoch: int
    split: str
    metric: str
    value: float


class ResultRow(NamedTuple):
    """One line of results.csv; `class_` is its column `class`."""

    setting: str
    seed: int
    split: str
    correction: str
    class_: str
    metric: str
    value: float


class RepresentationRow(NamedTuple):
    """One line of representation.csv."""

    setting: str
    seed: int
    layer: str
    measure: str
    class_: str
    value: float


class BiasRow(NamedTuple):
    """One line of bias_curve.csv; `class_` is its column `class`."""

    setting: str
    seed: int
    bias: float
    class_: str
    accuracy: float


class Confusion(NamedTuple):
    """The test predictions of one model under one correction. counts: whole numbers [K,K], of the examples of
    class i (row) those called j (column); where a model knows the first classes alone, written without the
    others."""

    setting: str
    seed: int
    correction: str
    counts: np.ndarray
