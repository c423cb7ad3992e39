"""What the long version looks for is found; it itself takes minutes, and is not for the suite."""

import subprocess
import sys

from tests.faults import soak


def test_what_is_left_behind_is_found(tmp_path):
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    )
    for name in (".lock", ".results.csv.7.tmp", "results.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / ".students.incomplete").mkdir()
    assert sorted(soak.strays(tmp_path, sleeper.pid)) == [
        ".lock", ".results.csv.7.tmp", ".students.incomplete", "a process",
    ]  # fmt: skip
    sleeper.communicate(b"\n")
    assert "a process" not in soak.strays(tmp_path, sleeper.pid)


def test_memory_of_the_first_and_the_last_quarter():
    early, late = soak._ends({epoch: 10 * epoch for epoch in range(1, 13)}, 12)
    assert (early, late) == ({2: 20, 3: 30}, {10: 100, 11: 110, 12: 120})
