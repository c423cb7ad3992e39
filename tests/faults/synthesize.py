"""`synthesize` killed, stopped, on a full disk, where it may not write, and from a damaged teacher.

    .venv/bin/python -P -m tests.faults.campaign --parts=synthesize

It computes for minutes and then writes one file, so all that matters is that the file is whole or not there.
"""

import random
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.settings.synthesis import load_teacher
from tests.faults.children import Children, Ended
from tests.faults.damaged import read_damaged
from tests.faults.disk import PAGE, disk, more_room, not_writable, one_line, snapshot
from tests.faults.killed import COMMANDS
from tests.faults.tried import Tried

WORDS = ["teacher", "--classes=3", "--num_images=3", "--updates=2", "--batch_size=4", "--out=made/threes.npz"]
FILES = {"threes.npz", "threes.png"}
WHOLE = "no .npz or a whole one; the same command then makes the same images, or says that they exist"
NOTHING = "no file, whole or half written; the same command then makes the same images"


class Made:
    """The undisturbed file of a teacher, the seconds that it took and its steps."""

    def __init__(self, children: Children, trained: bool = False):
        """trained: whether teacher/ is there."""
        self.children, self.folder = children, children.folder / "made"
        if not trained:
            ended = children("train_teacher", *COMMANDS["train_teacher"])
            assert (ended.status, ended.err) == (0, ""), ended
            (children.folder / "run").rename(children.folder / "teacher")
        for _ in range(2):  # the first fills the compilation cache
            self.clear()
            ended = self()
            assert (ended.status, ended.err) == (0, ""), ended
        self.seconds, self.steps = ended.seconds, ended.steps
        self.images = self.read()
        assert self.images is not None
        self.clear()

    def __call__(self, **where: Any) -> Ended:
        """Runs it.  where: as of `Children`."""
        return self.children("synthesize", *WORDS, **where)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self) -> dict[str, np.ndarray] | None:
        """All arrays but the provenance, which has the time; None where no file is."""
        path = self.folder / "threes.npz"
        if not path.exists():
            return None
        with np.load(path) as held:
            return {name: held[name] for name in held.files if name != "provenance"}

    def names(self) -> set[str]:
        """Of all that lies in the folder."""
        return {path.name for path in self.folder.rglob("*")}

    def differs(self) -> bool:
        """Whether the file holds anything but the undisturbed images."""
        found = self.read()
        same = found is not None and found.keys() == self.images.keys()
        return not same or any(found[name].tobytes() != self.images[name].tobytes() for name in found)

    def wrong(self) -> list[str]:
        """What is wrong with what lies there now, and after the same command is run again."""
        try:
            was_there = self.read() is not None
        except Exception as error:
            return [f"a file that is not whole: {error!r}"]
        ended = self()
        refused = ended.status == 2 and "--out exists" in ended.err
        found = [] if (refused if was_there else ended.status == 0) else [str(ended)]
        found += ["other images"] if self.differs() else []
        left = sorted(self.names() - FILES) if not was_there else []
        return found + ([f"left: {', '.join(left)}"] if left else [])


def killed(made: Made, what: str, wheres: Iterable[dict[str, Any]]) -> Tried:
    """By SIGKILL, at each of these places.  wheres: as of `Children`."""
    failures, times = [], 0
    for where in wheres:
        made.clear()
        made(**where)
        times += 1
        wrong = made.wrong()
        failures += [f"{where}: {', '.join(wrong)}"] if wrong else []
    return Tried(f"`synthesize` killed {what}", times, times - len(failures), WHOLE, tuple(failures))


def at_steps(made: Made, steps: Iterable[int | str]) -> Tried:
    """Killed just before each of these steps."""
    what = "just before it opens, renames or removes a file or a folder"
    return killed(made, what, ({"step": step, "signal": "SIGKILL"} for step in steps))


def at_moments(made: Made, draw: random.Random, times: int) -> Tried:
    moments = (draw.uniform(0, made.seconds) for _ in range(times))
    return killed(made, "at random moments", ({"after": moment} for moment in moments))


def stopped(made: Made, numbers: Iterable[str]) -> Tried:
    """By a signal that it hears, as it is about to give the written file its name."""
    failures, times = [], 0
    for number in numbers:
        made.clear()
        ended = made(step="os.rename made/threes.npz", signal=number)
        times += 1
        left = sorted(made.names())
        wrong = [f"left: {', '.join(left)}"] if left else []
        wrong += [] if ended.status > 128 else [str(ended)]
        wrong += made.wrong()
        failures += [f"{number}: {', '.join(wrong)}"] if wrong else []
    what = "`synthesize` stopped by SIGTERM or Ctrl-C while its file is written"
    return Tried(what, times, times - len(failures), NOTHING, tuple(failures))


def full(made: Made, sizes: Iterable[int]) -> Tried:
    """The folder on a disk of each of these sizes in bytes; only those that are too small count."""
    failures, times = [], 0
    for size in sizes:
        made.clear()
        with disk(made.folder, size):
            ended = made()
            if ended.status == 0:
                continue
            times += 1
            wrong = one_line(ended, "No space left on device")
            left = sorted(made.names() - FILES)
            wrong += [f"left: {', '.join(left)}"] if left else []
            more_room(made.folder)
            wrong += made.wrong()
        failures += [f"{size} bytes: {', '.join(wrong)}"] if wrong else []
    what = "`synthesize` on a disk that becomes full"
    outcome = f"one line that names the cause, {WHOLE}"
    return Tried(what, times, times - len(failures), outcome, tuple(failures))


def closed(made: Made) -> Tried:
    made.clear()
    made.folder.mkdir()
    with not_writable(made.folder):
        before = snapshot(made.folder)
        wrong = one_line(made(), "--out cannot be written")
        wrong += ["something changed"] if snapshot(made.folder) != before else []
    wrong += made.wrong()
    outcome = f"one line that names the cause, {NOTHING}"
    return Tried("`synthesize` in a folder that may not be written", 1, int(not wrong), outcome, tuple(wrong))


def teacher_rows(folder: Path, draw: random.Random, times: int) -> list[Tried]:
    """Of a damaged teacher, as `synthesize` reads it.  folder: of a finished train_teacher; times: a file."""

    def read() -> Any:
        teacher = load_teacher(str(folder), untrained=False)
        return teacher._replace(model=repr(teacher.model))._asdict()

    files = sorted(path for path in (folder / "teachers").rglob("*") if path.is_file())
    what = "a file of the teacher that `synthesize` reads"
    return read_damaged([folder / "config.json", *files], read, what, draw, times)


def campaign() -> list[Tried]:
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name, Children(Path(name)) as children:
        made = Made(children)
        rows = [at_steps(made, range(1, len(made.steps), 3)), at_moments(made, draw, 12)]
        rows += [stopped(made, ("SIGTERM", "SIGINT")), full(made, [PAGE * n for n in range(1, 6)])]
        rows.append(closed(made))
        return rows + teacher_rows(children.folder / "teacher", draw, 20)
