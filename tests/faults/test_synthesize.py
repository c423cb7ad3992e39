"""`synthesize` stopped and killed as it writes, a full disk, and a damaged teacher, a few times each."""

import random
import subprocess

import numpy as np
import pytest

from tests.faults import disk, synthesize


@pytest.fixture(scope="module")
def made(whole):
    """The undisturbed images of the small teacher."""
    return synthesize.Made(whole.children, trained=True)


def all_held(*rows):
    for row in rows:
        assert row.times and row.held == row.times, row.failures


def test_killed_or_stopped_while_it_writes_it_leaves_no_half(made):
    within = ["open made/.threes.npz.", "os.rename made/threes.npz", "os.rename made/threes.png"]
    assert all(any(step in line for line in made.steps) for step in within), made.steps
    all_held(synthesize.at_steps(made, within), synthesize.stopped(made, ["SIGTERM"]))


@pytest.mark.slow
def test_a_full_disk(made, tmp_path):
    try:
        with disk.disk(tmp_path / "disk", 4096):
            pass
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("only root can mount a disk, and not everywhere")
    all_held(synthesize.full(made, [disk.PAGE]))


def test_a_folder_that_may_not_be_written(made):
    all_held(synthesize.closed(made))


def test_a_damaged_teacher_is_refused(whole):
    rows = synthesize.teacher_rows(whole.folder / "teacher", random.Random(1), 2)
    assert len(rows) == 3
    all_held(*rows)


def test_what_does_not_hold_is_seen(made):
    """Half a file; a whole one of other images; a file that is left beside it."""
    made.clear()
    made.folder.mkdir()
    path = made.folder / "threes.npz"
    path.write_bytes(b"PK")
    assert "not whole" in made.wrong()[0]
    np.savez(path, **made.images | {"made_by": made.images["made_by"] + 1})
    assert made.wrong() == ["other images"]
    path.unlink()
    (made.folder / ".threes.npz.x.tmp").touch()
    assert made.wrong() == ["left: .threes.npz.x.tmp"]
    made.clear()
