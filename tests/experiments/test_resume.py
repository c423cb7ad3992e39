"""A run again, and after an interruption; damage; two processes at a time."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kd_jax.io import checkpoint
from tests.experiments.launcher import ROOT, Launcher
from tests.experiments.runs import TEACHER_FILES, config_of, done, same_arrays, snapshot
from tests.io.damage import flip_a_byte


def test_the_same_command_again_changes_nothing(launch, teacher, sweep, tmp_path):
    for name, made in (("train_teacher", teacher), ("distill", sweep)):
        run = made._replace(folder=shutil.copytree(made.folder, tmp_path / made.folder.name))
        rewritten = {
            run.folder / "report.html",
            run.folder / "report.md",
            run.folder / "summary.json",
            *(run.folder / "figures").iterdir(),
        }
        before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
        untouched = {path: path.stat().st_mtime_ns for path in before if path not in rewritten}
        for path in rewritten:
            path.unlink()
        # How the work is done may change; what comes out may not.
        outcome = launch(name, *run.words, "--vmap_size=2", "--checkpoint_every=7", f"--out={run.folder}")
        assert outcome.status == 0 and outcome.err == ""
        assert outcome.out.startswith(f"{run.folder} is complete; the report is written again\n")
        said = done(run).out.replace(str(made.folder), str(run.folder))
        table = [line for line in said.split("\n")[1:] if not line.startswith("epoch ")]
        assert outcome.out.split("\n")[1:] == table
        assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
        assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


def same_outcome(folder: Path, other: Path, arrays: str) -> None:
    for name in ("history.csv", "results.csv", "confusions.npz"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    assert same_arrays(folder / arrays, other / arrays)
    assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}


def test_killed_and_resumed_is_the_same_to_the_bit(launch, home, sweep):
    folder = home / "killed"
    words = [*sweep.words, f"--out={folder}"]
    with Launcher(home) as first, Launcher(home) as second:
        assert first("distill", *words, die="SIGKILL", before="epoch_000002").status == -signal.SIGKILL
        assert [path.name for path in (folder / "checkpoints").glob("[!.]*")] == ["epoch_000001"]
        assert second("distill", *words, die="SIGKILL", before="students").status == -signal.SIGKILL
        assert (folder / "checkpoints/epoch_000003").is_dir() and not (folder / "students").exists()
    outcome = launch("distill", *words, draw=False)
    assert outcome.status == 0 and outcome.err == "" and outcome.out.startswith("continuing after epoch 3\n")
    assert "\ntraining" not in outcome.out and "continued" not in config_of(folder)
    # The segment in which it was killed is not counted, the same one that was trained again is.
    assert config_of(folder)["time"]["examples"] == config_of(sweep.folder)["time"]["examples"]
    same_outcome(folder, sweep.folder, "students")


@pytest.mark.parametrize(
    "at", ["config.json", "epoch_000001", "epoch_000003", "teachers", "results.csv", "summary.json"]
)
def test_interrupted_and_resumed_is_the_same_to_the_bit(launch, home, teacher, at):
    folder = home / f"interrupted_{at}"
    words = [*teacher.words, f"--out={folder}"]
    outcome = launch("train_teacher", *words, die="SIGINT", before=at, draw=False)
    assert outcome.status == 130 and "the same command continues" in outcome.err.splitlines()[-1]
    stop = "finishing the segment, then stopping; again to stop at once"
    assert outcome.err.splitlines()[:-1] == [stop] * at.startswith("epoch")
    # What is trained is saved before anything is computed of it; `at` itself is there when the signal comes.
    assert (folder / "teachers").exists() == (at in ("teachers", "results.csv", "summary.json"))
    outcome = launch("train_teacher", *words, draw=False)
    assert outcome.status == 0 and outcome.err == ""
    # While it trains, it ends the segment and saves it; before that there is nothing to continue.
    assert ("continuing after epoch" in outcome.out) == (at not in ("config.json", "summary.json"))
    assert ("is complete" in outcome.out) == (at == "summary.json")
    same_outcome(folder, teacher.folder, "teachers")


def test_what_a_killed_process_left_half_written_is_cleared_away(launch, toy, tmp_path):
    for name in (".config.json.123.tmp", ".results.csv.123.tmp", ".lock"):
        (tmp_path / name).write_text("half")
    outcome = launch("train_teacher", *toy.words, f"--out={tmp_path}", draw=False)
    assert outcome.status == 0 and {path.name for path in tmp_path.iterdir()} == TEACHER_FILES


@pytest.fixture
def stopped(launch, teacher, tmp_path) -> tuple[Path, list[str]]:
    """A teacher's run folder that was left after two of three epochs, and the flags that continue it."""
    words = [*teacher.words, f"--out={tmp_path / 'run'}"]
    assert launch("train_teacher", *words, die="SIGINT", before="epoch_000002").status == 130
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["epoch_000001", "epoch_000002"]
    return tmp_path / "run", words


def test_a_damaged_checkpoint_is_passed_over(launch, teacher, stopped):
    folder, words = stopped
    flipped = flip_a_byte(folder / "checkpoints" / "epoch_000002")
    outcome = launch("train_teacher", *words, draw=False)
    assert outcome.status == 0 and outcome.out.startswith("continuing after epoch 1\n")
    assert outcome.err.startswith("note: epoch_000002 is passed over") and outcome.err.count("\n") == 1
    assert str(flipped) in outcome.err
    same_outcome(folder, teacher.folder, "teachers")


def test_damaged_checkpoints_alone_are_not_resumed(launch, stopped):
    folder, words = stopped
    flipped = [flip_a_byte(path) for path in sorted((folder / "checkpoints").iterdir())]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    outcome = launch("train_teacher", *words)
    assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 2
    passed, refused = outcome.err.splitlines()
    assert passed.startswith("note: epoch_000002 is passed over") and str(flipped[1]) in passed
    assert refused.startswith("error: damaged checkpoint") and str(flipped[0]) in refused
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_tree_is_not_resumed(launch, stopped):
    folder, words = stopped
    for path in (folder / "checkpoints").iterdir():
        arrays, about = checkpoint.load(path)
        del arrays["states"]["epoch"]
        shutil.rmtree(path)
        checkpoint.save(path, arrays, about)
    outcome = launch("train_teacher", *words)
    assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 2
    assert re.search("\nerror: checkpoint .*epoch_000001 does not fit: expected .*; given ", outcome.err)


def test_another_command_that_continues_is_recorded(launch, teacher, stopped):
    folder, words = stopped
    before = config_of(folder)
    assert launch("train_teacher", *words, "--vmap_size=1", draw=False).status == 0
    after = config_of(folder)
    command = f"{before['command']} --vmap_size=1"
    seen = {name: before[name] for name in ("versions", "device")}
    spent = before.pop("time"), after.pop("time")
    assert all(spent[1][name] > number > 0 for name, number in spent[0].items())
    assert after == before | {"continued": [seen | {"command": command, "epoch": 2}]}
    same_outcome(folder, teacher.folder, "teachers")


def test_one_process_at_a_time(launch, stopped):
    folder, words = stopped
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        before = snapshot(folder)
        outcome = launch("train_teacher", *words)
        assert outcome.status == 2 and outcome.out == "" and outcome.err.count("\n") == 1
        assert re.search("is in use: expected .*; given one that process 4711 writes", outcome.err)
        assert snapshot(folder) == before
    assert launch("train_teacher", *words, draw=False).status == 0
    assert not (folder / ".lock").exists()


def test_a_second_ctrl_c_stops_at_once(home, teacher, tmp_path):
    """One segment of a million epochs, which would take hours."""
    words = [*teacher.words, "--epochs=1000000", "--checkpoint_every=1000000", f"--out={tmp_path / 'run'}"]
    command = [sys.executable, "-P", "-m", "experiments.train_teacher", *words]
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=home, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("training 2 runs (1 setting x 2 seeds), 1000000 epochs;")
        assert (tmp_path / "run" / ".lock").read_text() == str(process.pid)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.readline()
        assert said == "finishing the segment, then stopping; Ctrl-C to stop at once\n"
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
        said = process.stderr.read()
        assert said == "interrupted; the same command continues from the last checkpoint\n"
