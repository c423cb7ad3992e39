"""A disk that becomes full and a folder that may not be written, each once."""

import subprocess

import pytest

from tests.faults import disk


@pytest.mark.slow
def test_a_full_disk_keeps_its_checkpoints_and_the_run_goes_on(fresh, tmp_path):
    try:
        with disk.disk(tmp_path / "disk", 4096):
            pass
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("only root can mount a disk, and not everywhere")
    size = disk.used(fresh.folder / "teacher") // 2
    tried = disk.full(fresh, "train_teacher", [size])
    assert (tried.times, tried.held) == (1, 1), tried.failures


def test_what_may_not_be_written_is_left_as_it_is(fresh):
    tried = disk.closed(fresh, "report", [0])
    assert (tried.times, tried.held) == (1, 1), tried.failures
