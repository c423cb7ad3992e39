"""What a run measured follows from its checkpoints and the data, by NumPy, SciPy and scikit-learn alone."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support, top_k_accuracy_score

from kd_jax.io import examples
from kd_jax.stats.corrections import CORRECTIONS
from tests.experiments.runs import (
    CLASSES,
    SEEDS,
    SETTINGS,
    arrays_of,
    logits_of,
    read_csv,
    results_of,
    splits_of,
    undecided,
)

QUALITY = ("top5_accuracy", "nll", "ece", "agreement", "kl_to_teacher")


def check_confusion(
    results: dict, key: tuple, predicted: np.ndarray, labels: np.ndarray, omitted: tuple
) -> None:
    """Every row of one run, split and correction that its predictions decide, against scikit-learn."""
    right = predicted == labels
    groups = {"all": np.ones_like(right)} | {str(k): labels == k for k in range(CLASSES)}
    if omitted:
        groups |= {"omitted": np.isin(labels, omitted), "seen": ~np.isin(labels, omitted)}
    expected: dict[tuple[str, str], Any] = {}
    for name, members in groups.items():
        count, correct = int(members.sum()), int((right & members).sum())
        expected |= {(name, "accuracy"): correct / count, (name, "errors"): count - correct}
        expected[name, "support"] = count
    per_class = [expected[str(k), "accuracy"] for k in range(CLASSES)]
    expected["all", "macro_recall"] = pytest.approx(sum(per_class) / CLASSES, abs=1e-15)
    rates = precision_recall_fscore_support(labels, predicted, labels=range(CLASSES), zero_division=0)
    for metric, of_class in zip(("precision", "recall", "f1"), rates, strict=False):
        if metric != "recall":  # the accuracy of a class
            expected["all", f"macro_{metric}"] = pytest.approx(np.mean(of_class), abs=1e-15)
            for k, value in enumerate(of_class):
                expected[str(k), metric] = pytest.approx(value, abs=1e-15)
    others = {"bias", *QUALITY}
    found = {
        k[4:]: value
        for k, value in results.items()
        if k[:4] == key and k[5] not in others and not k[5].startswith("ensemble_")
    }
    assert found == expected


def check_matrix(matrix: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
    """A confusion matrix of the program against that of the largest logits, by scikit-learn."""
    expected = confusion_matrix(labels, np.argmax(logits, axis=1), labels=range(CLASSES))
    assert np.abs(matrix - expected).sum() <= 2 * undecided(logits)


def matrices_of(folder: Path) -> dict[tuple[str, int, str], np.ndarray]:
    """confusions.npz by setting, seed and correction."""
    with np.load(folder / "confusions.npz", allow_pickle=False) as held:
        keys = zip(*(held[key].tolist() for key in ("setting", "seed", "correction")), strict=True)
        return dict(zip(keys, held["counts"], strict=True))


def check_quality(
    results: dict, key: tuple, logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None
) -> None:
    """The rows of one run and split that its probabilities decide, against SciPy and scikit-learn."""
    log_p = log_softmax(logits, axis=1)
    expected = {
        "top5_accuracy": pytest.approx(
            top_k_accuracy_score(labels, logits, k=5, labels=range(CLASSES)), abs=1.5 / len(labels)
        ),
        "nll": pytest.approx(log_loss(labels, np.exp(log_p), labels=range(CLASSES)), rel=1e-4),
    }
    if teacher_logits is not None:
        agreement = np.mean(logits.argmax(axis=1) == teacher_logits.argmax(axis=1))
        slack = (undecided(logits) + undecided(teacher_logits)) / len(labels) + 1e-12
        expected["agreement"] = pytest.approx(agreement, abs=slack)
        log_q = log_softmax(teacher_logits, axis=1)
        kl = np.sum(np.exp(log_q) * (log_q - log_p)) / len(labels)
        expected["kl_to_teacher"] = pytest.approx(kl, rel=1e-4)
    found = {
        k[5]: value for k, value in results.items() if k[:4] == key and k[4] == "all" and k[5] in QUALITY
    }
    assert 0 <= found.pop("ece") < 1  # its arithmetic is in test_metrics.py
    assert found == expected


def test_results_follow_from_the_checkpoints_and_the_data(teacher, sweep, digits):
    results, splits = results_of(sweep.folder), splits_of(digits)
    students, teachers = arrays_of(sweep.folder / "students"), arrays_of(teacher.folder / "teachers")
    matrices = {run: matrices_of(run) for run in (sweep.folder, teacher.folder)}
    checked, decided = set(), 0
    for (setting, omitted), seed, split in itertools.product(SETTINGS.items(), SEEDS, splits):
        images, labels = splits[split]
        logits = logits_of(students, [*SETTINGS].index(setting) * len(SEEDS) + seed, images)
        for correction in CORRECTIONS if omitted else ["none"]:
            key = (setting, seed, split, correction)
            bias = results.get((*key, "omitted", "bias"), 0.0)
            biased = logits + bias * np.isin(np.arange(CLASSES), omitted)
            if not undecided(biased):
                check_confusion(results, key, np.argmax(biased, axis=1), labels, omitted)
                decided += 1
            if split == "test":
                check_matrix(matrices[sweep.folder].pop((setting, seed, correction)), biased, labels)
            assert ((*key, "omitted", "bias") in results) == bool(omitted)
            checked.add(key)
        check_quality(
            results, (setting, seed, split, "none"), logits, labels, logits_of(teachers, seed, images)
        )
    for seed, split in itertools.product(SEEDS, splits):
        images, labels = splits[split]
        key = ("teacher", seed, split, "none")
        logits = logits_of(teachers, seed, images)
        for rows in (results, results_of(teacher.folder)):
            if not undecided(logits):
                check_confusion(rows, key, np.argmax(logits, axis=1), labels, ())
            check_quality(rows, key, logits, labels, None)
        if split == "test":
            for of_run in matrices.values():
                check_matrix(of_run.pop(("teacher", seed, "none")), logits, labels)
        checked.add(key)
    assert {key[:4] for key in results} == checked and not any(matrices.values())
    assert decided > len(checked) / 2


def test_students_of_a_setting_answer_together(teacher, sweep, digits):
    """By the mean of their probabilities; so do the teachers of all seeds in their own folder."""
    results, splits = results_of(sweep.folder), splits_of(digits)
    students = arrays_of(sweep.folder / "students")
    tested = [(results, students, name, 2 * h, omitted) for h, (name, omitted) in enumerate(SETTINGS.items())]
    tested.append((results_of(teacher.folder), arrays_of(teacher.folder / "teachers"), "teacher", 0, ()))
    decided = 0
    for (found, arrays, setting, first, omitted), split in itertools.product(tested, splits):
        images, labels = splits[split]
        each = [softmax(logits_of(arrays, first + seed, images), axis=1) for seed in SEEDS]
        if undecided(np.log(np.mean(each, axis=0))):
            continue
        decided += 1
        right = np.mean(each, axis=0).argmax(axis=1) == labels
        absent = np.isin(labels, omitted)
        groups = {"all": right} | {str(k): right[labels == k] for k in range(CLASSES)}
        groups |= {"omitted": right[absent], "seen": right[~absent]} if omitted else {}
        expected = {
            (setting, 0, split, "none", name, f"ensemble_{metric}"): value
            for name, members in groups.items()
            for metric, value in (("accuracy", members.mean()), ("errors", (~members).sum()))
        }
        keys = {k for k in found if (k[0], k[2]) == (setting, split) and k[5].startswith("ensemble_")}
        assert {key: found[key] for key in keys} == expected
    assert decided > len(tested)


def test_biases_are_what_their_names_say(sweep, digits):
    results, splits = results_of(sweep.folder), splits_of(digits)
    students = arrays_of(sweep.folder / "students")
    for setting, seed in itertools.product([name for name, omitted in SETTINGS.items() if omitted], SEEDS):

        def errors(split, correction, setting=setting, seed=seed):
            return results[setting, seed, split, correction, "all", "errors"]

        def bias(correction, setting=setting, seed=seed):
            return results[setting, seed, "test", correction, "omitted", "bias"]

        assert bias("none") == 0
        assert all(errors("test", "test_tuned") <= errors("test", other) for other in CORRECTIONS)
        assert all(
            errors("validation", "validation_tuned") <= errors("validation", other) for other in CORRECTIONS
        )
        margins = {}
        for split, correction in (("test", "test_tuned"), ("validation", "validation_tuned")):
            images, labels = splits[split]
            logits = logits_of(students, [*SETTINGS].index(setting) * len(SEEDS) + seed, images)
            seen = np.delete(logits, 3, axis=1)
            margins[split] = seen.max(axis=1) - logits[:, 3]
            kept_right = np.delete(np.arange(CLASSES), 3)[seen.argmax(axis=1)] == labels
            edges = np.sort(margins[split])
            tried = [edges[0] - 1, *(edges[1:] + edges[:-1]) / 2, edges[-1] + 1]
            wrong = [np.sum(~np.where(margins[split] < b, labels == 3, kept_right)) for b in tried]
            # Between two margins that rounding may exchange no bias need be possible.
            apart = [True, *(np.diff(edges) > 1e-4), True]
            assert min(wrong) <= errors(split, correction) <= min(np.array(wrong)[apart])
        off = margins["validation"] - bias("prior_matched")
        called, slack = int(np.sum(off < 0)), int(np.sum(np.abs(off) < 1e-4))
        assert abs(called - np.sum(splits["validation"][1] == 3)) <= slack
        assert len({bias(correction) for correction in CORRECTIONS}) > 3


def test_bias_curve_shows_the_students(sweep, digits):
    rows = read_csv(sweep.folder / "bias_curve.csv")
    assert list(rows[0]) == ["setting", "seed", "bias", "class", "accuracy"]
    grid = sorted({float(row["bias"]) for row in rows})
    assert grid == [*np.arange(-6, 24.01, 0.25)]
    parts = ["all", "omitted", "seen", *map(str, range(CLASSES))]
    assert len(rows) == 2 * len(SEEDS) * len(grid) * len(parts) and {row["setting"] for row in rows} == {
        name for name, omitted in SETTINGS.items() if omitted
    }
    logits = logits_of(arrays_of(sweep.folder / "students"), 5, digits.test_images)  # labels omit=3, seed 1
    decided = 0
    for row in rows:
        if (row["setting"], row["seed"]) == ("labels omit=3", "1"):
            labels, part = digits.test_labels, row["class"]
            named = {"all": labels >= 0, "omitted": labels == 3, "seen": labels != 3}
            members = named[part] if part in named else labels == int(part)
            biased = logits + float(row["bias"]) * (np.arange(CLASSES) == 3)
            if not undecided(biased[members]):
                assert float(row["accuracy"]) == np.mean(biased[members].argmax(axis=1) == labels[members])
                decided += 1
    assert decided > len(grid) * len(parts) / 2


def test_examples_are_images_that_a_student_gets_wrong(sweep, digits):
    found = examples.read(sweep.folder, CLASSES)
    assert (found.setting, found.seed, found.correction) == ("T=4 omit=3", 0, "teacher_matched")
    logits = logits_of(arrays_of(sweep.folder / "students"), 6, digits.test_images)
    key = (found.setting, 0, "test", found.correction, "omitted", "bias")
    biased = logits + results_of(sweep.folder)[key] * (np.arange(CLASSES) == 3)
    before, after = logits.argmax(axis=1), biased.argmax(axis=1)
    assert not undecided(logits) and not undecided(biased), "rounding decides: choose another seed"
    wrong = (digits.test_labels == 3) & (before != 3)
    rescued, lost = np.flatnonzero(wrong & (after == 3)), np.flatnonzero(wrong & (after != 3))
    np.testing.assert_array_equal(found.number, [*rescued[:24], *lost[:24]])
    np.testing.assert_array_equal(found.images, digits.test_images[found.number])
    np.testing.assert_array_equal(found.before, before[found.number])
    np.testing.assert_array_equal(found.after, after[found.number])
    assert len(found.number) and np.all(found.labels == 3)
