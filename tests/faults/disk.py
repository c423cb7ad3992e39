"""A disk that is full, folders that may not be written: a clear error, nothing lost, and the run can go on.

The disk is a small tmpfs, which only root can mount; each size is full at another moment of the run.
"""

import contextlib
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kd_jax.io import checkpoint
from tests.faults.children import Children, Ended
from tests.faults.killed import COMMANDS, Whole, differences
from tests.faults.tried import Tried

PAGE = 4096
FULL = (
    "one line that names the cause, all checkpoints whole; with room, the same command ends as if undisturbed"
)
CLOSED = "one line that names the cause, nothing changed; allowed to, the same command ends as if undisturbed"


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of `size` bytes in `folder`, which is made."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def more_room(folder: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={2**28}", folder], check=True)


def used(folder: Path) -> int:
    """Bytes that its files take on a tmpfs."""
    return sum(-(-path.lstat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def one_line(ended: Ended, cause: str) -> list[str]:
    """What is wrong with how it ended."""
    lines = ended.err.strip().splitlines()
    if ended.status == 2 and len(lines) == 1 and lines[0].startswith("error: ") and cause in lines[0]:
        return []
    return [f"status {ended.status}: {ended.err.strip()[-400:]}"]


def checkpoints(folder: Path) -> list[str]:
    """Which of its checkpoints are not whole."""
    wrong = []
    for path in [*folder.glob("checkpoints/epoch_*"), *folder.glob("teachers"), *folder.glob("students")]:
        try:
            checkpoint.load(path)
        except Exception as error:
            wrong.append(f"{path.name}: {error}")
    return wrong


def full(whole: Whole, name: str, sizes: list[int]) -> Tried:
    """The run folder on a disk of each of these sizes in bytes; only those that are too small count."""
    failures, times, run = [], 0, whole.folder / "run"
    for size in sizes:
        whole.clear()
        with disk(run, size):
            if name == "report":
                shutil.copytree(whole.of(name), run, dirs_exist_ok=True)
            ended = whole.children(name, *COMMANDS[name], draw=name == "report")
            if ended.status == 0:
                continue
            times += 1
            wrong = one_line(ended, "No space left on device") + checkpoints(run)
            more_room(run)
            wrong += whole.wrong(name)
        failures += [f"{size} bytes: {', '.join(wrong)}"] if wrong else []
    what = f"`{name}` on a disk that becomes full, at another moment each time"
    return Tried(what, times, times - len(failures), FULL, tuple(failures))


@contextlib.contextmanager
def not_writable(folder: Path) -> Iterator[None]:
    """Nothing in the folder may be written, nor the folder itself."""
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def closed(whole: Whole, name: str, steps: list[int]) -> Tried:
    """On what was killed at each of these steps, in a folder that may not be written; at 0 in a new one."""
    failures, run = [], whole.folder / "run"
    for step in steps:
        whole.begin(name)
        if step:
            whole.children(name, *COMMANDS[name], step=step, signal="SIGKILL")
        run.mkdir(exist_ok=True)
        before = snapshot(run)
        with not_writable(run):
            wrong = one_line(whole.children(name, *COMMANDS[name]), "Permission denied")
        wrong += ["something changed"] if snapshot(run) != before else []
        wrong += whole.wrong(name)
        failures += [f"step {step}: {', '.join(wrong)}"] if wrong else []
    what = f"`{name}` in a folder that may not be written"
    return Tried(what, len(steps), len(steps) - len(failures), CLOSED, tuple(failures))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size in bytes and time in ns of the last change of all that is there."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def closed_caches(folder: Path) -> Tried:
    """Neither the cache of decoded data nor that of compiled programs may be written."""
    (folder / "caches").mkdir()
    caches = {"XDG_CACHE_HOME": str(folder / "caches"), "KD_JAX_CACHE": "", "JAX_COMPILATION_CACHE_DIR": ""}
    caches["MPLCONFIGDIR"] = str(folder)  # of which nothing is asked here
    with Children(folder, **caches) as children, not_writable(folder / "caches"):
        ended = children("train_teacher", *COMMANDS["train_teacher"])
    wrong = [f"status {ended.status}: {ended.err.strip()[-400:]}"] if ended.status or ended.err else []
    wrong = wrong or differences(folder / "teacher", folder / "run")
    what = "`train_teacher` where neither cache (decoded data, compiled programs) may be written"
    return Tried(what, 1, int(not wrong), "it ends as if undisturbed", tuple(wrong))


def campaign() -> list[Tried]:
    draw, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as name, Children(Path(name)) as children:
        whole = Whole(children)
        for command, times in (("train_teacher", 12), ("distill", 12), ("report", 6)):
            least, most = 0, used(whole.of(command))
            if command == "report":  # the finished run is there already
                least, most = most, most + 2**18
            sizes = [PAGE * (1 + draw.randrange(least // PAGE, most // PAGE)) for _ in range(times)]
            rows.append(full(whole, command, sizes))
        for command in COMMANDS:
            steps = [draw.randrange(10, len(whole.steps[command]) - 10) for _ in range(3)]
            rows.append(closed(whole, command, [*([0] * (command != "report")), *steps]))
        whole.clear()
        return [*rows, closed_caches(children.folder)]
