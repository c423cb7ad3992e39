"""Killed between the files of the outcome and within the report: the same to the bit, or it would be told."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from kd_jax.io import checkpoint, run_config
from tests.faults import killed


@pytest.mark.slow
def test_killed_between_the_files_of_its_outcome_it_is_the_same_to_the_bit(fresh):
    tried = killed.at_steps(fresh, "train_teacher", ["os.rename run/results.csv"])
    assert (tried.times, tried.held) == (1, 1), tried.failures


def test_a_killed_report_is_written_again_and_leaves_nothing(fresh):
    wanted = [f"os.rename run/{name}" for name in ("figures/class_bars.png", "summary.json", "report.html")]
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
    description = run_config.read(two[1])
    run_config.write(two[1], replace(description, time=replace(description.time, run_seconds=9e9)))
    assert killed.differences(*two) == ["report.md", "report.html", "SHA256SUMS"]


def test_a_difference_of_weights_is_found(two):
    variables, metadata = checkpoint.load(two[1] / "teachers")
    shutil.rmtree(two[1] / "teachers")
    variables["params"]["logits"]["bias"][1, 3] = np.nextafter(variables["params"]["logits"]["bias"][1, 3], 1)
    checkpoint.save(two[1] / "teachers", variables, metadata)
    (two[1] / "results.csv").write_bytes(b"")
    (two[1] / "more").touch()
    assert killed.differences(*two) == ["results.csv", "teachers/logits/bias", "more"]
