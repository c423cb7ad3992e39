"""Small runs that several tests look at: a teacher and its students on the digits, and a toy teacher."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiments.launcher import Launcher, Outcome
from tests.experiments.runs import TRAINING, Run


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """The folder that everything here lies in, entry points' working folder: one of all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "experiments"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def launch(home) -> Iterator[Launcher]:
    with Launcher(home) as launcher:
        yield launcher


def run_once(launch: Launcher, home: Path, name: str, entry: str, words: list[str]) -> Run:
    """The run home/name, which the first worker that asks for it makes. Tests only read it."""
    said = home / f".{name}.json"
    with open(home / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            said.write_text(json.dumps(launch(entry, *words, f"--out={home / name}")))
    return Run(home / name, words, Outcome(*json.loads(said.read_text())))


@pytest.fixture(scope="session")
def teacher(launch, home) -> Run:
    return run_once(launch, home, "teacher", "train_teacher", [*TRAINING, "--learning_rate=1e-2"])


@pytest.fixture(scope="session")
def sweep(launch, home, teacher) -> Run:
    words = [*TRAINING, "--learning_rates=1e-2", f"--teacher={teacher.folder}", "--temperatures=4"]
    words += ["--alphas=0,1", "--omit=none,3"]
    return run_once(launch, home, "sweep", "distill", words)


@pytest.fixture(scope="session")
def toy(launch, home) -> Run:
    """A teacher of a dataset of the user's own: 3 classes, which a line of 4 pixels in 6 x 5 tells apart;
    half of the examples are of class 1."""
    order = np.random.RandomState(0)
    images = order.randint(0, 90, (90, 6, 5)).astype(np.uint8)
    labels = np.tile([0, 1, 1, 1, 2, 2], 15)
    images[np.arange(90), labels, :4] = 255
    parts: Any = {"train_images": images[:60], "train_labels": labels[:60]}
    path = home / f".{os.getpid()}.npz"
    np.savez(path, **parts, test_images=images[60:], test_labels=labels[60:])
    path.replace(home / "toy.npz")
    words = ["--dataset=toy.npz", "--model=mlp-8", "--epochs=2", "--batch_size=8", "--learning_rate=0.05"]
    words += ["--seeds=2"]
    return run_once(launch, home, "toy", "train_teacher", words)


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
