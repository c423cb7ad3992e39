"""What the long version looks for is found; it itself takes minutes, and is not for the suite."""

import signal
import subprocess
import sys

import pytest

from tests.faults import soak
from tests.faults.killed import COMMANDS


def test_what_is_left_behind_is_found(tmp_path):
    waiting = [sys.executable, "-c", "input()"]
    sleeper = subprocess.Popen(waiting, stdin=subprocess.PIPE, cwd=tmp_path)
    for name in (".lock", ".results.csv.7.tmp", "results.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / ".students.incomplete").mkdir()
    left = [".lock", ".results.csv.7.tmp", ".students.incomplete"]
    assert sorted(soak.strays(tmp_path, set())) == [*left, f"process {sleeper.pid}"]
    assert sorted(soak.strays(tmp_path, {sleeper.pid})) == left
    sleeper.communicate(b"\n")
    assert sorted(soak.strays(tmp_path, set())) == left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "number"),
    [("run/history.csv", "SIGINT"), (".teachers.incomplete/arrays.orbax-checkpoint-tmp/orbax", "SIGTERM")],
)
def test_stopped_after_its_training_it_gives_back_what_it_holds(fresh, step, number):
    """While an outcome is written, by its own thread or by Orbax's: by then no segment is left to finish."""
    ended = fresh.children("train_teacher", *COMMANDS["train_teacher"], step=step, signal=number)
    assert ended.status == 128 + signal.Signals[number]
    assert ended.err == "interrupted; the same command continues from the last checkpoint\n"
    assert soak.strays(fresh.folder / "run", set()) == []
    assert fresh.wrong("train_teacher") == []


def test_memory_of_the_first_and_the_last_quarter():
    early, late = soak._ends({epoch: 10 * epoch for epoch in range(1, 13)}, 12)
    assert (early, late) == ({2: 20, 3: 30}, {10: 100, 11: 110, 12: 120})
