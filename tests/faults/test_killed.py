"""Killed within a checkpoint, between the files of the outcome, and in the report: the same to the bit."""

import shutil
import signal

import numpy as np
import pytest

from kd_jax import checkpoint, results
from tests.faults import killed
from tests.faults.killed import COMMANDS


def step_of(steps, *words) -> int:
    """The number of the first step that has all of the words, from 1."""
    return 1 + next(number for number, step in enumerate(steps) if all(word in step for word in words))


@pytest.mark.slow
def test_killed_twice_the_outcome_is_the_same_to_the_bit(fresh):
    run, name = fresh.folder / "run", "train_teacher"
    within = step_of(fresh.steps[name], ".epoch_000002.incomplete/manifest.json")
    first = fresh.children(name, *COMMANDS[name], step=within, signal="SIGKILL")
    assert first.status == -signal.SIGKILL
    assert {path.name for path in run.glob("checkpoints/*")} == {"epoch_000001", ".epoch_000002.incomplete"}
    # What it does again: all but the first checkpoint.
    before = step_of(fresh.steps[name], "epoch_000002") - step_of(fresh.steps[name], "epoch_000001")
    between = step_of(fresh.steps[name], "os.rename", "results.csv") - before
    second = fresh.children(name, *COMMANDS[name], step=between, signal="SIGKILL")
    assert second.status == -signal.SIGKILL and not (run / "results.csv").exists()
    assert list(run.glob("checkpoints/epoch_000002"))
    assert fresh.wrong(name) == []


def test_a_killed_report_is_written_again_and_leaves_nothing(fresh, monkeypatch):
    monkeypatch.setattr(fresh, "of", lambda name: fresh.folder / "teacher")
    steps = fresh.children("report", "teacher").steps
    wanted = [step_of(steps, "os.rename", name) for name in ("class_bars.png", "summary.json", "report.html")]
    tried = killed.at_steps(fresh, "report", wanted)
    assert (tried.times, tried.held) == (3, 3), tried.failures


@pytest.fixture
def two(whole, tmp_path):
    """Two copies of the finished run."""
    return [shutil.copytree(whole.folder / "teacher", tmp_path / name) for name in ("one", "other")]


def test_a_difference_is_found(two):
    """A byte of a file, a value of an array, a file more; not the time."""
    assert killed.differences(*two) == []
    (two[1] / "SHA256SUMS").unlink()
    config = results.read_config(two[1])
    results.write_config(two[1], config | {"time": config["time"] | {"run_seconds": 9e9}})
    assert killed.differences(*two) == ["report.md", "report.html", "SHA256SUMS"]


def test_a_difference_of_weights_is_found(two):
    variables, metadata = checkpoint.load(two[1] / "teachers")
    shutil.rmtree(two[1] / "teachers")
    variables["params"]["logits"]["bias"][1, 3] = np.nextafter(variables["params"]["logits"]["bias"][1, 3], 1)
    checkpoint.save(two[1] / "teachers", variables, metadata)
    (two[1] / "results.csv").write_bytes(b"")
    (two[1] / "more").touch()
    assert killed.differences(*two) == ["results.csv", "teachers/logits/bias", "more"]
