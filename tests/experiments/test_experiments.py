"""The entry points as a user runs them: what they write, that it is true, that nothing is lost, and that bad
input costs one line.

They run in one process (`Launcher`), each as `python -m experiments.NAME` would: Python and JAX start once.
"""

import csv
import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.stats
from absl import app, flags
from PIL import Image
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support, top_k_accuracy_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.cli import provenance
from kd_jax import data, models, plots
from kd_jax.errors import InputError
from kd_jax.io import checkpoint, examples
from kd_jax.stats.rows import CORRECTIONS
from tests.data import test_tfds

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What an entry point left: exit status (minus the signal that killed it), streams, what was asked."""

    status: int
    out: str = ""
    err: str = ""
    value: Any = None


class Launcher:
    """A process that runs entry points one after another, this file being its program."""

    def __init__(self, folder: Path):
        # Compiling is most of the time.
        quick = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": quick}
        command = [sys.executable, "-P", __file__]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment
        )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.communicate()

    def __call__(
        self,
        name: str,
        *words: object,
        ask: str = "",
        die: str = "",
        before: str = "",
        draw: bool = True,
    ) -> Outcome:
        """Runs experiments.`name` with these flags.

        ask: instead of running its main, evaluate this in the module, its flags being parsed.
        die, before: send the process this signal when it is about to put a file of that name in place.
        draw: whether figures are rendered, which takes longer than all the rest; else their files are empty.
        """
        request: dict[str, Any] = {"name": name, "words": list(map(str, words)), "draw": draw}
        request |= {"ask": ask, "die": die, "before": before}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        return Outcome(**json.loads(reply)) if reply else Outcome(self.process.wait())


def serve() -> None:
    """The launcher's other end: a request a line from stdin, a reply a line to what was stdout at first."""
    app.define_help_flags()
    builtin = set(flags.FLAGS)
    rename, render = os.replace, plots.render
    with os.fdopen(os.dup(1), "w") as replies:
        for line in sys.stdin:
            request = json.loads(line)

            def replace(source: Any, target: Any, request: dict[str, Any] = request) -> None:
                if Path(target).name == request["before"]:
                    os.kill(os.getpid(), signal.Signals[request["die"]])
                rename(source, target)

            os.replace = replace  # type: ignore[assignment]
            plots.render = render if request["draw"] else lambda figure: {"png": b"", "svg": b""}
            print(json.dumps(_captured(request)), file=replies, flush=True)
            # As if never imported: both entry points have a flag --omit.
            for module in [module for module in sys.modules if module.split(".")[0] == "experiments"]:
                del sys.modules[module]
            for flag in set(flags.FLAGS) - builtin:
                delattr(flags.FLAGS, flag)
            flags.FLAGS.unparse_flags()


def _captured(request: dict[str, Any]) -> dict[str, Any]:
    """Whatever is written to file descriptors 1 and 2, by Python or not."""
    seen = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        status, value = _execute(request)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in enumerate(seen, 1):
            os.dup2(old, number)
            os.close(old)
        out.seek(0)
        err.seek(0)
        return {"status": status, "out": out.read().decode(), "err": err.read().decode(), "value": value}


def _execute(request: dict[str, Any]) -> tuple[int, Any]:
    module = f"experiments.{request['name']}"
    try:
        if request["ask"]:
            namespace = runpy.run_module(module)
            flags.FLAGS([module, *request["words"]])
            return 0, eval(request["ask"], namespace)
        sys.argv = [module, *request["words"]]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0, None
    except SystemExit as exit:
        return (exit.code if isinstance(exit.code, int) else int(exit.code is not None)), None
    except InputError as error:
        return 2, str(error)
    except BaseException:
        traceback.print_exc()
        return 1, None


# --- what all tests share: one teacher, one sweep of students -------------------------------------------

SEEDS, EPOCHS, CLASSES = range(2), 3, 10
TRAINING = ["--model=mlp-16", "--epochs=3", "--batch_size=64", "--seeds=2", "--checkpoint_every=1"]
SETTINGS = {"labels": (), "T=4": (), "labels omit=3": (3,), "T=4 omit=3": (3,)}
TEACHER_FILES = {
    "SHA256SUMS",
    "config.json",
    "history.csv",
    "results.csv",
    "confusions.npz",
    "summary.json",
    "report.md",
    "report.html",
    "figures",
    "teachers",
}
STUDENT_FILES = TEACHER_FILES - {"teachers"} | {"students", "bias_curve.csv", "examples.npz"}


class Run(NamedTuple):
    """A finished run: its folder, the flags that made it but for --out, and what it printed."""

    folder: Path
    words: list[str]
    outcome: Outcome


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """The folder that everything here lies in, entry points' working folder."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="session")
def launch(home) -> Iterator[Launcher]:
    with Launcher(home) as launcher:
        yield launcher


@pytest.fixture(scope="session")
def teacher(launch, home) -> Run:
    words = [*TRAINING, "--learning_rate=1e-2"]
    return Run(home / "teacher", words, launch("train_teacher", *words, f"--out={home / 'teacher'}"))


@pytest.fixture(scope="session")
def sweep(launch, home, teacher) -> Run:
    words = [*TRAINING, "--learning_rates=1e-2", f"--teacher={teacher.folder}", "--temperatures=4"]
    words += ["--alphas=0,1", "--omit=none,3"]
    return Run(home / "sweep", words, launch("distill", *words, f"--out={home / 'sweep'}"))


@pytest.fixture(scope="session")
def toy(launch, home) -> Run:
    """A teacher of a dataset of the user's own: 3 classes, which a line of 4 pixels in 6 x 5 tells apart;
    half of the examples are of class 1."""
    order = np.random.RandomState(0)
    images = order.randint(0, 90, (90, 6, 5)).astype(np.uint8)
    labels = np.tile([0, 1, 1, 1, 2, 2], 15)
    images[np.arange(90), labels, :4] = 255
    parts: Any = {"train_images": images[:60], "train_labels": labels[:60]}
    np.savez(home / "toy.npz", **parts, test_images=images[60:], test_labels=labels[60:])
    words = ["--dataset=toy.npz", "--model=mlp-8", "--epochs=2", "--batch_size=8", "--learning_rate=0.05"]
    words += ["--seeds=2"]
    return Run(home / "toy", words, launch("train_teacher", *words, "--out=toy"))


@pytest.fixture
def distil(launch, home, toy, tmp_path):
    """distil(flags...) runs small students of the toy teacher, four if nothing else is said -> Run."""

    def call(*words: str, out: str = "", draw: bool = False) -> Run:
        folder = Path(out or tmp_path / f"run{len(list(tmp_path.iterdir()))}")
        given = [
            *toy.words[:4],
            "--learning_rates=0.05",
            "--seeds=2",
            "--omit=none,1",
            f"--teacher={toy.folder}",
        ]
        given += words
        return Run(folder, given, launch("distill", *given, f"--out={folder}", draw=draw))

    return call


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def results_of(folder: Path) -> dict[tuple[str, int, str, str, str, str], float]:
    """(setting, seed, split, correction, class, metric) -> value, every row of results.csv."""
    names = ("setting", "seed", "split", "correction", "class", "metric")
    rows = read_csv(folder / "results.csv")
    assert all(list(row) == [*names, "value"] for row in rows)
    found = {tuple(row[name] for name in names): float(row["value"] or "nan") for row in rows}
    assert len(found) == len(rows)
    return {(key[0], int(key[1]), *key[2:]): value for key, value in found.items()}  # type: ignore[misc]


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """The parameters of a checkpoint, by "layer/kernel" and "layer/bias", leading axis R."""
    variables, _ = checkpoint.load(folder)
    assert set(variables) == {"params"}
    return {
        f"{layer}/{name}": leaf
        for layer, leaves in variables["params"].items()
        for name, leaf in leaves.items()
    }


def same_arrays(one: Path, other: Path) -> bool:
    first, second = arrays_of(one), arrays_of(other)
    return first.keys() == second.keys() and all(
        first[key].tobytes() == second[key].tobytes() for key in first
    )


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def logits_of(arrays: dict[str, np.ndarray], run: int, images: np.ndarray) -> np.ndarray:
    """f64[N,K] of the dense network `run`, by NumPy alone."""
    x = images.reshape(len(images), -1) / 255.0
    for layer in sorted({key.split("/")[0] for key in arrays} - {"logits"}):
        x = np.maximum(x @ arrays[f"{layer}/kernel"][run] + arrays[f"{layer}/bias"][run], 0)
    return x @ arrays["logits/kernel"][run] + arrays["logits/bias"][run]


def splits_of(dataset: data.Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    _, validation = data.split_validation(dataset.train_labels, 0.1)
    held_out = dataset.train_images[validation], dataset.train_labels[validation]
    return {"validation": held_out, "test": (dataset.test_images, dataset.test_labels)}


def done(run: Run) -> Outcome:
    """The outcome of a run that is to have gone well and quietly."""
    assert run.outcome.status == 0 and run.outcome.err == "", run.outcome
    return run.outcome


# --- 1. what a run leaves, and that it is true ----------------------------------------------------------


def test_both_run_folders_hold_what_they_are_to_hold(teacher, sweep):
    for run, files in ((teacher, TEACHER_FILES), (sweep, STUDENT_FILES)):
        done(run)
        assert {path.name for path in run.folder.iterdir()} == files  # and no checkpoints, no temporary file
        names = {"class_bars", "confusion_matrix", "learning_curves"} | (
            {"bias_curve"} if run is sweep else set()
        )
        figures = {f"{name}.png" for name in names}
        assert {path.name for path in (run.folder / "figures").iterdir()} == figures | {
            f"{name}.svg" for name in names
        }
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
    for row in rows:  # what the last epoch measured is what the result says
        if row["epoch"] == str(EPOCHS) and (row["split"], row["metric"]) == ("validation", "accuracy"):
            key = (row["setting"], int(row["seed"]), "validation", "none", "all", "accuracy")
            assert float(row["value"]) == results[key]


def check_confusion(
    results: dict, key: tuple, predicted: np.ndarray, labels: np.ndarray, omitted: tuple
) -> None:
    """Every row of one run, split and correction that its predictions decide, against NumPy's predictions and
    scikit-learn."""
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


def matrices_of(folder: Path) -> dict[tuple[str, int, str], np.ndarray]:
    """confusions.npz by setting, seed and correction."""
    with np.load(folder / "confusions.npz", allow_pickle=False) as held:
        keys = zip(*(held[key].tolist() for key in ("setting", "seed", "correction")), strict=True)
        return dict(zip(keys, held["counts"], strict=True))


QUALITY = ("top5_accuracy", "nll", "ece", "agreement", "kl_to_teacher")


def check_quality(
    results: dict, key: tuple, logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None
) -> None:
    """The rows of one run and split that its probabilities decide, against SciPy and scikit-learn."""
    log_p = log_softmax(logits, axis=1)
    expected = {
        "top5_accuracy": top_k_accuracy_score(labels, logits, k=5, labels=range(CLASSES)),
        "nll": pytest.approx(log_loss(labels, np.exp(log_p), labels=range(CLASSES)), rel=1e-4),
    }
    if teacher_logits is not None:
        expected["agreement"] = np.mean(logits.argmax(axis=1) == teacher_logits.argmax(axis=1))
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
    checked = set()
    for (setting, omitted), seed, split in itertools.product(SETTINGS.items(), SEEDS, splits):
        images, labels = splits[split]
        logits = logits_of(students, [*SETTINGS].index(setting) * len(SEEDS) + seed, images)
        for correction in CORRECTIONS if omitted else ["none"]:
            key = (setting, seed, split, correction)
            bias = results.get((*key, "omitted", "bias"), 0.0)
            biased = logits + bias * np.isin(np.arange(CLASSES), omitted)
            check_confusion(results, key, np.argmax(biased, axis=1), labels, omitted)
            if split == "test":
                called = confusion_matrix(labels, np.argmax(biased, axis=1), labels=range(CLASSES))
                np.testing.assert_array_equal(matrices[sweep.folder].pop((setting, seed, correction)), called)
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
            check_confusion(rows, key, np.argmax(logits, axis=1), labels, ())
            check_quality(rows, key, logits, labels, None)
        if split == "test":
            called = confusion_matrix(labels, np.argmax(logits, axis=1), labels=range(CLASSES))
            for of_run in matrices.values():
                np.testing.assert_array_equal(of_run.pop(("teacher", seed, "none")), called)
        checked.add(key)
    assert {key[:4] for key in results} == checked and not any(matrices.values())


def test_students_of_a_setting_answer_together(teacher, sweep, digits):
    """By the mean of their probabilities; so do the teachers of all seeds in their own folder."""
    results, splits = results_of(sweep.folder), splits_of(digits)
    students = arrays_of(sweep.folder / "students")
    tested = [(results, students, name, 2 * h, omitted) for h, (name, omitted) in enumerate(SETTINGS.items())]
    tested.append((results_of(teacher.folder), arrays_of(teacher.folder / "teachers"), "teacher", 0, ()))
    for (found, arrays, setting, first, omitted), split in itertools.product(tested, splits):
        images, labels = splits[split]
        each = [softmax(logits_of(arrays, first + seed, images), axis=1) for seed in SEEDS]
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


def test_biases_are_what_their_names_say(sweep, digits):
    results, splits = results_of(sweep.folder), splits_of(digits)
    students = arrays_of(sweep.folder / "students")
    shares = np.bincount(digits.train_labels) / len(digits.train_labels)
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
            fewest = min(np.sum(~np.where(margins[split] < b, labels == 3, kept_right)) for b in tried)
            assert errors(split, correction) == fewest
        called = int(np.sum(margins["validation"] < bias("prior_matched")))
        assert called == round(shares[3] * len(margins["validation"]))
        assert len({bias(correction) for correction in CORRECTIONS}) > 3


def test_students_see_what_they_may_see_and_no_more(launch, home, toy, tmp_path):
    """Other pixels in what is left out, and in the test set, change nothing but what is measured there."""
    with np.load(home / "toy.npz") as held:
        changed = dict(held)
        original = held["train_images"]
    train, validation = data.split_validation(changed["train_labels"], 0.1)
    hidden = train[changed["train_labels"][train] == 1]
    for name, index in (("train_images", hidden), ("test_images", slice(None))):
        changed[name][index] = 255 - changed[name][index]
    np.savez(tmp_path / "changed.npz", **changed)
    # The very same teachers, said to be of the changed data, for they are not to change with them.
    variables, about = checkpoint.load(toy.folder / "teachers")
    about["data"]["fingerprint"] = data.load(tmp_path / "changed.npz").fingerprint
    checkpoint.save(tmp_path / "teacher" / "teachers", variables, about)
    runs = []
    places = {"as_was": ("toy.npz", toy.folder), "changed": (tmp_path / "changed.npz", tmp_path / "teacher")}
    for name, (path, teacher) in places.items():
        words = [f"--dataset={path}", *toy.words[1:4], "--seeds=2", "--learning_rates=0.05"]
        words += [f"--teacher={teacher}", "--omit=none,1"]
        run = Run(tmp_path / name, words, launch("distill", *words, f"--out={tmp_path / name}", draw=False))
        done(run)
        runs.append((arrays_of(run.folder / "students"), results_of(run.folder)))
    (arrays, results), (changed_arrays, changed_results) = runs
    for name, array in arrays.items():
        assert np.array_equal(array[2:], changed_arrays[name][2:])  # T=4 omit=1
        assert not np.array_equal(array[:2], changed_arrays[name][:2])  # T=4
    for seed in SEEDS:
        for key, value in results.items():
            if key[:3] == ("T=4 omit=1", seed, "validation") and key[3] != "test_tuned":
                assert changed_results[key] == value
        biases = [
            [found["T=4 omit=1", seed, "test", correction, "omitted", "bias"] for correction in CORRECTIONS]
            for found in (results, changed_results)
        ]
        others = [position for position, name in enumerate(CORRECTIONS) if name != "test_tuned"]
        assert [biases[0][position] for position in others] == [biases[1][position] for position in others]
        assert biases[0][CORRECTIONS.index("test_tuned")] != biases[1][CORRECTIONS.index("test_tuned")]
        # The prior is that of the classes, not the same for each: half of the six are of class 1.
        logits = logits_of(arrays, 2 + seed, original[validation])
        logits[:, 1] += biases[0][CORRECTIONS.index("prior_matched")]
        assert len(validation) == 6 and np.sum(logits.argmax(axis=1) == 1) == 3


def test_the_digit_that_was_left_out_comes_back(sweep):
    results = results_of(sweep.folder)
    for seed in SEEDS:
        assert results["T=4", seed, "test", "none", "all", "accuracy"] > 0.6
        assert results["labels omit=3", seed, "test", "none", "3", "accuracy"] < 0.1
        assert results["labels", seed, "test", "none", "3", "accuracy"] > 0.5
        assert results["T=4 omit=3", seed, "test", "prior_matched", "3", "accuracy"] > 0.3


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
    for row in rows:
        if (row["setting"], row["seed"]) == ("labels omit=3", "1"):
            labels, part = digits.test_labels, row["class"]
            named = {"all": labels >= 0, "omitted": labels == 3, "seen": labels != 3}
            members = named[part] if part in named else labels == int(part)
            biased = logits + float(row["bias"]) * (np.arange(CLASSES) == 3)
            assert float(row["accuracy"]) == np.mean(biased[members].argmax(axis=1) == labels[members])


def test_examples_are_images_that_a_student_gets_wrong(sweep, digits):
    found = examples.read(sweep.folder, CLASSES)
    assert (found.setting, found.seed, found.correction) == ("T=4 omit=3", 0, "teacher_matched")
    logits = logits_of(arrays_of(sweep.folder / "students"), 6, digits.test_images)
    key = (found.setting, 0, "test", found.correction, "omitted", "bias")
    biased = logits + results_of(sweep.folder)[key] * (np.arange(CLASSES) == 3)
    before, after = logits.argmax(axis=1), biased.argmax(axis=1)
    wrong = (digits.test_labels == 3) & (before != 3)
    rescued, lost = np.flatnonzero(wrong & (after == 3)), np.flatnonzero(wrong & (after != 3))
    np.testing.assert_array_equal(found.number, [*rescued[:24], *lost[:24]])
    np.testing.assert_array_equal(found.images, digits.test_images[found.number])
    np.testing.assert_array_equal(found.before, before[found.number])
    np.testing.assert_array_equal(found.after, after[found.number])
    assert len(found.number) and np.all(found.labels == 3)


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
        if heading := re.fullmatch(r"(.*)  \(n = 2\)", line):
            under = heading[1]
        elif under and (cells := re.fullmatch(r" (\w+)(!?) +([\d.]+) .*", line)):
            correction = cells[1]
            seen.add((under, correction))
            assert (cells[2] == "!") == (correction == "test_tuned")
            assert ("*" in line) == bool(SETTINGS.get(under))
            errors = [results[under, seed, "test", correction, "all", "errors"] for seed in SEEDS]
            assert float(cells[3]) == np.mean(errors)
    assert seen == {
        (name, c) for name, omitted in SETTINGS.items() for c in (CORRECTIONS if omitted else ["none"])
    } | {("teacher", "none")}
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


# --- 2. real MNIST --------------------------------------------------------------------------------------


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


# --- 3. the grid ----------------------------------------------------------------------------------------

OF_SETTINGS = "__import__('experiments.settings', fromlist=['distill', 'augmentation'])"
PARSED = f"{OF_SETTINGS}.distill.parse_settings(shared.read({OF_SETTINGS}.distill.Lists), '0123456789')"


@pytest.fixture
def settings(launch):
    """settings(flags...) -> [(name, missing, temperature, alpha, learning rate, weight decay)], or error."""
    ask = f"[setting[:6] for setting in {PARSED}]"
    return lambda *words: launch("distill", *words, ask=ask).value


def test_settings_are_the_product_of_the_lists(settings):
    found = settings("--temperatures=1,4", "--alphas=0.5,1", "--omit=none,3,7+8", "--weight_decays=0,1e-4")
    names = [name for name, *_ in found]
    assert len(found) == len(set(names)) == 2 * 2 * 3 * 2
    assert {tuple(rest) for _, omitted, *rest in found} == set(
        itertools.product((1.0, 4.0), (0.5, 1.0), (1e-3,), (0.0, 1e-4))
    )
    assert ["T=4 alpha=0.5 wd=0.0001 omit=7+8", [7, 8], 4.0, 0.5, 1e-3, 1e-4] in found
    assert names[0] == "T=1 alpha=0.5 wd=0"  # no word about what does not vary


def test_settings_by_default(settings):
    assert settings() == [["T=4", [], 4.0, 1.0, 1e-3, 0.0]]


def test_settings_that_are_the_same_come_once(settings):
    assert [name for name, *_ in settings("--temperatures=1,4", "--alphas=0,1")] == ["labels", "T=1", "T=4"]
    assert [name for name, *_ in settings("--temperatures=1,4", "--alphas=0,1", "--loss=labels")] == [
        "labels"
    ]
    found = settings("--temperatures=1,4", "--alphas=0.5,1", "--loss=hard_label")
    assert [name for name, *_ in found] == ["hard_label alpha=0.5", "hard_label"]


def test_settings_say_nothing_of_what_has_no_part_in_them(settings):
    found = settings("--temperatures=4,9", "--alphas=0,1", "--omit=none,3")
    assert [(name, t) for name, _, t, *_ in found] == [
        ("labels", None),
        ("T=4", 4.0),
        ("T=9", 9.0),
        ("labels omit=3", None),
        ("T=4 omit=3", 4.0),
        ("T=9 omit=3", 9.0),
    ]
    assert settings("--loss=labels") == [["labels", [], None, 0.0, 1e-3, 0.0]]
    # The argmax has no temperature; the mean of an ensemble is taken at 1.
    found = settings("--loss=hard_label", "--temperatures=9", "--alphas=0.5")
    assert found == [["hard_label alpha=0.5", [], 1.0, 0.5, 1e-3, 0.0]]


def test_settings_that_differ_little_stay_apart(settings):
    found = settings("--temperatures=4,4.0000019", "--learning_rates=0.1,0.10000001")
    assert len(found) == len({name for name, *_ in found}) == 4


def test_what_is_left_of_a_class_and_what_is_heard_are_settings(launch):
    ask = f"[setting.described() for setting in {PARSED}]"
    words = ["--omit=none,3", "--shots=0,5", "--teacher_ablations=full,top1", "--alphas=0,1"]
    found = launch("distill", *words, ask=ask).value
    assert [(s["name"], s.get("shots"), s.get("teacher_ablation")) for s in found] == [
        ("labels", None, None),
        ("T=4", None, None),
        ("T=4 top1", None, "top1"),
        ("labels omit=3", None, None),
        ("T=4 omit=3", None, None),
        ("T=4 omit=3 top1", None, "top1"),
        ("labels omit=3 shots=5", 5, None),
        ("T=4 omit=3 shots=5", 5, None),
        ("T=4 omit=3 shots=5 top1", 5, "top1"),
    ]
    # Where nothing is missing, nothing can be removed.
    words = ["--omit=none,3", "--teacher_ablations=full,omitted_removed"]
    assert [s["name"] for s in launch("distill", *words, ask=ask).value] == [
        "T=4",
        "T=4 omit=3",
        "T=4 omit=3 omitted_removed",
    ]


def test_omit_and_keep_together(settings):
    found = settings("--omit=none,3", "--seen=7+8")
    rest = [0, 1, 2, 3, 4, 5, 6, 9]
    assert [(name, omitted) for name, omitted, *_ in found] == [
        ("T=4", []),
        ("T=4 omit=3", [3]),
        ("T=4 seen=7+8", rest),
    ]
    assert [(name, omitted) for name, omitted, *_ in settings("--seen=7+8")] == [("T=4 seen=7+8", rest)]
    assert settings("--omit=8+7, 3")[0][:2] == ["T=4 omit=7+8", [7, 8]]  # in any order, spaces allowed


def test_labels_need_no_teacher(launch, home, toy, tmp_path):
    words = [
        *toy.words[:4],
        "--loss=labels",
        "--seeds=2",
        "--omit=1",
        "--seen=0+1",
        f"--out={tmp_path / 'run'}",
    ]
    run = Run(tmp_path / "run", words, launch("distill", *words))
    done(run)
    config, results = config_of(run.folder), results_of(run.folder)
    assert config["teacher"] is None and {r["teacher_seed"] for r in config["runs"]} == {None}
    assert {s["temperature"] for s in config["settings"]} == {None}
    assert {key[0] for key in results} == {"labels omit=1", "labels seen=0+1"}
    assert {key[3] for key in results} == {*CORRECTIONS} - {"teacher_matched"}
    assert "agreement" not in {row["metric"] for row in read_csv(run.folder / "history.csv")}


def test_hard_label_follows_the_teachers_answers(distil, toy):
    run = distil("--loss=hard_label", "--alphas=0,1", "--omit=none")
    done(run)
    assert [s["name"] for s in config_of(run.folder)["settings"]] == ["labels", "hard_label"]
    kernels = arrays_of(run.folder / "students")["logits/kernel"]
    # The toy teachers err, so their answers are not the labels.
    assert not np.array_equal(kernels[0], kernels[2])


def test_the_answer_of_an_ensemble_has_no_temperature(launch, teacher, tmp_path):
    words = [*TRAINING, "--learning_rates=1e-2", f"--teacher={teacher.folder}", "--epochs=1"]
    words += ["--loss=hard_label", "--teacher_seeds=ensemble"]
    for name in ("0.01", "100"):
        outcome = launch("distill", *words, f"--temperatures={name}", f"--out={tmp_path / name}", draw=False)
        assert outcome.status == 0
    assert same_arrays(tmp_path / "0.01" / "students", tmp_path / "100" / "students")


def test_validation_that_the_teacher_trained_on_is_not_shown_as_such(distil, toy, tmp_path):
    def rows(run):
        done(run)
        splits = {key[2] for key in results_of(run.folder) if key[0] == "teacher"}
        return splits, config_of(run.folder)["teacher"]["saw_validation"]

    assert rows(distil("--omit=none")) == ({"validation", "test"}, False)
    assert rows(distil("--omit=none", "--validation_fraction=0.3")) == ({"test"}, True)
    assert rows(distil("--omit=none", "--validation_fraction=0")) == ({"test"}, False)
    # A teacher that does not say what it was trained on.
    variables, about = checkpoint.load(toy.folder / "teachers")
    assert re.fullmatch("[0-9a-f]{64}", about.pop("validation_split"))
    checkpoint.save(tmp_path / "old" / "teachers", variables, about)
    assert rows(distil("--omit=none", f"--teacher={tmp_path / 'old'}")) == ({"test"}, True)


def test_a_class_that_the_teacher_never_saw_either_is_noted(launch, distil, toy, tmp_path):
    words = [*toy.words, "--epochs=1", "--omit=2", f"--out={tmp_path / 'teacher'}"]
    assert launch("train_teacher", *words, draw=False).status == 0
    for omit, note in (
        ("none,1,1+2", "note: the teacher never saw class 2 either\n"),
        ("none,1", ""),
    ):
        outcome = distil("--epochs=1", f"--omit={omit}", f"--teacher={tmp_path / 'teacher'}").outcome
        assert (outcome.status, outcome.err) == (0, note)


def test_which_teacher_a_student_learns_from(distil):
    kernels = []
    expected: dict[str, tuple] = {
        "paired": ([0, 1, 0, 1], 2),
        "first": ([0] * 4, 1),
        "ensemble": ([None] * 4, 2),
    }
    for how, (seeds, count) in expected.items():
        run = distil(f"--teacher_seeds={how}")
        done(run)
        config = config_of(run.folder)
        assert [r["teacher_seed"] for r in config["runs"]] == seeds
        assert config["teacher"]["num_teachers"] == count
        assert {key[1] for key in results_of(run.folder) if key[0] == "teacher"} == set(range(count))
        kernels.append(arrays_of(run.folder / "students")["logits/kernel"])
    for run in range(4):
        assert np.allclose(kernels[0][run], kernels[1][run], atol=1e-5) == (run % 2 == 0)
        assert not np.allclose(kernels[0][run], kernels[2][run], atol=1e-5)


def test_jitter_queries_the_teacher(launch, distil, toy):
    ask = """(lambda study, plan: [
        study.students.with_teachers(plan.tables[0], plan.teacher, plan.queried).teacher_logits is None,
        study.students.with_teachers(plan.tables[0], plan.teacher, plan.queried).teacher_variables is None,
    ])(STUDY, STUDY.make_plan(
        shared.run_config('', ''),
        shared.read(STUDY.Lists),
        shared.read(STUDY.DistillConfig),
        shared.values(),
    ))""".replace("STUDY", "__import__('experiments.studies.distill', fromlist=['x'])")
    words = [*toy.words[:4], f"--teacher={toy.folder}", "--model=mlp-8", "--out=x"]
    assert launch("distill", *words, ask=ask).value == [False, True]
    assert launch("distill", *words, "--translate=1", ask=ask).value == [True, False]
    # Student and teacher stand still, so that they agree on other examples because the images are shifted.
    agreements = []
    for words in ([], ["--translate=2"]):
        run = distil("--learning_rates=1e-30", "--epochs=1", *words)
        done(run)
        agreements.append(
            [r["value"] for r in read_csv(run.folder / "history.csv") if r["metric"] == "agreement"]
        )
    assert agreements[0] != agreements[1]


@pytest.mark.parametrize("flag", ["--rotate=1", "--stretch=0.1", "--flip", "--cutout=1", "--mixup=1"])
def test_every_augmentation_queries_the_teacher(launch, toy, flag):
    words = [*toy.words[:4], f"--teacher={toy.folder}", "--model=mlp-8", "--out=x"]
    ask = f"{OF_SETTINGS}.augmentation.augments(shared.run_config('', ''))"
    assert launch("distill", *words, ask=ask).value is False
    assert launch("distill", *words, flag, ask=ask).value is True


def test_students_may_begin_as_their_teachers_did(launch, toy, distil, tmp_path):
    """Adam at a rate of 1e-12 moves nothing: what is saved is where each run began."""
    words = [*toy.words[:4], "--learning_rate=1e-12", "--seeds=2", f"--out={tmp_path / 'teacher'}"]
    done(Run(tmp_path / "teacher", words, launch("train_teacher", *words, draw=False)))
    still = [f"--teacher={tmp_path / 'teacher'}", "--learning_rates=1e-12", "--omit=1"]
    run = distil(*still, "--student_init=random,teacher")
    done(run)
    assert [s.get("student_init") for s in config_of(run.folder)["settings"]] == [None, "teacher"]
    theirs, ours = arrays_of(tmp_path / "teacher" / "teachers"), arrays_of(run.folder / "students")
    for name in ("hidden_0/kernel", "logits/kernel"):
        own, shared = ours[name][:2], ours[name][2:]
        np.testing.assert_allclose(shared, theirs[name], atol=1e-8)
        assert np.abs(own - theirs[name]).max(axis=(1, 2)).min() > 0.1
    alone = arrays_of(
        distil(*still, "--student_init=random").folder / "students"
    )  # a word changes no other's draws
    np.testing.assert_array_equal(alone["logits/kernel"], ours["logits/kernel"][:2])
    refused = distil(*still, "--student_init=teacher", "--model=mlp-9")
    assert refused.outcome.status == 2
    assert (
        "--student_init=teacher needs its network: expected --model=mlp-8; given mlp-9" in refused.outcome.err
    )


def test_teacher_and_student_have_a_normalisation_each(launch, home, toy, distil, tmp_path):
    """The teacher's is in its checkpoint, with which distil asks it; the student's is none."""
    words = [*toy.words, "--normalize=data", f"--out={tmp_path / 'teacher'}"]
    done(Run(tmp_path / "teacher", words, launch("train_teacher", *words, draw=False)))
    with np.load(home / "toy.npz") as file:
        images, labels = file["test_images"], file["test_labels"]
        train, _ = data.split_validation(file["train_labels"], 0.1)
        pixels = file["train_images"][train] / 255.0
    _, metadata = checkpoint.load(tmp_path / "teacher" / "teachers")
    mean, std = metadata["model_options"]["normalize"]
    np.testing.assert_allclose([mean, std], [[pixels.mean()], [pixels.std()]], rtol=1e-12)
    run = distil(f"--teacher={tmp_path / 'teacher'}")
    done(run)
    _, metadata = checkpoint.load(run.folder / "students")
    assert metadata["model_options"]["normalize"] is None
    arrays = arrays_of(tmp_path / "teacher" / "teachers")
    normalised = (images - 255 * mean[0]) / std[0]  # `logits_of` divides by 255
    for folder in (tmp_path / "teacher", run.folder):
        for seed in range(2):
            wrong = np.sum(np.argmax(logits_of(arrays, seed, normalised), axis=-1) != labels)
            assert results_of(folder)["teacher", seed, "test", "none", "all", "errors"] == wrong


def test_no_validation_split(distil):
    run = distil("--validation_fraction=0", draw=True)
    assert " train accuracy " in done(run).out
    config, results = config_of(run.folder), results_of(run.folder)
    assert (config["data"]["train"], config["data"]["validation"]) == (60, 0)
    assert {key[2] for key in results} == {"test"}
    assert {key[3] for key in results} == {"none", "test_tuned", "teacher_matched"}
    assert {row["split"] for row in read_csv(run.folder / "history.csv")} == {"train"}


@pytest.mark.parametrize("vmap_size", [0, 3])
def test_chunks_give_the_same_results(launch, home, sweep, vmap_size):
    folder = home / f"chunk{vmap_size}"
    words = [*sweep.words, f"--vmap_size={vmap_size}", f"--out={folder}"]
    done(Run(folder, words, launch("distill", *words, draw=False)))
    chunked = arrays_of(folder / "students")
    for name, array in arrays_of(sweep.folder / "students").items():
        np.testing.assert_allclose(chunked[name], array, atol=1e-3)
    ours, theirs = results_of(folder), results_of(sweep.folder)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():  # an example or two may lie on an edge
        slack = {"errors": 2, "bias": 0.02}.get(key[5], 0.05 if "accuracy" in key[5] else 2)
        assert ours[key] == pytest.approx(value, abs=slack), key


@pytest.mark.parametrize(
    "words",
    [
        # More than the data hold, which are wrapped around; and no hidden layer.
        ["--batch_size=1000", "--schedule=constant", "--model=mlp"],
        ["--batch_size=7", "--epochs=3", "--checkpoint_every=2", "--optimizer=sgd", "--schedule=steps"],
        ["--rotate=10", "--stretch=0.1", "--translate=1", "--max_norm=1"],
        [
            "--flip",
            "--cutout=2",
            "--mixup=0.4",
            "--translate=1",
            "--normalize=data",
            "--teacher_seeds=ensemble",
        ],
        ["--precision=bfloat16", "--optimizer=adamw", "--schedule=warmup_cosine", "--dropout=0.5"],
        ["--seen=0", "--omit=none", "--temperatures=1e-2,1e4", "--weight_decays=1e-3"],
    ],
    ids=lambda words: words[0],
)
def test_flags_that_are_to_work(distil, words):
    run = distil(*words, draw=True)
    done(run)
    assert all(np.isfinite(leaf).all() for leaf in arrays_of(run.folder / "students").values())


def test_a_run_that_diverges_is_left_out_and_leaves_the_others_alone(distil):
    run = distil("--learning_rates=0.05,1e30", "--omit=1", "--tensorboard", draw=True)
    assert run.outcome.status == 0
    assert run.outcome.err.startswith("note: 2 of 4 runs diverged")
    said = " ".join(run.outcome.out.split())
    assert "2 of 4 runs diverged and are left out of all means: T=4 lr=1e+30 omit=1 (2)." in said
    calm = distil("--learning_rates=0.05,0.06", "--omit=1")
    done(calm)
    results, undisturbed = results_of(run.folder), results_of(calm.folder)
    same = {key: value for key, value in results.items() if "lr=0.05" in key[0]}
    assert same and all(undisturbed[key] == value for key, value in same.items())
    bad = {key: value for key, value in results.items() if "lr=1e+30" in key[0]}
    row = ("test", "none", "all", "diverged")
    assert bad == {("T=4 lr=1e+30 omit=1", seed, *row): 1 for seed in range(2)}
    seen, beside = (arrays_of(folder.folder / "students") for folder in (run, calm))
    for name, leaf in seen.items():
        assert np.isfinite(leaf).all()
        np.testing.assert_array_equal(leaf[:2], beside[name][:2])
    for name in ("history.csv", "bias_curve.csv"):
        assert {row["setting"] for row in read_csv(run.folder / name)} == {"T=4 lr=0.05 omit=1"}
    refused = distil(f"--teacher={run.folder}", "--teacher_setting=T=4 lr=1e+30 omit=1").outcome
    assert refused.status == 2 and "diverged" in refused.err and refused.err.count("\n") == 1
    assert distil(f"--teacher={run.folder}", "--teacher_setting=T=4 lr=0.05 omit=1").outcome.status == 0


def test_where_all_diverge_the_report_says_so(distil):
    run = distil("--learning_rates=1e30", draw=True)
    assert run.outcome.status == 0 and "There is no answer: all 4 runs diverged." in run.outcome.out
    assert "There is no answer" in (run.folder / "report.html").read_text()


def test_quietly_and_for_tensorboard(launch, distil):
    """Nothing on stdout, all the files; TensorBoard's are made anew, not added to, by the same command."""
    run = distil("--quiet", "--tensorboard", "--checkpoint_every=1")
    assert done(run).out == "" and (run.folder / "report.md").is_file()
    seeds: dict[tuple[str, str, int], list[float]] = {}
    for row in read_csv(run.folder / "history.csv"):
        if row["metric"] == "accuracy":
            key = row["setting"], f"accuracy/{row['split']}", int(row["epoch"])
            seeds.setdefault(key, []).append(float(row["value"]))
    for (setting, _, *rest), value in results_of(run.folder).items():
        if rest == ["test", "none", "all", "accuracy"] and setting != "teacher":
            seeds.setdefault((setting, "test/accuracy", 2), []).append(value)
    expected = {key: pytest.approx(np.mean(values)) for key, values in seeds.items()}
    assert len(expected) == 2 * (2 + 2 + 1)
    for _ in range(2):
        found = []
        for folder in (run.folder / "tensorboard").iterdir():
            events = EventAccumulator(str(folder))
            events.Reload()
            for tag in ("accuracy/train", "accuracy/validation", "test/accuracy"):
                found += [((folder.name, tag, event.step), event.value) for event in events.Scalars(tag)]
        assert len(found) == len(expected) and dict(found) == expected
        again = launch("distill", *run.words, f"--out={run.folder}", draw=False)
        assert again.status == 0 and again.out == "" and again.err == ""


def test_folders_with_odd_names(launch, home, distil, toy):
    for name in ("größe 数字", "a/b/c"):
        (run := distil("--epochs=1", out=str(home / name))) and done(run)
        assert (home / name / "report.md").is_file()
    asked = launch("distill", "--out=~/runs", ask="str(shared.require_folder('out', 'runs/a'))").value
    assert asked == os.path.expanduser("~/runs")


# --- 4. again, and after an interruption ----------------------------------------------------------------


def test_the_same_command_again_changes_nothing(launch, teacher, sweep):
    for name, run in (("train_teacher", teacher), ("distill", sweep)):
        rewritten = {
            run.folder / "report.html",
            run.folder / "report.md",
            run.folder / "summary.json",
            *(run.folder / "figures").iterdir(),
        }
        before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
        untouched = {path: path.stat().st_mtime_ns for path in before if path not in rewritten}
        for path in rewritten:
            path.unlink()
        # How the work is done may change; what comes out may not.
        outcome = launch(name, *run.words, "--vmap_size=2", "--checkpoint_every=7", f"--out={run.folder}")
        assert outcome.status == 0 and outcome.err == ""
        assert outcome.out.startswith(f"{run.folder} is complete; the report is written again\n")
        table = [line for line in done(run).out.split("\n")[1:] if not line.startswith("epoch ")]
        assert outcome.out.split("\n")[1:] == table
        assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
        assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


def same_outcome(folder: Path, other: Path, arrays: str) -> None:
    for name in ("history.csv", "results.csv", "confusions.npz"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    assert same_arrays(folder / arrays, other / arrays)
    assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}


def test_killed_and_resumed_is_the_same_to_the_bit(launch, home, sweep):
    folder = home / "killed"
    words = [*sweep.words, f"--out={folder}"]
    with Launcher(home) as first, Launcher(home) as second:
        assert first("distill", *words, die="SIGKILL", before="epoch_000002").status == -signal.SIGKILL
        assert [path.name for path in (folder / "checkpoints").glob("[!.]*")] == ["epoch_000001"]
        assert second("distill", *words, die="SIGKILL", before="students").status == -signal.SIGKILL
        assert (folder / "checkpoints/epoch_000003").is_dir() and not (folder / "students").exists()
    outcome = launch("distill", *words, draw=False)
    assert outcome.status == 0 and outcome.err == "" and outcome.out.startswith("continuing after epoch 3\n")
    assert "\ntraining" not in outcome.out and "continued" not in config_of(folder)
    # The segment in which it was killed is not counted, the same one that was trained again is.
    assert config_of(folder)["time"]["examples"] == config_of(sweep.folder)["time"]["examples"]
    same_outcome(folder, sweep.folder, "students")


@pytest.mark.parametrize(
    "at", ["config.json", "epoch_000001", "epoch_000003", "teachers", "results.csv", "summary.json"]
)
def test_interrupted_and_resumed_is_the_same_to_the_bit(launch, home, teacher, at):
    folder = home / f"interrupted_{at}"
    words = [*teacher.words, f"--out={folder}"]
    outcome = launch("train_teacher", *words, die="SIGINT", before=at, draw=False)
    assert outcome.status == 130 and "the same command continues" in outcome.err.splitlines()[-1]
    stop = "finishing the segment, then stopping; again to stop at once"
    assert outcome.err.splitlines()[:-1] == [stop] * at.startswith("epoch")
    # What is trained is saved before anything is computed of it; `at` itself is there when the signal comes.
    assert (folder / "teachers").exists() == (at in ("teachers", "results.csv", "summary.json"))
    outcome = launch("train_teacher", *words, draw=False)
    assert outcome.status == 0 and outcome.err == ""
    # While it trains, it ends the segment and saves it; before that there is nothing to continue.
    assert ("continuing after epoch" in outcome.out) == (at not in ("config.json", "summary.json"))
    assert ("is complete" in outcome.out) == (at == "summary.json")
    same_outcome(folder, teacher.folder, "teachers")


def test_what_a_killed_process_left_half_written_is_cleared_away(launch, toy, tmp_path):
    for name in (".config.json.123.tmp", ".results.csv.123.tmp", ".lock"):
        (tmp_path / name).write_text("half")
    outcome = launch("train_teacher", *toy.words, f"--out={tmp_path}", draw=False)
    assert outcome.status == 0 and {path.name for path in tmp_path.iterdir()} == TEACHER_FILES


# --- 5. bad input ---------------------------------------------------------------------------------------


def test_a_changed_data_set_is_another_run(launch, home, toy, tmp_path):
    """Also where the flags that differ would be allowed to."""
    shutil.copy(home / "toy.npz", tmp_path / "own.npz")
    words = [f"--dataset={tmp_path}/own.npz", *toy.words[1:], f"--out={tmp_path}/run"]
    assert launch("train_teacher", *words).status == 0
    with np.load(home / "toy.npz") as held:
        np.savez(tmp_path / "own.npz", **(dict(held) | {"test_images": 255 - held["test_images"]}))
    before = snapshot(tmp_path)
    for more in ([], ["--vmap_size=1"]):
        outcome = launch("train_teacher", *words, *more)
        assert outcome.status == 2 and "holds another run" in outcome.err and "other data" in outcome.err
    assert snapshot(tmp_path) == before


def test_another_teacher_of_the_same_name_is_another_run(launch, home, toy, distil, tmp_path):
    shutil.copytree(toy.folder, tmp_path / "teacher")
    run = distil(f"--teacher={tmp_path}/teacher", out=str(tmp_path / "run"))
    done(run)
    shutil.rmtree(tmp_path / "teacher")
    assert launch("train_teacher", *toy.words, "--epochs=1", f"--out={tmp_path}/teacher").status == 0
    before = snapshot(tmp_path)
    outcome = launch("distill", *run.words, f"--out={run.folder}")
    assert outcome.status == 2 and "another teacher" in outcome.err and snapshot(tmp_path) == before


def flip_a_byte(folder: Path) -> Path:
    """Of the largest file of a checkpoint."""
    files = [path for path in (folder / "arrays").rglob("*") if path.is_file()]
    allreduce_max = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(allreduce_max.read_bytes())
    content[len(content) // 2] ^= 1
    allreduce_max.write_bytes(content)
    return allreduce_max


@pytest.fixture
def stopped(launch, teacher, tmp_path) -> tuple[Path, list[str]]:
    """A teacher's run folder that was left after two of three epochs, and the flags that continue it."""
    words = [*teacher.words, f"--out={tmp_path / 'run'}"]
    assert launch("train_teacher", *words, die="SIGINT", before="epoch_000002").status == 130
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["epoch_000001", "epoch_000002"]
    return tmp_path / "run", words


def test_a_damaged_checkpoint_is_passed_over(launch, teacher, stopped):
    folder, words = stopped
    flipped = flip_a_byte(folder / "checkpoints" / "epoch_000002")
    outcome = launch("train_teacher", *words, draw=False)
    assert outcome.status == 0 and outcome.out.startswith("continuing after epoch 1\n")
    assert outcome.err.startswith("note: epoch_000002 is passed over") and outcome.err.count("\n") == 1
    assert str(flipped) in outcome.err
    same_outcome(folder, teacher.folder, "teachers")


def test_damaged_checkpoints_alone_are_not_resumed(launch, stopped):
    folder, words = stopped
    flipped = [flip_a_byte(path) for path in sorted((folder / "checkpoints").iterdir())]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    outcome = launch("train_teacher", *words)
    assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 2
    passed, refused = outcome.err.splitlines()
    assert passed.startswith("note: epoch_000002 is passed over") and str(flipped[1]) in passed
    assert refused.startswith("error: damaged checkpoint") and str(flipped[0]) in refused
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_tree_is_not_resumed(launch, stopped):
    folder, words = stopped
    for path in (folder / "checkpoints").iterdir():
        arrays, about = checkpoint.load(path)
        del arrays["states"]["epoch"]
        shutil.rmtree(path)
        checkpoint.save(path, arrays, about)
    outcome = launch("train_teacher", *words)
    assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 2
    assert re.search("\nerror: checkpoint .*epoch_000001 does not fit: expected .*; given ", outcome.err)


def test_another_command_that_continues_is_recorded(launch, teacher, stopped):
    folder, words = stopped
    before = config_of(folder)
    assert launch("train_teacher", *words, "--vmap_size=1", draw=False).status == 0
    after = config_of(folder)
    command = f"{before['command']} --vmap_size=1"
    seen = {name: before[name] for name in ("versions", "device")}
    spent = before.pop("time"), after.pop("time")
    assert all(spent[1][name] > number > 0 for name, number in spent[0].items())
    assert after == before | {"continued": [seen | {"command": command, "epoch": 2}]}
    same_outcome(folder, teacher.folder, "teachers")


def test_one_process_at_a_time(launch, stopped):
    folder, words = stopped
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        before = snapshot(folder)
        outcome = launch("train_teacher", *words)
        assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 1
        assert re.search("is in use: expected .*; given one that process 4711 writes", outcome.err)
        assert snapshot(folder) == before
    assert launch("train_teacher", *words, draw=False).status == 0
    assert not (folder / ".lock").exists()


def test_the_user_is_told_of_a_damaged_cache(launch, tmp_path):
    for split, number in itertools.product(("train", "val"), range(4)):
        place = tmp_path / "images" / split / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(4, k=number, dtype=np.uint8) * 255).save(place / f"{number}.png")
    words = [f"--dataset={tmp_path / 'images'}", "--model=mlp-8", "--omit=2", f"--out={tmp_path / 'run'}"]
    before = set(Path(os.environ["KD_JAX_CACHE"]).glob("*"))
    refused = launch("train_teacher", *words)  # for its --omit, once the images are there
    (cached,) = set(Path(os.environ["KD_JAX_CACHE"]).glob("*")) - before
    whole = cached.read_bytes()
    cached.write_bytes(whole[:-30])
    told = launch("train_teacher", *words)
    assert re.fullmatch("error: --omit .*\n", refused.err) and told.err.endswith(refused.err)
    note = f"note: the cached arrays in {cached} are damaged and are made anew: "
    assert told.err.startswith(note) and told.err.count("\n") == 2
    assert cached.read_bytes() == whole and launch("train_teacher", *words) == refused


def test_a_second_ctrl_c_stops_at_once(home, teacher, tmp_path):
    """One segment of a million epochs, which would take hours."""
    words = [*teacher.words, "--epochs=1000000", "--checkpoint_every=1000000", f"--out={tmp_path / 'run'}"]
    command = [sys.executable, "-P", "-m", "experiments.train_teacher", *words]
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=home, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("training 2 runs (1 setting x 2 seeds), 1000000 epochs;")
        assert (tmp_path / "run" / ".lock").read_text() == str(process.pid)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.readline()
        assert said == "finishing the segment, then stopping; Ctrl-C to stop at once\n"
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
        said = process.stderr.read()
        assert said == "interrupted; the same command continues from the last checkpoint\n"


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


def test_a_mask_that_keeps_only_classes_without_examples(launch, home, toy, tmp_path):
    """TFDS declares ten classes here, of which the training split has two."""
    images = np.random.RandomState(0).randint(0, 256, (12, 6, 5, 3), np.uint8)
    test_tfds.prepare(tmp_path, splits={name: (images, [0, 1] * 6) for name in ("train", "test")})
    words = ["--dataset=cifar100", f"--data_dir={tmp_path}", "--model=mlp-8", "--epochs=1"]
    before = snapshot(tmp_path)
    for name, more in (
        ("distill", ["--loss=labels", "--omit=none,0+1"]),
        ("distill", ["--loss=labels", "--seen=7+8"]),
        ("train_teacher", ["--omit=0+1"]),
    ):
        outcome = launch(name, *words, *more, f"--out={tmp_path / 'run'}")
        assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 1, outcome
        assert "nothing left after masking: expected a class that has training examples" in outcome.err
    assert snapshot(tmp_path) == before


def test_a_folder_of_images(launch, home, tmp_path):
    """From files to students: what cannot be read is told each time, classes go by their names."""
    order = np.random.RandomState(0)
    for split, number in (("train", 12), ("val", 4)):
        for label, name in enumerate(("big dog", "cat", "cow")):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for index in range(number):
                image = order.randint(0, 90, (6, 5, 3)).astype(np.uint8)
                image[label] = 255
                Image.fromarray(image).save(tmp_path / "set" / split / name / f"{index}.png")
    bad = tmp_path / "set" / "train" / "cow" / "bad.jpg"
    bad.touch()
    words = [f"--dataset={tmp_path / 'set'}", "--model=mlp-8", "--epochs=2", "--batch_size=8"]
    teach = [*words, "--omit=cow", f"--out={tmp_path / 'teacher'}"]
    outcome = launch("train_teacher", *teach)
    assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 1
    assert "1 of 49 images" in outcome.err and "train/cow/bad.jpg (Unidentified" in outcome.err
    note = f"note: 1 file that cannot be read is left out of {tmp_path / 'set'}\n"
    for _ in range(2):  # decoded, and from the cache
        outcome = launch("train_teacher", *teach, "--skip_unreadable", draw=False)
        assert outcome.status == 0 and outcome.err == note, outcome
    bad.unlink()
    words += ["--omit=none,cat,big dog+cow", f"--teacher={tmp_path / 'teacher'}", f"--out={tmp_path / 'run'}"]
    outcome = launch("distill", *words, draw=False)
    assert outcome.status == 0 and "never saw class 2 either" in outcome.err, outcome
    config = config_of(tmp_path / "run")
    assert [setting["omitted"] for setting in config["settings"]] == [[], [1], [0, 2]]
    assert config["data"]["class_names"] == ["big dog", "cat", "cow"]
    assert (config["flags"]["image_size"], config["flags"]["skip_unreadable"]) == (None, False)
    words[-1] = f"--out={tmp_path / 'small'}"
    outcome = launch("distill", *words, "--image_size=4", draw=False)
    assert outcome.status == 2 and "teacher of images of another size: expected 6x5x3" in outcome.err


# --- the launcher itself, and a real start --------------------------------------------------------------


def test_a_real_start_says_what_the_launcher_says(home, launch, sweep):
    """Nothing that the launcher's process has set or cached makes the difference."""
    command = [sys.executable, "-P", "-m", "experiments.distill", *sweep.words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    folders = {sweep.folder: 0, home / "toy": 2}
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


if __name__ == "__main__":
    # Started in the background, a process inherits that SIGINT is ignored; here it is to be what a user has.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve()
