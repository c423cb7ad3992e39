"""Much of it: a sweep of a thousand runs in memory that does not grow, and many starts that leave nothing."""

import contextlib
import math
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.children import Children
from tests.faults.tried import Tried

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--dataset=digits", "--loss=labels", "--model=mlp-16", "--batch_size=256", "--checkpoint_every=1"]
STOPPED = (0, 128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM)  # the last in its first moments
GROWTH = 1.1  # of memory from the first quarter of the epochs to the last; each epoch adds to the history


def start(out: Path, *words: str) -> subprocess.Popen:
    """In a group of its own, so that whatever is left of it can be found."""
    command = [sys.executable, "-P", "-m", "experiments.distill", *SMALL, *words, f"--out={out}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where it has ended."""
    try:
        return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    except (OSError, IndexError):
        return 0


def long_sweep(folder: Path, seeds: int, epochs: int) -> Tried:
    """One sweep, its memory looked at after every epoch."""
    process = start(folder / "long", f"--seeds={seeds}", f"--epochs={epochs}")
    memory: dict[int, int] = {}
    while process.poll() is None:
        saved = [int(path.name[6:]) for path in (folder / "long" / "checkpoints").glob("epoch_*")]
        if saved and (held := resident(process.pid)) and max(saved) < epochs:
            memory[max(saved)] = max(held, memory.get(max(saved), 0))
        time.sleep(0.02)
    failures = []
    if process.returncode:
        failures.append(f"status {process.returncode}: {process.stderr.read().decode()[-300:]}")
    first, last = (statistics.median(of.values()) if of else math.nan for of in _ends(memory, epochs))
    if not last <= GROWTH * first:
        failures.append(f"memory grew from {first:,.0f} to {last:,.0f} bytes")
    what = f"a sweep of {seeds:,} runs, {epochs} epochs, a checkpoint after each"
    outcome = f"done; memory grew by {100 * (last / first - 1):.1f} % from the first quarter to the last"
    return Tried(what, 1, int(not failures), outcome, tuple(failures))


def _ends(memory: dict[int, int], epochs: int) -> tuple[dict[int, int], dict[int, int]]:
    """What was held in the first quarter of the epochs, but for the very first, and in the last quarter."""
    early = {epoch: held for epoch, held in memory.items() if 1 < epoch <= epochs / 4}
    return early, {epoch: held for epoch, held in memory.items() if epoch > 3 * epochs / 4}


def strays(folder: Path, known: set[int]) -> list[str]:
    """What those that worked in a folder left: processes but the known ones, locks, half-written files."""
    found = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name == ".lock" or path.name.endswith((".tmp", ".incomplete")) or "-tmp" in path.name
    ]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (process / "cwd").resolve() == folder.resolve() and int(process.name) not in known:
                found.append(f"process {process.name}")
    return found


def starts(folder: Path, times: int, seed: int = 0) -> Tried:
    """Started and stopped at moments of a whole run: by SIGTERM, by Ctrl-C, or not at all."""
    draw, failures = random.Random(seed), []
    words = *SMALL, "--seeds=2", "--epochs=6"
    with Children(folder) as children:
        known = {children.process.pid, os.getpid()}
        for turn in range(2):  # the first fills the compilation cache, the second is timed
            length = children("distill", *words, f"--out=whole_{turn}").seconds
        for number in range(times):
            request = draw.choice(["SIGTERM", "SIGINT", None])
            where = {"after": draw.uniform(0, length), "signal": request} if request else {}
            # Four share a folder, so most starts continue what another began.
            ended = children("distill", *words, f"--out=run_{number // 4}", **where)
            wrong = strays(folder, known)
            if ended.status not in STOPPED and not ended.err.endswith("KeyboardInterrupt\n"):
                wrong.append(f"status {ended.status}: {ended.err[-300:]}")
            failures += [f"start {number}, {request}: {', '.join(wrong)}"] if wrong else []
    what = "`distill` started, and stopped by SIGTERM, by Ctrl-C, or left to its end"
    outcome = "no process, no lock and no half-written file is left"
    return Tried(what, times, times - len(failures), outcome, tuple(failures))


def campaign() -> list[Tried]:
    with tempfile.TemporaryDirectory() as name:
        long = long_sweep(Path(name), 1000, 60)
    with tempfile.TemporaryDirectory() as name:
        return [long, starts(Path(name), 200)]
