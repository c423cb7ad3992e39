"""Rows of a run against scikit-learn, and where nothing is defined."""

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from kd_jax.io import tidy
from kd_jax.stats.rows import METRICS

K = 6
RANDOM = np.random.RandomState(0)
# No example is of class 4, which is named; class 5 is there, and never named; class 0 is never named rightly.
LABELS = RANDOM.choice([0, 1, 2, 3, 5], size=200)
PREDICTED = np.where(RANDOM.rand(200) < 0.6, LABELS, RANDOM.randint(5, size=200))
PREDICTED = np.where((LABELS == 0) & (PREDICTED == 0), 4, PREDICTED)
PREDICTED[PREDICTED == 5] = 1


def rows_of(labels, predicted, omitted=(5,)):
    matrix = confusion_matrix(labels, predicted, labels=range(K))
    rows = tidy.result_rows("s", 0, "test", "none", matrix, omitted, None)
    assert {row.metric for row in rows} <= set(METRICS)
    return {(row.class_, row.metric): row.value for row in rows}


def test_precision_recall_and_f1_are_scikit_learns():
    rows = rows_of(LABELS, PREDICTED)
    precision, recall, f1, total = precision_recall_fscore_support(
        LABELS, PREDICTED, labels=range(K), zero_division=0
    )
    assert total[4] == 0 and precision[4] == 0 and precision[5] == 0 and 0 == f1[5] < precision[1]
    for k in range(K):
        assert rows[str(k), "precision"] == pytest.approx(precision[k])
        assert rows[str(k), "f1"] == pytest.approx(f1[k])
        if k != 4:
            assert rows[str(k), "accuracy"] == pytest.approx(recall[k])
    assert math.isnan(rows["4", "accuracy"])


def test_macro_means_are_over_the_classes_that_have_examples():
    """The same classes for all three, those that scikit-learn is told to look at."""
    rows = rows_of(LABELS, PREDICTED)
    there = np.unique(LABELS)
    precision, recall, f1, _ = precision_recall_fscore_support(
        LABELS, PREDICTED, labels=there, average="macro", zero_division=0
    )
    found = [rows["all", f"macro_{metric}"] for metric in ("precision", "recall", "f1")]
    assert found == pytest.approx([precision, recall, f1])
    everywhere = f1_score(LABELS, PREDICTED, labels=range(K), average="macro", zero_division=0)
    assert everywhere != pytest.approx(f1)


def test_a_run_that_diverged_has_the_epochs_before_and_one_row():
    loss = np.array([[2.0, 1.0, 0.5], [2.0, np.nan, np.nan], [np.nan] * 3])
    ones = np.ones((3, 3, K), np.int32)
    counts = {"correct": ones, "support": ones, "loss_sum": loss, "agree": np.zeros((3, 3), np.int32)}
    history = {"train": counts, "validation": counts | {"loss_sum": np.ones((3, 3))}}
    assert tidy.diverged_at(history).tolist() == [0, 2, 1]
    rows = tidy.history_rows(history, ["a", "b", "b"], [0, 0, 1], [()] * 3)
    assert {(row.run, row.epoch) for row in rows} == {(0, 1), (0, 2), (0, 3), (1, 1)}
    assert tidy.diverged_row("b", 0, 2) == ("b", 0, "test", "none", "all", "diverged", 2)


def test_all_right():
    rows = rows_of(np.arange(K), np.arange(K), ())
    assert {rows["all", f"macro_{metric}"] for metric in ("precision", "recall", "f1")} == {1.0}


def test_every_metric_of_quality_may_be_written():
    bins = {"count": np.array([2]), "confidence": np.array([1.5]), "correct": np.array([1])}
    sums = {"nll": 1.0, "top5": 2, "agree": 1, "kl": 0.5, "bins": bins}
    rows = tidy.quality_rows("s", 1, "validation", sums)
    assert {row.metric: row.value for row in rows} == {
        "nll": 0.5, "top5_accuracy": 1.0, "agreement": 0.5, "kl_to_teacher": 0.25, "ece": 0.25,
    }  # fmt: skip
    assert {row.metric for row in rows} <= set(METRICS)
    assert {row[:5] for row in rows} == {("s", 1, "validation", "none", "all")}


def test_a_bias_curve_weighs_classes_by_their_examples():
    labels = np.repeat([0, 1, 2], [30, 10, 10])
    # Right are 15, 7 and 9: kept 22 of 40, all 31 of 50; class 3 has no example.
    rows = tidy.bias_rows("s", 1, np.array([3.0]), np.array([[15, 7, 9, 0]]), labels, [2])
    found = {row.class_: row.accuracy for row in rows}
    assert math.isnan(found.pop("3"))
    assert found == {"all": 0.62, "omitted": 0.9, "seen": 0.55, "0": 0.5, "1": 0.7, "2": 0.9}
    assert {row[:3] for row in rows} == {("s", 1, 3.0)}
