"""What ends an entry point: one line where its user can mend it, else a line and a file of the traceback."""

import errno
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.cli import cluster, failures, main, running
from experiments.cli.provenance import ROOT
from kd_jax.errors import InputError
from kd_jax.io import checkpoint, run_config
from tests.experiments.reporting.toy_run import SETTINGS, toy_curve, toy_history, toy_rows, write_run
from tests.io.damage import flip_a_byte

JaxError = jax.errors.JaxRuntimeError


@pytest.fixture
def end(monkeypatch, tmp_path, capsys):
    """What `_guarded` makes of an error that main raises: (exit status, stderr, the files it wrote)."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(cluster, "join", lambda several: None)
    monkeypatch.setattr(main, "install_signal_handlers", lambda requests: None)
    monkeypatch.setattr(main.flags, "is_quiet", lambda: False)
    monkeypatch.setattr(main, "log_library_warnings", lambda: None)
    monkeypatch.setattr(main.absl_logging, "set_verbosity", lambda level: None)
    monkeypatch.setattr(jax.config, "update", lambda *option: None)

    def ended(error):
        def failing_main(argv):
            raise error

        with pytest.raises(SystemExit) as stopped:
            main._guarded(failing_main, False, True, [])
        return stopped.value.code, capsys.readouterr().err, list((tmp_path / "temporary").iterdir())

    return ended


def of_system(number, file="/some/file"):
    return OSError(number, os.strerror(number), file)


@pytest.mark.parametrize(
    "error, words",
    [
        (JaxError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore"), "memory"),
        (JaxError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"), "memory"),
        (MemoryError(), "memory"),
        (of_system(errno.ENOMEM), "memory"),
        (of_system(errno.ENOSPC), "room on the disk"),
        (of_system(errno.EDQUOT), "room on the disk"),
        (of_system(errno.EFBIG), "room on the disk"),
        (of_system(errno.EACCES), "this user may use"),
        (of_system(errno.EPERM), "this user may use"),
        (of_system(errno.EROFS), "this user may use"),
        (of_system(errno.ENOENT), "that are there"),
        (of_system(errno.EISDIR), "that are there"),
        (of_system(errno.ENAMETOOLONG), "paths that this system can use"),
        (of_system(errno.EMFILE), "ulimit -n"),
        (of_system(errno.ENFILE), "ulimit -n"),
        (of_system(errno.EIO), "a disk that can be read"),
        (InputError("--x", "a number", "y"), "expected a number; given y"),
    ],
)
def test_what_the_user_can_mend_is_one_line(end, error, words):
    status, line, files = end(error)
    assert status == 2 and files == [] and words in line
    assert line.startswith("error: ") and line.count("\n") == 1
    if isinstance(error, OSError):
        assert os.strerror(error.errno) in line and "/some/file" in line


@pytest.mark.parametrize(
    "error",
    [
        JaxError("INTERNAL: " + 60 * "a fault in the compiler; " + "the end"),
        JaxError("INVALID_ARGUMENT: Executable expected parameter 0 of size 4 but got buffer of size 8"),
        JaxError("UNIMPLEMENTED: no such operation on this device"),
        of_system(errno.EBADF),
        of_system(errno.EINVAL),
        of_system(errno.ENOENT, str(Path(failures.__file__).parent / "a_template_of_ours.html")),
        OSError("no number at all"),
        TimeoutError("waited too long"),
        TypeError("unsupported operand"),
    ],
)
def test_a_fault_of_ours_can_be_reported(end, error):
    status, line, (file,) = end(error)
    assert status == 1 and line.count("\n") == 1 and len(line) < 500
    assert line.startswith(
        f"error: unexpected, please report it with the file {file}: {type(error).__name__}"
    )
    text = file.read_text()
    assert str(error) in text and "Traceback (most recent call last)" in text  # the message is not cut
    assert re.search(r"in failing_main\n\s+raise error", text)  # where it was raised
    assert re.search(r"^command: .*\nversions: Python .*jax ", text)


def test_where_no_file_can_be_written_the_traceback_is_shown(end, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    status, text, files = end(JaxError("INTERNAL: a fault"))
    assert status == 1 and files == [] and "JaxRuntimeError: INTERNAL: a fault" in text.splitlines()[0]
    assert re.search(r"in failing_main\n\s+raise error", text)


def test_every_number_is_one_that_the_system_may_give():
    assert {errno.errorcode[number] for number in failures.MENDABLE} >= {"ENOSPC", "EACCES", "EMFILE"}


def test_a_stop_that_became_another_error_is_no_fault(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        main._fail(ImportError("half a module"), [15])
    assert stopped.value.code == 128 + 15 and list(Path(tmp_path).iterdir()) == []
    assert "interrupted" in capsys.readouterr().err


def test_a_run_is_complete_when_its_results_are_there(tmp_path):
    """Saved networks alone are not enough; without a checkpoint they are not trained again."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "students").mkdir()
    assert not running.is_complete(tmp_path, "students") and not running.is_complete(tmp_path)
    (tmp_path / "checkpoints").rmdir()
    assert running.is_complete(tmp_path, "students") and not running.is_complete(tmp_path, "teachers")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "results.csv").touch()
    assert running.is_complete(tmp_path, "students") and running.is_complete(tmp_path)


def test_networks_that_were_saved_are_not_saved_again(tmp_path):
    running.save_models(tmp_path / "students", {"x": np.ones(3)}, {"model": "mlp"})
    before = checkpoint.load(tmp_path / "students")
    running.save_models(tmp_path / "students", {"x": np.zeros(3)}, {"model": "mlp"})
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "students")[0]["x"], before[0]["x"])


@pytest.mark.parametrize("before", [[], [5], [{}]])
def test_a_continuation_is_recorded_whatever_stands_there(tmp_path, before):
    folder = write_run(tmp_path / "toy", SETTINGS, toy_rows(), toy_history(), toy_curve(), continued=before)
    now = {"versions": {"jax": "0.12"}, "device": "1 x cpu", "command": "./launch.sh distill"}
    description = run_config.read(folder)
    running._record_continuation(folder, replace(description, **now), 3)
    assert run_config.read(folder).continued == (*before, now | {"epoch": 3})


def test_networks_that_were_damaged_since_are_saved_again(tmp_path):
    for _ in range(2):
        running.save_models(tmp_path / "students", {"x": np.ones(3)}, {"model": "mlp"})
        np.testing.assert_array_equal(checkpoint.load(tmp_path / "students")[0]["x"], np.ones(3))
        flip_a_byte(tmp_path / "students")


def test_a_compiled_program_that_is_incomplete_is_compiled_anew_without_a_word(tmp_path):
    """JAX writes them in place: another process may be writing, and a killed one leaves half of a file."""
    code = (
        "import jax; from experiments.cli import main; main._configure_jax(); "
        "print(jax.jit(lambda x: 2 * x + 1)(20.5))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-P", "-c", code]

    def outcome():
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    assert outcome() == ("42.0\n", "")
    entries = list(tmp_path.glob("*-cache"))
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:-20])
    assert outcome() == ("42.0\n", "")
