"""Two commands on one run folder: the second is refused while the first lives, and goes on after its death.

The first is stopped just before one of its steps on the disk and the second is run; then the first goes on,
or is killed and the second run again. Also two that start at the same time.
"""

import random
import re
import signal
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.children import Children, Ended
from tests.faults.killed import COMMANDS, Whole, differences
from tests.faults.tried import Tried

REFUSED = r"error: --out=run is in use: expected a folder that no other process writes; given one that "


def refusal(second: Ended, holder: int) -> list[str]:
    """What is wrong with the answer to the second."""
    as_promised = second.status == 2 and re.fullmatch(rf"{REFUSED}process {holder} writes\n", second.err)
    return [] if as_promised else [f"the second: status {second.status}: {second.err.strip()[-300:]}"]


def claimed(whole: Whole, name: str) -> int:
    """The step of the undisturbed command that is the first after its claim of the folder."""
    return whole.steps[name].index(next(step for step in whole.steps[name] if "flock" in step)) + 2


def held(whole: Whole, name: str, steps: Iterable[int | str], goes_on: bool) -> Tried:
    """goes_on: whether the first goes on, else it is killed, and its lock is a dead process's."""
    failures, times = [], 0
    for step in steps:
        whole.clear()
        first = whole.children(name, *COMMANDS[name], step=step, signal="SIGSTOP")
        if first.status != signal.SIGSTOP:
            continue
        wrong = refusal(whole.children(name, *COMMANDS[name]), first.pid)
        if goes_on:
            status = whole.children.resume(first).status
            wrong += [f"the first ends with {status}"] if status else []
            wrong += differences(whole.of(name), whole.folder / "run")
        else:
            whole.children.kill(first)
            wrong += whole.wrong(name)
        times += 1
        failures += [f"step {step}: {', '.join(wrong)}"] if wrong else []
    then = "goes on" if goes_on else "is killed, and the second is run again"
    what = f"`{name}` on a folder in which another one is at work, which then {then}"
    who = "the first" if goes_on else "the second then"
    promise = f"the second is refused, the process named; {who} ends with the undisturbed outcome to the bit"
    return Tried(what, times, times - len(failures), promise, tuple(failures))


def together(whole: Whole, name: str, times: int) -> Tried:
    """Both started at the same time: one at least is done, the other refused or told that it is complete."""
    failures = []
    with Children(whole.folder) as others, ThreadPoolExecutor() as pool:
        for _ in range(times):
            whole.clear()
            both = [pool.submit(who, name, *COMMANDS[name]) for who in (whole.children, others)]
            ended = [one.result() for one in both]
            wrong = differences(whole.of(name), whole.folder / "run")
            if sorted(one.status for one in ended) not in ([0, 2], [0, 0]):
                wrong.append(f"statuses {[one.status for one in ended]}")
            wrong += [one.err for one in ended if one.err and not re.match(REFUSED, one.err)]
            failures += [", ".join(wrong)] if wrong else []
    what = f"two `{name}` started on one folder at the same time"
    promise = "one is refused or finds the run complete, the other ends as if it were alone"
    return Tried(what, times, times - len(failures), promise, tuple(failures))


def campaign() -> list[Tried]:
    draw, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder, Children(Path(folder)) as children:
        whole = Whole(children, ("train_teacher", "distill"))
        for name in ("train_teacher", "distill"):
            steps = range(
                claimed(whole, name), len(whole.steps[name]) - 10
            )  # clearing up gives the folder back
            for goes_on in (True, False):
                rows.append(held(whole, name, draw.sample(steps, 8), goes_on))
        return [*rows, together(whole, "train_teacher", 10)]
