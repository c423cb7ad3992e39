"""Whom students learn from: several folders, and students as teachers of others."""

import contextlib
import hashlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import softmax

from experiments.settings import students as students_
from experiments.settings import teachers as teachers_
from experiments.settings.dataset import split_hash
from kd_jax import data, models
from kd_jax.io import checkpoint
from kd_jax.train import sweep
from tests.experiments.launcher import Launcher
from tests.experiments.runs import (
    Run,
    arrays_of,
    config_of,
    done,
    logits_of,
    results_of,
    splits_of,
    undecided,
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
    def call(out: str, *words: str) -> Run:
        given = [*STUDENTS, *words]
        return Run(home / out, given, launch("distill", *given, f"--out={out}", draw=False))

    return call


def save(folder: Path, digits, spec: str, num: int, **metadata) -> None:
    """A checkpoint of `num` untrained networks that differ, described as train_teacher or distill does."""
    random, model = np.random.RandomState(num), models.build(spec, 10)
    shapes = jax.eval_shape(lambda key: models.init_variables(model, key, (8, 8, 1)), jax.random.key(0))
    draw = lambda leaf: random.normal(0, 0.3, (num, *leaf.shape)).astype(np.float32)  # noqa: E731
    _, validation = data.split_validation(digits.train_labels, 0.1)
    seen = {"name": "digits", "fingerprint": digits.fingerprint, "num_classes": 10}
    common_to_all = {"model": spec, "model_options": {}, "image_shape": [8, 8, 1], "data": seen, "flags": {}}
    common_to_all |= {"validation_split": split_hash(validation), "class_mask": [True] * 10}
    checkpoint.save(folder, jax.tree.map(draw, shapes), common_to_all | metadata)


@pytest.fixture(scope="module")
def teachers(home, digits) -> None:
    """Folders of two structures, two teachers each, under wide/ and deep/; one teacher under lone/."""
    for out, model, seeds in (("wide", "mlp-24", 2), ("deep", "mlp-12-12", 2), ("lone", "mlp-20", 1)):
        save(home / out / "teachers", digits, model, seeds)


@pytest.fixture(scope="module")
def assistants(distil, teachers) -> Run:
    """Students of wide/ that are to teach: of two settings, so that one must be named."""
    return distil("assistants", "--teacher=wide", "--omit=none,3", "--model=mlp-16")


@pytest.fixture(scope="module")
def pair(distil, teachers) -> Run:
    return distil("pair", "--teacher=wide,deep", "--omit=none,3")


@pytest.fixture(scope="module")
def everyone(distil, teachers) -> Run:
    return distil("everyone", "--teacher=wide,deep,lone", "--teacher_seeds=ensemble")


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
            assert errors == pytest.approx(expected, abs=1)  # an example may lie on an edge
            for number, metric in expected:
                key = ("teacher", number, split, "none", "all", metric.replace("errors", "accuracy"))
                assert results[key] == pytest.approx(1 - errors[number, metric] / len(labels), abs=1e-12)


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
    done(everyone)


def test_who_teaches_matters(pair, everyone):
    one, other = (arrays_of(run.folder / "students")["logits/kernel"][:2] for run in (pair, everyone))
    assert not np.allclose(one, other, atol=1e-3)


@pytest.mark.slow
def test_several_folders_are_queried_on_augmented_images(distil, pair):
    run = distil("queried", "--teacher=wide,deep", "--translate=1")
    done(run)
    one, other = (arrays_of(folder / "students")["logits/kernel"][:2] for folder in (run.folder, pair.folder))
    assert not np.allclose(one, other, atol=1e-3)


def test_the_same_teachers_are_the_same_experiment_and_others_are_not(distil, pair, everyone):
    again = distil("pair", "--teacher=wide,deep", "--omit=none,3")
    assert again.outcome.status == 0 and "is complete" in again.outcome.out
    other = distil("pair", "--teacher=deep,wide", "--omit=none,3")
    assert other.outcome.status == 2 and "another teacher" in other.outcome.err


def test_teacher_assistant_student(distil, home, assistants, digits):
    """Each link a checkpoint of the one before, and on record; its students' generation is one more."""
    done(assistants)
    student = distil("student", "--teacher=assistants", "--teacher_setting=T=4")
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
        errors, slack = int((logits.argmax(axis=1) != digits.test_labels).sum()), undecided(logits)
        for found, name in ((results, "teacher"), (results_of(home / "assistants"), "T=4")):
            assert abs(found[name, seed, "test", "none", "all", "errors"] - errors) <= slack
    generations = []
    for words, setting in (("wide", None), ("assistants", "T=4"), ("student", None)):
        of_folder = load(home, digits, words, setting)
        generations.append(students_.generation(of_folder))
    assert generations == [1, 2, 3]
    assert of_folder.info.teacher["teacher"]["path"] == "wide"
    bits = [jax.random.key_data(sweep.run_keys([0], 1, base)).tobytes() for base in (0, *generations)]
    assert len(set(bits)) == 4  # none starts from the weights from which one in its chain did


# --- loaded directly --------------------------------------------------------------------------------------


def load(home: Path, digits, words: str, setting: str | None = None, fraction: float = 0.1):
    """What distill loads, run in `home`."""
    _, validation = data.split_validation(digits.train_labels, fraction)
    with contextlib.chdir(home):
        return teachers_.load(words, setting, "paired", digits, validation)


def students(of: dict | None = None, *settings: tuple[str, list[int]]) -> dict:
    """Metadata of two seeds of each setting (name, omitted classes), taught by a teacher that is `of`."""
    settings = settings or (("T=4", []),)
    numbered = enumerate((name, seed) for name, _ in settings for seed in (0, 1))
    runs = [{"run": run, "setting": name, "seed": seed} for run, (name, seed) in numbered]
    described = [{"name": name, "omitted": omitted} for name, omitted in settings]
    generation = 1 + (of or {}).get("generation", 0)
    return {"settings": described, "runs": runs, "teacher": of, "generation": generation}


def test_the_gap_of_an_assistant_is_its_settings(tmp_path, digits):
    save(tmp_path / "a/students", digits, "mlp-8", 4, **students(None, ("T=4", []), ("T=4 omit=3", [3])))
    both, gap = (load(tmp_path, digits, "a", setting) for setting in ("T=4", "T=4 omit=3"))
    assert [k for k, seen in enumerate(both.info.class_mask) if not seen] == []
    assert [k for k, seen in enumerate(gap.info.class_mask) if not seen] == [3]
    arrays = arrays_of(tmp_path / "a/students")["logits/kernel"]
    np.testing.assert_array_equal(gap.variables[0]["params"]["logits"]["kernel"], arrays[2:])


def test_what_a_teachers_teacher_saw_is_seen(tmp_path, digits):
    """Validation figures mean less when the split was trained on, by the teacher or by one before it."""
    save(tmp_path / "fair/teachers", digits, "mlp-8", 2)
    save(tmp_path / "greedy/teachers", digits, "mlp-8", 2, validation_split=None)
    for teacher, saw in (("fair", False), ("greedy", True)):
        about = load(tmp_path, digits, teacher).info.to_json()
        save(tmp_path / f"of_{teacher}/students", digits, "mlp-8", 2, **students(about))
        of_it = load(tmp_path, digits, f"of_{teacher}").info.to_json()
        assert about["saw_validation"] is of_it["saw_validation"] is saw
    assert load(tmp_path, digits, "of_fair", fraction=0.2).info.saw_validation is True
    # Without a validation split there are no such figures.
    assert load(tmp_path, digits, "of_greedy", fraction=0).info.saw_validation is False


def test_an_assistant_beside_a_teacher(tmp_path, digits):
    save(tmp_path / "wide/teachers", digits, "mlp-24", 2)
    save(tmp_path / "a/students", digits, "mlp-8", 2, **students({"generation": 0, "path": "wide"}))
    about = load(tmp_path, digits, "wide,a", "T=4").info.to_json()
    assert ["setting" in one for one in about["members"]] == [False, True] and about["generation"] == 1


def test_students_of_labels_teach_as_well(tmp_path, digits):
    save(tmp_path / "plain/students", digits, "mlp-8", 2, **students(None, ("labels", [])))
    about = load(tmp_path, digits, "plain").info.to_json()
    assert about["teacher"] is None and about["generation"] == 1
