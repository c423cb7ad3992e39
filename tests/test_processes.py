"""Several real processes on loopback: they compute what one computes, continue each other, end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import processes
from kd_jax import checkpoint

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
SWEEP = ["distill", "--loss=labels", "--model=mlp-8", "--omit=none,1", "--seeds=3", "--epochs=6"]
SWEEP += ["--batch_size=16", "--checkpoint_every=2", "--validation_fraction=0.2"]


def command(number: int, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "experiments.processes", str(number), *words]


def run(number: int, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(number, *words), capture_output=True, text=True, env=ENVIRONMENT, timeout=300
    )


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """The sweep on a small data set of three classes, told apart by which third of the pixels is bright."""
    random = np.random.RandomState(0)
    labels = np.arange(300) % 3
    images = random.randint(100, size=(300, 6, 6)).astype(np.uint8)
    for label in range(3):
        images[labels == label, 2 * label : 2 * label + 2] += 60
    path = tmp_path_factory.mktemp("data") / "thirds.npz"
    np.savez(
        path,
        train_images=images[:200],
        train_labels=labels[:200],
        test_images=images[200:],
        test_labels=labels[200:],
    )
    return [*SWEEP, f"--data_set={path}"]


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory) -> Path:
    """What one process makes of it."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    outcome = run(1, *words, f"--out={folder}")
    assert outcome.returncode == 0 and outcome.stderr == "", outcome.stderr
    return folder


def same(folder: Path, other: Path) -> None:
    for name in ("history.csv", "results.csv", "bias_curve.csv", "summary.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    (ours, said), (theirs, said_too) = (checkpoint.load(path / "students") for path in (folder, other))
    assert said["num_models"] == said_too["num_models"] == 6
    for layer, arrays in theirs["params"].items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(ours["params"][layer][name], array)
    assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}


def test_two_processes_write_what_one_writes(words, alone, tmp_path):
    """Six runs on 2 x 2 devices, padded to eight; the same bits, said once."""
    outcome = run(2, *words, f"--out={tmp_path / 'run'}")
    assert outcome.returncode == 0 and outcome.stderr == "", outcome.stderr
    assert outcome.stdout.count("training 6 runs (2 settings x 3 seeds)") == 1
    assert outcome.stdout.count("Report: ") == 1 and "Gloo" not in outcome.stdout
    assert json.loads((tmp_path / "run/config.json").read_text())["device"].startswith("4 x")
    same(tmp_path / "run", alone)
    again = run(2, *words, f"--out={tmp_path / 'run'}")
    assert again.returncode == 0 and "is complete; the report is written again" in again.stdout


def test_one_that_dies_ends_the_others_and_other_numbers_go_on(words, alone, tmp_path):
    """Process 1 of 2 is killed after its first checkpoint; then one process, stopped, and three."""
    folder = tmp_path / "run"
    long = [*words, "--epochs=6000", f"--out={folder}"]
    started = subprocess.Popen(command(2, *long), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    wait_for(lambda: list(folder.glob("checkpoints/epoch_*")))
    children = subprocess.run(
        ["pgrep", "-P", str(started.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(children) == 2
    start = time.monotonic()
    os.kill(int(children[1]), signal.SIGKILL)
    err = started.communicate(timeout=60)[1]
    assert started.returncode == 128 + signal.SIGKILL and time.monotonic() - start < 60
    assert err.splitlines()[-1] == (
        "error: process 1 of 2 ended by SIGKILL, so the others were ended too; "
        "the same command continues from the last checkpoint"
    )
    assert not running(children[0])
    folder = tmp_path / "other"
    stopped = subprocess.Popen(
        command(1, *words, f"--out={folder}"), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    wait_for(lambda: list(folder.glob("checkpoints/epoch_*")))
    stopped.send_signal(signal.SIGTERM)
    err = stopped.communicate(timeout=60)[1]
    if stopped.returncode:  # else it was done before it heard
        assert stopped.returncode == 128 + signal.SIGTERM and "SIGTERM: stopped after epoch" in err
    outcome = run(3, *words, f"--out={folder}")
    assert outcome.returncode == 0, outcome.stderr
    same(folder, alone)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("more", [["--omit=none,7"], ["--nosuch=1"], ["--data_set=nowhere.npz"]])
def test_bad_input_is_said_once(words, tmp_path, more):
    outcome = run(2, *words, *more, f"--out={tmp_path / 'run'}")
    assert outcome.returncode == 2 and outcome.stdout == "", outcome
    assert outcome.stderr.count("\n") == 1 and outcome.stderr.startswith("error: "), outcome.stderr
    assert not (tmp_path / "run").exists()


def test_processes_that_find_no_cluster():
    """--processes=auto is KD_JAX_PROCESSES=auto: here is none."""
    outcome = subprocess.run(
        [sys.executable, "-P", "-m", "experiments.distill", "--loss=labels"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {"KD_JAX_PROCESSES": "auto"},
        timeout=300,
    )
    assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1, outcome.stderr
    assert outcome.stderr.startswith("error: the processes do not find each other: expected")


@pytest.mark.parametrize("number", ["0", "two", "-1", "5000"])
def test_a_number_of_processes(number):
    outcome = run(number, "distill")
    assert outcome.returncode == 2
    assert outcome.stderr == (f"error: --processes: expected a number from 1 to 1024; given {number!r}\n")


@pytest.mark.parametrize(
    "found, environment",
    [
        (False, {}),
        (False, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}),
        (True, {"SLURM_STEP_NUM_TASKS": "4"}),
        (False, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
        (True, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}),
        (False, {"TPU_WORKER_HOSTNAMES": "localhost"}),
        (True, {"TPU_WORKER_HOSTNAMES": "a,b"}),
    ],
)
def test_a_cluster_is_found_by_its_environment(monkeypatch, found, environment):
    for name in ("SLURM_STEP_NUM_TASKS", "KUBERNETES_SERVICE_HOST", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.in_cluster() == found
