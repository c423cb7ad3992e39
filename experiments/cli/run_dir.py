"""Who may write a run folder: one process, of the experiment that the folder holds."""

import contextlib
import fcntl
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import IO

from experiments.cli import flags, main, places
from kd_jax.errors import InputError
from kd_jax.io import run_config, sums
from kd_jax.stats.description import RunDescription, TimeSpent

LOCK = ".lock"
MOST_NAMED = 4  # of what differs from the run that a folder holds


def acquire(out: Path, description: RunDescription) -> bool:
    """Whether the folder already held this experiment."""
    places.refuse_inside(out)
    try:
        if not out.exists() or (out.is_dir() and set(out.iterdir()) <= leftovers(out)):
            made = not out.exists()
            out.mkdir(parents=True, exist_ok=True)
            _lock(out)
            run_config.write(out, replace(description, time=TimeSpent()))
            main.AT_END.callback(discard_if_empty, out, made)
            return False
    except OSError as error:
        raise InputError("--out cannot be written", "a folder that this user may write", error) from None
    if not (out / "config.json").is_file():
        expected, given = "a new folder, or one of the same experiment", f"{out}, which is no run folder"
        raise InputError("--out is taken", expected, given)
    saved = out / "checkpoints"
    if saved.exists() and not saved.is_dir() and not (out / "results.csv").exists():
        expected = "a folder checkpoints/ in it, or none"
        raise InputError(f"--out={out} cannot be continued", expected, f"{saved}, which is a file")
    before = run_config.read(out)
    differing = [
        f"--{name}={now} (there {'not given' if then is None else then})"
        for name in sorted(set(before.flags) | set(description.flags))
        # A flag that is younger than the run has not changed where it has its default.
        for now in [description.flags.get(name)]
        for then in [before.flags.get(name, flags.default(name))]
        if name not in flags.NOT_PART_OF_THE_EXPERIMENT and now != then
    ]
    if before.experiment != description.experiment:
        differing = [f"experiment {description.experiment} (there {before.experiment})"]
    if (before.teacher or {}).get("sha256") != (description.teacher or {}).get("sha256"):
        differing.append("another teacher")
    for part, what in (("pretrained", "other pretrained weights"), ("transfer", "another transfer set")):
        if getattr(before, part) != getattr(description, part):
            differing.append(what)
    if not differing:  # the same words, yet not the same thing: a data file that was changed, another program
        parts = ("data", "settings", "runs")
        differing = [
            f"other {part} than then" for part in parts if getattr(before, part) != getattr(description, part)
        ]
    if differing:
        expected = "a new folder, or the same flags"
        more = f" and {len(differing) - MOST_NAMED} more" if len(differing) > MOST_NAMED else ""
        raise InputError(f"--out={out} holds another run", expected, ", ".join(differing[:MOST_NAMED]) + more)
    _lock(out)
    return True


def discard_if_empty(out: Path, made: bool) -> None:
    """A run that came to nothing, as one that does not fit into the memory, does not keep its folder from a
    better one.  made: whether this process made the folder."""
    config = out / "config.json"
    with contextlib.suppress(OSError):
        if set(out.iterdir()) <= {config, *leftovers(out)}:
            config.unlink()
            for path in leftovers(out):
                path.unlink()
            if made:
                out.rmdir()


def _lock(out: Path) -> None:
    """Two processes in one folder would overwrite each other. The kernel drops the lock when this one dies.
    The file's content only says who holds it."""
    file = open(out / LOCK, "a+")  # noqa: SIM115
    main.AT_END.enter_context(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        expected, holder = "a folder that no other process writes", file.read().strip()
        raise InputError(f"--out={out} is in use", expected, f"one that process {holder} writes") from None
    except OSError:  # a file system without locks
        return
    if not _is_at(out / LOCK, file):  # whose holder ended meanwhile, and took it away
        _lock(out)
        return
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    main.AT_END.callback((out / LOCK).unlink, missing_ok=True)  # while it is held, so no one else's


def _is_at(path: Path, file: IO) -> bool:
    """Whether an open file is still the one that its path names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def leftovers(out: Path) -> set[Path]:
    """What a killed process left: files half written under a name of their own, and its lock file."""
    names = r"config\.json|history\.csv|(results|bias_curve|representation)\.csv|summary\.json"
    names += rf"|(examples|confusions)\.npz|report\.(md|html)|{sums.NAME}"
    half_written = [path for path in out.glob(".*.tmp") if re.fullmatch(rf"\.({names})\.\d+\.tmp", path.name)]
    return {*half_written, *out.glob(LOCK)}
