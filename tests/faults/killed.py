"""Kill a run, start the same command again until it is done, and compare with the undisturbed run.

Killed at moments drawn from the undisturbed run's length, and just before single steps on the disk: of a
checkpoint, of each file of the outcome, of clearing up. Several processes are killed together.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from experiments.reporting.content import run_facts
from kd_jax.io import checkpoint, run_config
from tests.faults.children import ROOT, Children
from tests.faults.tried import Tried

RUN = ["--model=mlp-8", "--seeds=2", "--epochs=3", "--checkpoint_every=1", "--out=run"]
COMMANDS = {
    "train_teacher": RUN,
    "distill": [*RUN, "--teacher=teacher", "--omit=3"],
    "report": ["run"],
}
WHOLE = {"train_teacher": "teacher", "distill": "whole"}
OUTCOME = (
    "history.csv", "results.csv", "confusions.npz", "bias_curve.csv", "examples.npz", "summary.json",
)  # fmt: skip
REPORTS = ("report.md", "report.html")
PROMISE = "the same command, run again, ends with the undisturbed run's outcome to the bit"


def differences(one: Path, other: Path) -> list[str]:
    """What two finished runs do not have in common, but for the time that they took."""
    found = [name for name in OUTCOME if _bytes(one / name) != _bytes(other / name)]
    found += [name for name in REPORTS if _timeless(one, name) != _timeless(other, name)]
    listed = [set(_names(folder)) for folder in (one, other)]
    return found + _of_arrays(one, other) + sorted(listed[0] ^ listed[1])


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _timeless(folder: Path, name: str) -> str:
    facts = dict(run_facts(run_config.read(folder)))
    return (folder / name).read_text().replace(facts["time"], "")


def _names(folder: Path) -> Iterator[str]:
    """Of all its files, those of a checkpoint's arrays left out: Orbax draws their names."""
    for path in folder.rglob("*"):
        if "arrays" not in path.relative_to(folder).parts:
            yield str(path.relative_to(folder))


def _of_arrays(one: Path, other: Path) -> list[str]:
    found = []
    for name in ("teachers", "students"):
        if (one / name).exists():
            trees = [checkpoint.load(folder / name)[0]["params"] for folder in (one, other)]
            for layer, leaves in trees[0].items():
                for kind, leaf in leaves.items():
                    if not np.array_equal(leaf, trees[1][layer][kind]):
                        found.append(f"{name}/{layer}/{kind}")
    return found


class Whole:
    """The undisturbed runs in a folder, the seconds that they took and their steps."""

    def __init__(self, children: Children, names: Iterable[str] = COMMANDS, times: int = 2):
        """times: how often each is run, the last one to be told of; the first fills the caches."""
        self.children, self.folder = children, children.folder
        self.seconds: dict[str, float] = {}
        self.steps: dict[str, list[str]] = {}
        for name in names:
            if name != "report":
                for _ in range(times):
                    self.clear()
                    ended = children(name, *COMMANDS[name])
                    assert (ended.status, ended.err) == (0, ""), ended
                shutil.copytree(self.folder / "run", self.folder / WHOLE[name])
            else:
                ended = children(name, *COMMANDS[name])
            self.seconds[name], self.steps[name] = ended.seconds, ended.steps

    def of(self, name: str) -> Path:
        """The finished run of a command."""
        students = self.folder / WHOLE["distill"]
        return students if name != "train_teacher" and students.exists() else self.folder / "teacher"

    def clear(self) -> None:
        shutil.rmtree(self.folder / "run", ignore_errors=True)

    def begin(self, name: str) -> None:
        """The folder as the command is to find it."""
        self.clear()
        if name == "report":
            shutil.copytree(self.of(name), self.folder / "run")

    def wrong(self, name: str) -> list[str]:
        """What is wrong with the run after the command is run again."""
        ended = self.children(name, *COMMANDS[name])
        if ended.status:
            return [f"status {ended.status}: {ended.err.strip()[-300:]}"]
        return differences(self.of(name), self.folder / "run")


def at_steps(whole: Whole, name: str, steps: Iterable[int | str]) -> Tried:
    """Killed just before each of these steps, each time in a fresh folder."""
    failures, times = [], 0
    for step in steps:
        whole.begin(name)
        ended = whole.children(name, *COMMANDS[name], step=step, signal="SIGKILL")
        assert ended.status in (0, -signal.SIGKILL), ended
        times += 1
        if wrong := whole.wrong(name):
            failures.append(f"before {ended.steps[-1]} ({step}): {', '.join(wrong)}")
    what = f"`{name}` killed just before it opens, renames or removes a file or a folder"
    return Tried(what, times, times - len(failures), PROMISE, tuple(failures))


def at_moments(whole: Whole, name: str, draw: random.Random, times: int) -> Tried:
    """Killed at one or two moments drawn from the undisturbed run's length."""
    failures = []
    for _ in range(times):
        whole.begin(name)
        moments = [draw.uniform(0, whole.seconds[name]) for _ in range(draw.randint(1, 2))]
        for moment in moments:
            whole.children(name, *COMMANDS[name], after=moment)
        if wrong := whole.wrong(name):
            failures.append(f"at {', '.join(f'{moment:.2f} s' for moment in moments)}: {', '.join(wrong)}")
    held = times - len(failures)
    return Tried(f"`{name}` killed at random moments", times, held, PROMISE, tuple(failures))


def start_two(whole: Whole) -> subprocess.Popen:
    """Two processes in a group of their own, so that they can be killed at once."""
    command = ["experiments.cli.cluster", "2", "distill", *COMMANDS["distill"]]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *command],
        cwd=whole.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish_two(whole: Whole) -> float:
    """Seconds that two processes took to the end."""
    begun, process = time.monotonic(), start_two(whole)
    error = process.communicate()[1].decode()
    assert process.returncode == 0, error
    return time.monotonic() - begun


def two_processes(whole: Whole, draw: random.Random, times: int) -> Tried:
    """Two processes that share the runs, killed together at a random moment."""
    failures, run, undisturbed = [], whole.folder / "run", whole.folder / "together"
    for _ in range(2):  # the first fills the compilation cache
        whole.clear()
        seconds = finish_two(whole)
    run.rename(undisturbed)
    for _ in range(times):
        whole.clear()
        process, moment = start_two(whole), draw.uniform(0, seconds)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        finish_two(whole)
        if wrong := differences(undisturbed, run):
            failures.append(f"at {moment:.2f} s: {', '.join(wrong)}")
    what = "two processes that run `distill` together, both killed at a random moment"
    return Tried(what, times, times - len(failures), PROMISE, tuple(failures))


def campaign() -> list[Tried]:
    draw, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as name, Children(Path(name)) as children:
        whole = Whole(children)
        for name, times in (("train_teacher", 18), ("distill", 16), ("report", 16)):
            rows.append(at_moments(whole, name, draw, times))
        for name, every in (("train_teacher", 10), ("distill", 10), ("report", 2)):
            rows.append(
                at_steps(whole, name, range(1 + draw.randrange(every), len(whole.steps[name]), every))
            )
        return [*rows, two_processes(whole, draw, 3)]
