"""The script that kills and resumes, a few times; `--times=20` by hand is the long version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import killed

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_killed_at_random_moments_the_outcome_is_the_same_to_the_bit():
    command = [sys.executable, "-P", "-m", "tests.faults.killed", "--times=3", "--seed=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": equal\n") == 3


def test_a_difference_is_found(tmp_path, monkeypatch):
    """One byte of one file, one value of one array, one file more."""
    weights = [{"params": {"layer": {"kernel": [1.0, 2.0]}}}, {"params": {"layer": {"kernel": [1.0, 2.5]}}}]
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
        for name in ("history.csv", "results.csv", "bias_curve.csv", "summary.json"):
            (folder / name).write_text("same")
    (folders[1] / "results.csv").write_text("sane")
    (folders[1] / "more").write_text("")
    monkeypatch.setattr(killed.checkpoint, "load", lambda path: (weights[path.parent == folders[1]], {}))
    assert killed.differences(*folders) == ["results.csv", "students/layer/kernel", "more"]
    assert killed.differences(folders[0], folders[0]) == []
