"""Each kind of file, damaged in each way a few times: refused and named, or as it was; no other weight."""

import random

from kd_jax.errors import InputError
from tests.faults import damaged


def all_held(rows):
    for row in rows:
        assert row.times and row.held == row.times, row.failures


def test_a_damaged_teacher_is_refused(whole):
    all_held(damaged.teacher_rows(whole.folder / "teacher", random.Random(1), 2))


def test_a_damaged_run_is_refused(whole):
    all_held(damaged.run_rows(whole.folder / "teacher", random.Random(1), 4))


def test_what_does_not_hold_is_counted(tmp_path):
    """A reader that trusts what it finds, and one that does not say which file it was."""
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")

    def vague():
        if not path.exists() or path.read_bytes() != b"0123456789":
            raise InputError("damaged", "something else", "this")
        return 0

    for read in (lambda: path.exists() and path.read_bytes(), vague):
        rows = damaged.read_damaged([path], read, "a file", random.Random(0), 5)
        assert [(row.times, row.held) for row in rows] == [(5, 0), (5, 0), (1, 0)]
    assert path.read_bytes() == b"0123456789"
