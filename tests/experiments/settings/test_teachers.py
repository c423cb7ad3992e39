"""Whom students learn from, from the command line: several folders, and students as teachers of others."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from kd_jax.io import checkpoint
from tests.experiments.test_experiments import (
    Launcher,
    Run,
    arrays_of,
    config_of,
    done,
    logits_of,
    results_of,
    splits_of,
)

TRAINING = ["--epochs=2", "--batch_size=64", "--checkpoint_every=2"]
STUDENTS = [*TRAINING, "--model=mlp-8", "--learning_rates=1e-2", "--seeds=2", "--temperatures=4"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="module")
def launch(home):
    with Launcher(home) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def distil(launch, home):
    def call(out: str, *words: str, draw: bool = False) -> Run:
        given = [*STUDENTS, *words]
        return Run(home / out, given, launch("distill", *given, f"--out={out}", draw=draw))

    return call


@pytest.fixture(scope="module")
def teachers(launch) -> None:
    """Folders of two structures, two teachers each, under wide/ and deep/; one teacher under lone/."""
    for out, model, seeds in (("wide", "mlp-24", 2), ("deep", "mlp-12-12", 2), ("lone", "mlp-20", 1)):
        words = [*TRAINING, f"--model={model}", f"--seeds={seeds}", "--learning_rate=1e-2"]
        assert launch("train_teacher", *words, f"--out={out}", draw=False).status == 0


@pytest.fixture(scope="module")
def assistants(distil, teachers) -> Run:
    """Students of wide/ that are to teach: of two settings, so that one must be named."""
    return distil("assistants", "--teacher=wide", "--omit=none,3", "--model=mlp-16")


@pytest.fixture(scope="module")
def pair(distil, teachers) -> Run:
    return distil("pair", "--teacher=wide,deep", "--omit=none,3", draw=True)


@pytest.fixture(scope="module")
def everyone(distil, teachers) -> Run:
    return distil("everyone", "--teacher=wide,deep,lone", "--teacher_seeds=ensemble", draw=True)


def test_each_teacher_is_told_apart(home, pair, everyone):
    for run, folders in ((pair, ["wide", "deep"]), (everyone, ["wide", "deep", "lone"])):
        done(run)
        about = config_of(run.folder)["teacher"]
        sums = [
            hashlib.sha256((home / folder / "teachers/manifest.json").read_bytes()).hexdigest()
            for folder in folders
        ]
        assert [one["path"] for one in about["members"]] == folders
        assert [one["sha256"] for one in about["members"]] == sums
        assert about["sha256"] == hashlib.sha256("".join(sums).encode()).hexdigest()
        models = {"wide": "mlp-24", "deep": "mlp-12-12", "lone": "mlp-20"}
        assert [one["model"] for one in about["members"]] == [models[folder] for folder in folders]
        assert [one["num_teachers"] for one in about["members"]] == [2, 2, 1][: len(folders)]
        assert about["num_teachers"] == sum(one["num_teachers"] for one in about["members"])
        assert about["path"] == ",".join(folders) and about["saw_validation"] is False
        report = (run.folder / "report.md").read_text()
        errors = results_of(run.folder)
        for number in range(about["num_teachers"]):
            value = errors["teacher", number, "test", "none", "all", "errors"]
            path = np.repeat(folders, [2, 2, 1][: len(folders)])[number]
            row = f"| {number} | {path} | {models[path]} | {value:.0f} | {100 * (1 - value / 500):.2f} |"
            assert row in report
    assert [run["teacher_seed"] for run in config_of(pair.folder)["runs"]] == [0, 1, 0, 1]
    assert {run["teacher_seed"] for run in config_of(everyone.folder)["runs"]} == {None}


def test_members_and_their_ensemble_by_numpy(home, pair, everyone, digits):
    """Each teacher's errors, and those of the mean of the probabilities of the teachers that a student hears:
    number s of each folder, or all five."""
    heard = {"pair": {0: [0, 2], 1: [1, 3]}, "everyone": {0: [0, 1, 2, 3, 4]}}
    order = [("wide", 0), ("wide", 1), ("deep", 0), ("deep", 1), ("lone", 0)]
    for split, (images, labels) in splits_of(digits).items():
        logits = [logits_of(arrays_of(home / folder / "teachers"), seed, images) for folder, seed in order]
        for run in (pair, everyone):
            results = results_of(run.folder)
            found = {k: v for k, v in results.items() if (k[0], k[2], k[4]) == ("teacher", split, "all")}
            expected = {}
            for number, one in enumerate(logits[: 4 if run is pair else 5]):
                expected[number, "errors"] = int((one.argmax(axis=1) != labels).sum())
            for number, members in heard[run.folder.name].items():
                mean = np.mean([softmax(logits[member], axis=1) for member in members], axis=0)
                expected[number, "ensemble_errors"] = int((mean.argmax(axis=1) != labels).sum())
            errors = {(k[1], k[5]): v for k, v in found.items() if k[5].endswith("errors")}
            assert errors == expected
            for (number, metric), value in expected.items():
                key = ("teacher", number, split, "none", "all", metric.replace("errors", "accuracy"))
                assert results[key] == pytest.approx(1 - value / len(labels), abs=1e-12)


def test_the_report_of_an_ensemble(everyone):
    """One ensemble of five, without an interval, as are five teachers of three structures; two students."""
    results, report = results_of(everyone.folder), (everyone.folder / "report.md").read_text()
    for name, members, seeds in (("teacher", "5 teachers", range(5)), ("T=4", "2 students", range(2))):
        alone = np.mean([results[name, seed, "test", "none", "all", "errors"] for seed in seeds])
        together = results[name, 0, "test", "none", "all", "ensemble_errors"]
        row = rf"\| {name} \| {members} \| {alone:.1f}( ± [0-9.]+)? \| {together:.1f} \| "
        row += rf"{100 * (1 - together / 500):.2f} \| - \| 1 \|"
        found = re.search(row, report)
        assert found and (found[1] is None) == (name == "teacher"), (row, report)
    words = " ".join(done(everyone).out.split())
    assert re.search(r"its teachers, one by one, \d+\.\d\d %, together \d+\.\d\d %; 2 seeds", words)


def test_who_teaches_matters_and_the_order_of_the_folders_hardly(distil, pair, everyone):
    turned = distil("turned", "--teacher=deep,wide", "--omit=none,3")
    done(turned)
    one, other = (arrays_of(run.folder / "students") for run in (pair, turned))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-3)
    all_ = arrays_of(everyone.folder / "students")["logits/kernel"]
    assert not np.allclose(one["logits/kernel"][:2], all_, atol=1e-3)


def done_folder(run: Run) -> Path:
    done(run)
    return run.folder / "students"


def test_several_folders_are_queried_on_augmented_images(distil, pair):
    run = distil("queried", "--teacher=wide,deep", "--jitter=1")
    done(run)
    one, other = (arrays_of(folder / "students")["logits/kernel"][:2] for folder in (run.folder, pair.folder))
    assert not np.allclose(one, other, atol=1e-3)


def test_the_same_teachers_are_the_same_experiment_and_others_are_not(distil, pair, everyone):
    again = distil("pair", "--teacher=wide,deep", "--omit=none,3")
    assert again.outcome.status == 0 and "is complete" in again.outcome.out
    other = distil("pair", "--teacher=deep,wide", "--omit=none,3")
    assert other.outcome.status == 2 and "another teacher" in other.outcome.err


def test_teacher_assistant_student(distil, home, assistants, digits):
    """Each link a checkpoint of the one before; the chain is on record; none starts as its teacher did."""
    done(assistants)
    still = ["--learning_rates=1e-30", "--model=mlp-16"]  # whose students end where they began
    student = distil("student", "--teacher=assistants", "--teacher_setting=T=4", *still)
    done(student)
    manifest, about = (
        checkpoint.read_manifest(home / "assistants/students"),
        config_of(student.folder)["teacher"],
    )
    assert (about["sha256"], about["setting"], about["num_teachers"]) == (manifest[1], "T=4", 2)
    assert about["class_mask"] == [True] * 10 and about["saw_validation"] is False
    assert about["teacher"] == config_of(home / "assistants")["teacher"]
    assert about["teacher"]["sha256"] == checkpoint.read_manifest(home / "wide/teachers")[1]
    assistant, results = arrays_of(home / "assistants/students"), results_of(student.folder)
    for seed in range(2):  # the setting's runs, and no other's, are the teachers
        logits = logits_of(assistant, seed, digits.test_images)
        errors = int((logits.argmax(axis=1) != digits.test_labels).sum())
        assert results["teacher", seed, "test", "none", "all", "errors"] == errors
        assert results_of(home / "assistants")["T=4", seed, "test", "none", "all", "errors"] == errors
    folders = [done_folder(distil("of_wide", "--teacher=wide", *still)), student.folder / "students"]
    folders.append(done_folder(distil("third", "--teacher=student", *still)))  # one setting needs no name
    kernels = [arrays_of(folder)["hidden_0/kernel"][seed] for folder in folders for seed in range(2)]
    assert all(not np.allclose(a, b, atol=0.1) for i, a in enumerate(kernels) for b in kernels[:i])
    assert config_of(home / "third")["teacher"]["generation"] == 2
    assert config_of(home / "third")["teacher"]["teacher"]["teacher"]["path"] == "wide"


def test_the_gap_of_an_assistant_is_its_settings(distil, assistants):
    words = ["--teacher=assistants", "--teacher_setting=T=4 omit=3", "--omit=3"]
    run = distil("gap", *words, "--epochs=1")
    assert (run.outcome.status, run.outcome.err) == (0, "note: the teacher never saw class 3 either\n")
    assert [k for k, seen in enumerate(config_of(run.folder)["teacher"]["class_mask"]) if not seen] == [3]


def test_what_a_teachers_teacher_saw_is_seen(distil, launch, assistants, home):
    """Validation figures mean less when the split was trained on, by the teacher or by one before it."""
    run = distil("other_split", "--teacher=assistants", "--teacher_setting=T=4", "--validation_fraction=0.2")
    done(run)
    assert config_of(run.folder)["teacher"]["saw_validation"] is True
    words = [*TRAINING, "--model=mlp-8", "--validation_fraction=0"]
    assert launch("train_teacher", *words, "--out=greedy", draw=False).status == 0
    done(distil("of_greedy", "--teacher=greedy"))
    run = distil("of_of_greedy", "--teacher=of_greedy")
    done(run)
    assert config_of(run.folder)["teacher"]["saw_validation"] is True
    assert {key[2] for key in results_of(run.folder) if key[0] == "teacher"} == {"test"}
    sentence = "The teacher, or one that it learnt from, trained on the validation images:"
    assert sentence in (run.folder / "report.md").read_text()


def test_an_assistant_beside_a_teacher(distil, assistants):
    run = distil("beside", "--teacher=wide,assistants", "--teacher_setting=T=4")
    done(run)
    about = config_of(run.folder)["teacher"]
    assert ["setting" in one for one in about["members"]] == [False, True] and about["generation"] == 1


def test_students_of_labels_teach_as_well(distil):
    done(distil("plain", "--loss=labels"))
    run = distil("of_plain", "--teacher=plain", "--loss=hard_label")
    done(run)
    assert config_of(run.folder)["teacher"]["teacher"] is None
