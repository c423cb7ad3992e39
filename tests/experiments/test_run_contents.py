"""What a finished run holds: files, rows, configuration, the printed table."""

import hashlib
import importlib.metadata
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from experiments.cli import provenance
from kd_jax import models
from kd_jax.io import checkpoint
from tests.experiments.launcher import ROOT
from tests.experiments.runs import (
    CLASSES,
    EPOCHS,
    SEEDS,
    SETTINGS,
    STUDENT_FILES,
    TEACHER_FILES,
    Run,
    arrays_of,
    config_of,
    done,
    logits_of,
    read_csv,
    results_of,
)


def test_both_run_folders_hold_what_they_are_to_hold(teacher, sweep):
    for run, files in ((teacher, TEACHER_FILES), (sweep, STUDENT_FILES)):
        done(run)
        assert {path.name for path in run.folder.iterdir()} == files  # and no checkpoints, no temporary file
        names = {"class_bars", "confusion_matrix", "learning_curves"} | (
            {"bias_curve"} if run is sweep else set()
        )
        figures = {f"{name}.png" for name in names}
        assert {path.name for path in (run.folder / "figures").iterdir()} == figures
        for figure in figures:
            with Image.open(run.folder / "figures" / figure) as image:
                assert min(image.size) > 200 and len(np.unique(np.asarray(image))) > 10
        report = (run.folder / "report.md").read_text()
        assert all(f"figures/{figure}" in report for figure in figures)


def test_config_is_complete(launch, teacher, sweep, digits):
    for name, run in (("train_teacher", teacher), ("distill", sweep)):
        config = config_of(run.folder)
        listed = set(re.findall(r"^  --(\w+)", launch(name, "--help").out, re.MULTILINE))
        assert set(config["flags"]) == listed and len(listed) > 20
        assert config["flags"]["out"] == str(run.folder) and config["flags"]["epochs"] == EPOCHS
        assert config["experiment"] == name
        assert config["command"].startswith(f"./launch.sh {name} --model=mlp-16 --epochs=3 ")
        for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy"):
            assert config["versions"][package] == importlib.metadata.version(package)
        assert config["versions"]["kd_jax"].startswith("0.1.0")
        assert config["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert config["device"] == f"2 x cpu (cpu), {os.cpu_count()} CPU cores"
        about = config["data"]
        assert (about["name"], about["fingerprint"]) == ("digits", digits.fingerprint)
        assert (about["train"] + about["validation"], about["test"]) == (1297, 500)
        assert about["class_names"] == [str(k) for k in range(CLASSES)]
    manifest = (teacher.folder / "teachers" / "manifest.json").read_bytes()
    assert config["teacher"]["sha256"] == hashlib.sha256(manifest).hexdigest()
    assert config["teacher"]["num_teachers"] == 2 and config["teacher"]["class_mask"] == [True] * CLASSES
    assert config["teacher"]["flags"] == config_of(teacher.folder)["flags"]
    assert config["teacher"]["saw_validation"] is False


def test_runs_are_settings_times_seeds(teacher, sweep):
    config = config_of(sweep.folder)
    assert {s["name"]: tuple(s["omitted"]) for s in config["settings"]} == SETTINGS
    expected = [
        {"run": run, "setting": setting, "seed": seed, "teacher_seed": seed}
        for run, (setting, seed) in enumerate(itertools.product(SETTINGS, SEEDS))
    ]
    assert config["runs"] == expected
    assert [run["seed"] for run in config_of(teacher.folder)["runs"]] == [*SEEDS]
    assert all(leaf.shape[0] == len(expected) for leaf in arrays_of(sweep.folder / "students").values())
    assert {key[:2] for key in results_of(sweep.folder)} == set(
        itertools.product([*SETTINGS, "teacher"], SEEDS)
    )


def test_history_has_every_epoch_of_every_run(sweep):
    rows = read_csv(sweep.folder / "history.csv")
    assert list(rows[0]) == ["run", "setting", "seed", "epoch", "split", "metric", "value"]
    measured = [("train", m) for m in ("loss", "accuracy", "agreement")]
    measured += [("validation", m) for m in ("loss", "accuracy", "accuracy_omitted")]
    keys = [
        (row["run"], row["setting"], row["seed"], row["epoch"], row["split"], row["metric"]) for row in rows
    ]
    assert sorted(keys) == sorted(
        (str(run), setting, str(seed), str(epoch), *what)
        for run, (setting, seed) in enumerate(itertools.product(SETTINGS, SEEDS))
        for epoch in range(1, EPOCHS + 1)
        for what in measured
    )
    for row in rows:
        assert (row["value"] == "") == (row["metric"] == "accuracy_omitted" and not SETTINGS[row["setting"]])
    results = results_of(sweep.folder)
    for row in rows:  # what the last epoch measured is what the result says, but for an example on an edge
        if row["epoch"] == str(EPOCHS) and (row["split"], row["metric"]) == ("validation", "accuracy"):
            key = (row["setting"], int(row["seed"]), "validation", "none", "all")
            slack = 1.5 / results[*key, "support"]
            assert float(row["value"]) == pytest.approx(results[*key, "accuracy"], abs=slack)


def test_the_omitted_digit_comes_back(sweep):
    results = results_of(sweep.folder)
    for seed in SEEDS:
        assert results["T=4", seed, "test", "none", "all", "accuracy"] > 0.6
        assert results["labels omit=3", seed, "test", "none", "3", "accuracy"] < 0.1
        assert results["labels", seed, "test", "none", "3", "accuracy"] > 0.5
        assert results["T=4 omit=3", seed, "test", "prior_matched", "3", "accuracy"] > 0.3


def test_the_time_is_counted(sweep):
    config = config_of(sweep.folder)
    updates = -(-config["data"]["train"] // 64)
    assert config["time"]["examples"] == len(SETTINGS) * len(SEEDS) * EPOCHS * updates * 64
    assert 0 < config["time"]["training_seconds"] < config["time"]["run_seconds"]


def test_summary_is_students_t_over_the_seeds(sweep):
    results, summary = results_of(sweep.folder), json.loads((sweep.folder / "summary.json").read_text())
    entries = {
        tuple(e[k] for k in ("setting", "split", "correction", "class", "metric")): e
        for e in summary["results"]
    }
    assert {key[:1] + key[2:] for key in results} == set(entries)
    for key, entry in entries.items():
        if key[4].startswith("ensemble_"):  # of the students of all seeds, one value
            assert entry["mean"] == results[key[0], 0, *key[1:]]
            assert (entry["n"], entry["low"], entry["high"]) == (1, None, None)
            continue
        values = [results[key[0], seed, *key[1:]] for seed in SEEDS]
        assert entry["n"] == 2 and entry["mean"] == pytest.approx(np.mean(values), abs=1e-12)
        if np.ptp(values) < 1e-12:  # without a spread there is no such interval: tests/stats/test_summary.py
            continue
        low, high = scipy.stats.t.interval(0.95, 1, np.mean(values), scipy.stats.sem(values))
        assert (entry["low"], entry["high"]) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    pair = next(
        p for p in summary["paired"]
        if (p["a"], p["b"], p["class"], p["metric"]) == ("labels", "T=4", "all", "accuracy")
    )  # fmt: skip
    a, b = (
        [results[name, seed, "test", "none", "all", "accuracy"] for seed in SEEDS]
        for name in ("labels", "T=4")
    )
    assert pair["difference"] == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)
    assert pair["p"] == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, abs=1e-9)


def test_the_table_is_printed_and_masked_settings_are_marked(teacher, sweep):
    lines = done(sweep).out.splitlines()
    assert lines[0] == ("training 8 runs (4 settings x 2 seeds), 3 epochs; Ctrl-C stops and saves")
    table = [line for line in lines[1:] if not line.startswith("epoch ")]
    progress = lines[1 : -len(table)]  # the first segment's, the last's, and whatever took ten seconds
    assert 2 <= len(progress) <= EPOCHS
    accuracy = r"validation accuracy [\d.]+ ± [\d.]+ %  [\d,]+ examples/s"
    duration = r"(\d+ s|[\d:]+)"  # the machine may be busy
    for line, epoch, time in ((progress[0], 1, f"{duration} left"), (progress[-1], 3, f"in {duration}")):
        assert re.fullmatch(rf"epoch {epoch}/3  {time}  {accuracy}  segment {epoch}/3", line)
    last = [
        float(row["value"])
        for row in read_csv(sweep.folder / "history.csv")
        if (row["epoch"], row["split"], row["metric"]) == ("3", "validation", "accuracy")
    ]
    assert f"accuracy {100 * np.mean(last):.2f} ±" in progress[-1]
    results = results_of(sweep.folder)
    under = None
    seen = set()
    for line in table:
        if line in {*SETTINGS, "teacher"}:
            under = line
        elif under and (cells := re.fullmatch(r" (\w+) +([\d.]+) .*", line)):
            correction = cells[1]
            seen.add((under, correction))
            accuracies = [results[under, seed, "test", correction, "all", "accuracy"] for seed in SEEDS]
            assert float(cells[2]) == pytest.approx(100 * np.mean(accuracies), abs=0.0051)
    omitting = [name for name, omitted in SETTINGS.items() if omitted]
    assert len(omitting) == 2  # with a teacher and without one, by the corrections that need no label
    shown = ("none", "prior_matched", "teacher_matched")
    assert seen == {*itertools.product(omitting, shown), ("teacher", "none")}
    assert lines[-1] == f"Report: {sweep.folder / 'report.html'}"
    for run in (teacher, sweep):
        assert not re.search(r"INFO|WARN|Warning|^[IWE]\d{4} ", done(run).out, re.MULTILINE)


def test_checkpoints_rebuild_their_models(teacher, sweep, digits):
    for folder, count in ((teacher.folder / "teachers", 2), (sweep.folder / "students", 8)):
        variables, metadata = checkpoint.load(folder)
        assert metadata["num_models"] == count and metadata["data"]["fingerprint"] == digits.fingerprint
        model = models.build(metadata["model"], metadata["data"]["num_classes"], **metadata["model_options"])
        logits = np.asarray(models.predict_stacked(model, variables, digits.test_images))
        arrays = arrays_of(folder)
        for run in range(count):
            np.testing.assert_allclose(logits[run], logits_of(arrays, run, digits.test_images), atol=1e-4)
    assert metadata["settings"] == config_of(sweep.folder)["settings"]


def test_runs_differ_and_no_student_is_its_teachers_twin(teacher, sweep):
    kernels = arrays_of(sweep.folder / "students")["hidden_0/kernel"]
    teachers = arrays_of(teacher.folder / "teachers")["hidden_0/kernel"]
    # The same model, so that the same key would mean the same weights.
    assert kernels[0].shape == teachers[0].shape
    for one, other in itertools.combinations([*kernels, *teachers], 2):
        assert not np.array_equal(one, other)
    # labels, seed 0, trained as the teacher of seed 0 was: alike only if they began alike.
    assert np.corrcoef(kernels[0].ravel(), teachers[0].ravel())[0, 1] < 0.5
    # Settings share their seeds' beginnings.
    assert np.corrcoef(kernels[0].ravel(), kernels[4].ravel())[0, 1] > 0.5


@pytest.mark.slow
def test_mnist_end_to_end(launch, home, mnist):
    shared = ["--dataset=mnist", "--validation_fraction=0.1", "--epochs=1", "--model=mlp-32"]
    shared += ["--batch_size=256"]
    words = [*shared, "--learning_rate=5e-3", "--out=mnist_teacher"]
    teacher = Run(home / "mnist_teacher", words, launch("train_teacher", *words, draw=False))
    assert "epoch 1/1" in done(teacher).out
    words = [*shared, "--learning_rates=5e-3", "--teacher=mnist_teacher", "--omit=3", "--out=mnist_students"]
    students = Run(home / "mnist_students", words, launch("distill", *words))
    done(students)
    config, results = config_of(students.folder), results_of(students.folder)
    sizes = [config["data"][split] for split in ("train", "validation", "test")]
    assert sizes == [54_001, 5_999, 10_000]
    assert results["teacher", 0, "test", "none", "all", "errors"] < 1_500
    logits = logits_of(arrays_of(students.folder / "students"), 0, mnist.test_images)
    wrong = int(np.sum(logits.argmax(axis=1) != mnist.test_labels))
    assert results["T=4 omit=3", 0, "test", "none", "all", "errors"] == wrong
    assert results["T=4 omit=3", 0, "test", "prior_matched", "3", "accuracy"] > 0.5


def test_the_version_names_the_commit(tmp_path):
    def version_of() -> str:
        return provenance.own_version(tmp_path)

    def git(*words: str) -> str:
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert version_of() == "unknown"
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "7.8"\n')
    assert version_of() == "7.8"
    git("init")
    assert version_of() == "7.8"  # no commit yet
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")
    commit = git("rev-parse", "--short", "HEAD")
    assert version_of() == f"7.8+{commit}"
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "7.9"\n')
    assert version_of() == f"7.9+{commit}.dirty"


@pytest.mark.slow
def test_a_real_start_says_what_the_launcher_says(home, launch, sweep, toy, tmp_path):
    """Nothing that the launcher's process has set or cached makes the difference."""
    command = [sys.executable, "-P", "-m", "experiments.distill", *sweep.words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    folders = {shutil.copytree(sweep.folder, tmp_path / "sweep"): 0, toy.folder: 2}
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            [*command, f"--out={out}"], stdout=pipe, stderr=pipe, text=True, cwd=home, env=environment
        )
        for out in folders
    ]
    outcomes = [(*process.communicate(), process.returncode) for process in started]
    for (out, status), outcome in zip(folders.items(), outcomes, strict=True):
        ours = launch("distill", *sweep.words, f"--out={out}")
        assert outcome == (ours.out, ours.err, status)
