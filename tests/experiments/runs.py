"""What tests of whole runs share: the flags of small runs, and readers of what a run folder holds."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_jax import data
from kd_jax.io import checkpoint
from tests.experiments.launcher import Outcome

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


def undecided(logits: np.ndarray) -> int:
    """The number of examples whose two largest logits differ by no more than rounding, which is another on
    another CPU: the class that is predicted of them is no measure of anything."""
    top = np.sort(logits, axis=1)
    return int(np.sum(top[:, -1] - top[:, -2] < 1e-4))


def splits_of(dataset: data.Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    _, validation = data.split_validation(dataset.train_labels, 0.1)
    held_out = dataset.train_images[validation], dataset.train_labels[validation]
    return {"validation": held_out, "test": (dataset.test_images, dataset.test_labels)}


def done(run: Run) -> Outcome:
    """The outcome of a run that is to have gone well and quietly."""
    assert run.outcome.status == 0 and run.outcome.err == "", run.outcome
    return run.outcome
