"""What the long version looks for is found; it itself takes minutes, and is not for the suite."""

import subprocess
import sys

from tests.faults import soak


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


def test_memory_of_the_first_and_the_last_quarter():
    early, late = soak._ends({epoch: 10 * epoch for epoch in range(1, 13)}, 12)
    assert (early, late) == ({2: 20, 3: 30}, {10: 100, 11: 110, 12: 120})
