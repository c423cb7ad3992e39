"""Several real processes on loopback: they compute what one computes, continue each other, end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.cli import cluster
from kd_jax.errors import InputError
from kd_jax.io import checkpoint

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
SWEEP = ["distill", "--loss=labels", "--model=mlp-8", "--omit=none,1", "--seeds=3"]
SWEEP += ["--batch_size=16", "--checkpoint_every=1", "--validation_fraction=0.2"]


def command(number: int, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "experiments.cli.cluster", str(number), *words]


def run(number: int, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(number, *words), capture_output=True, text=True, env=ENVIRONMENT, timeout=300
    )


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """The sweep on a small dataset of three classes, told apart by which third of the pixels is bright."""
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
    return [*SWEEP, f"--dataset={path}"]


LONG = "--epochs=40"  # long enough to be stopped on the way


def alone(words: list[str], folder: Path) -> Path:
    """What one process makes of it."""
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


@pytest.mark.slow
def test_two_processes_write_what_one_writes(words, tmp_path):
    """Six runs on 2 x 2 devices, padded to eight; the same bits, said once."""
    words = [*words, "--epochs=2"]
    outcome = run(2, *words, f"--out={tmp_path / 'run'}")
    assert outcome.returncode == 0 and outcome.stderr == "", outcome.stderr
    assert outcome.stdout.count("training 6 runs (2 settings x 3 seeds)") == 1
    assert outcome.stdout.count("Report: ") == 1 and "Gloo" not in outcome.stdout
    device = json.loads((tmp_path / "run/config.json").read_text())["device"]
    assert device.startswith("4 x") and device.endswith(", 2 processes")
    same(tmp_path / "run", alone(words, tmp_path / "alone"))


@pytest.mark.slow
def test_one_that_dies_ends_the_others_and_other_numbers_go_on(words, tmp_path):
    """Process 1 of 2 is killed after a checkpoint; one process goes on, is stopped, and three end it."""
    folder, words = tmp_path / "run", [*words, LONG]
    started = start(command(2, *words, f"--out={folder}"))
    wait_for(lambda: newest(folder) >= 2)
    children = subprocess.run(
        ["pgrep", "-P", str(started.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(children) == 2
    begun = time.monotonic()
    os.kill(int(children[1]), signal.SIGKILL)
    err = started.communicate(timeout=60)[1]
    assert started.returncode == 128 + signal.SIGKILL and time.monotonic() - begun < 60
    assert err.splitlines()[-1] == (
        "error: process 1 of 2 ended by SIGKILL, so the others were ended too; "
        "the same command goes on from the last checkpoint, if any"
    )
    assert len(err.splitlines()) <= 2 and not running(children[0])
    reached = newest(folder)
    stopped = start(command(1, *words, f"--out={folder}"))
    wait_for(lambda: newest(folder) > reached)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + signal.SIGTERM and "SIGTERM: stopped after epoch" in err
    assert f"continuing after epoch {reached}\n" in out and newest(folder) < 40
    reached = newest(folder)
    outcome = run(3, *words, f"--out={folder}")
    assert outcome.returncode == 0 and outcome.stderr == "", outcome.stderr
    assert f"continuing after epoch {reached}\n" in outcome.stdout
    same(folder, alone(words, tmp_path / "alone"))
    again = run(2, *words, f"--out={folder}")
    assert again.returncode == 0 and "is complete; the report is written again" in again.stdout


@pytest.mark.slow
def test_without_their_watcher_processes_end_by_themselves(words, tmp_path):
    """As a cluster starts them: process 1 is killed, process 0 says in one line that another ended."""
    place = f"127.0.0.1:{free_port()}"
    own = [sys.executable, "-P", "-m", "experiments.distill", *words[1:], LONG, f"--out={tmp_path / 'run'}"]
    both = [
        start(own, {"KD_JAX_PROCESSES": "2", "KD_JAX_PROCESS": str(i), "KD_JAX_COORDINATOR": place})
        for i in (0, 1)
    ]
    wait_for(lambda: newest(tmp_path / "run") >= 1)
    both[1].kill()
    err = both[0].communicate(timeout=60)[1]
    both[1].communicate()
    assert both[0].returncode == 1
    assert err == "error: another process ended; the same command goes on from the last checkpoint, if any\n"


@pytest.mark.slow
def test_when_the_watcher_is_killed_its_processes_end(words, tmp_path):
    started = start(command(2, *words, LONG, f"--out={tmp_path / 'run'}"))
    wait_for(lambda: newest(tmp_path / "run") >= 1)
    children = subprocess.run(
        ["pgrep", "-P", str(started.pid)], capture_output=True, text=True
    ).stdout.split()
    started.kill()
    started.communicate()
    wait_for(lambda: not any(map(running, children)))
    assert newest(tmp_path / "run") < 40


@pytest.mark.slow
def test_each_process_has_its_share_of_the_cores(words, tmp_path):
    """Without conftest's simulated devices: as many devices of each as it has cores of its own."""
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        command(2, *words, f"--out={tmp_path / 'run'}", "--epochs=1"),
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    each = max(1, len(os.sched_getaffinity(0)) // 2)
    assert json.loads((tmp_path / "run/config.json").read_text())["device"].startswith(f"{2 * each} x cpu")


def test_what_is_not_a_sweep_is_not_done_by_several(monkeypatch):
    monkeypatch.setenv("KD_JAX_PROCESSES", "2")
    with pytest.raises(
        InputError, match="not a work for several processes: expected train_teacher or distill"
    ):
        cluster.join(possible=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report", "tables"])
def test_it_is_said_once(name):
    outcome = run(2, name)
    assert outcome.returncode == 2 and outcome.stdout == ""
    assert outcome.stderr.startswith(
        "error: not a work for several processes: expected train_teacher or distill"
    )
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error, expected",
    [
        (TimeoutError("waiting at barrier: UNAVAILABLE: Task 1 heartbeat timeout"), True),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:6310"), True),
        (ValueError("Gloo context initialization failed: GetKeyValue() timed out"), False),
        (OSError("No space left on device"), False),
    ],
)
def test_a_lost_process_is_known_by_the_words_of_the_error(error, expected):
    assert cluster.is_peer_failure(error) == expected
    assert cluster.reason(error).startswith("error: another process ended") == expected


def start(words: list[str], more: dict[str, str] | None = None) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT | (more or {}))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def newest(folder: Path) -> int:
    """The epoch of the newest checkpoint, 0 before the first."""
    return max((int(path.name[6:]) for path in folder.glob("checkpoints/epoch_*")), default=0)


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


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("more", [["--omit=none,7"], slow(["--nosuch=1"]), slow(["--dataset=nowhere.npz"])])
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


@pytest.mark.parametrize(
    "more",
    [
        {"KD_JAX_PROCESS": "x", "KD_JAX_COORDINATOR": "127.0.0.1:45671"},
        {"KD_JAX_PROCESS": "0", "KD_JAX_COORDINATOR": "127.0.0.1:45671", "KD_JAX_PROCESSES": "two"},
        {"KD_JAX_PROCESS": "0"},
        {"KD_JAX_COORDINATOR": "127.0.0.1:45671"},
    ],
)
def test_a_malformed_environment_is_refused(monkeypatch, more):
    """Before JAX is asked to find the others."""
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("asked"))
    for name in ("KD_JAX_PROCESS", "KD_JAX_COORDINATOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"KD_JAX_PROCESSES": "2"} | more).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="the processes do not find each other: expected"):
        cluster.join(possible=True)


@pytest.mark.slow
def test_a_coordinator_that_is_no_address_is_refused():
    own = [sys.executable, "-P", "-m", "experiments.distill", "--loss=labels"]
    given = {"KD_JAX_PROCESSES": "2", "KD_JAX_PROCESS": "0", "KD_JAX_COORDINATOR": "nonsense"}
    process = start(own, given)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and err.count("\n") == 1, err
    assert err.startswith("error: the processes do not find each other: expected")


@pytest.mark.parametrize("number", ["0", "two", "-1", "5000", "٢"])
def test_a_number_of_processes(number, capsys):
    assert cluster.launch([number, "distill"]) == 2
    expected = f"error: --processes: expected a number from 1 to 1024; given {number!r}\n"
    assert capsys.readouterr().err == expected


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
    assert cluster.in_cluster() == found
