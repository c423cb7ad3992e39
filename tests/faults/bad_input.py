"""Bad input to every entry point: each costs one line and status 2, and nothing is written.

    .venv/bin/python -P -m tests.faults.campaign --parts=bad_input

The cases are in bad_input_cases.py and bad_networks.py, what they refer to is made by bad_input_places.py.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from tests.faults.bad_input_cases import CASES, GOOD
from tests.faults.bad_input_places import places
from tests.faults.bad_networks import NETWORK_CASES
from tests.faults.tried import Tried

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 600  # characters of a line
REFUSED = "one line, status 2, nothing written"


class Case(NamedTuple):
    """What an entry point is given, and a regular expression of what it must say."""

    entry: str
    title: str
    words: list[str]
    expected: str


def cases() -> Iterator[Case]:
    for entry, (usual, table) in (CASES | NETWORK_CASES).items():
        for title, (words, expected) in table.items():
            yield Case(entry, title, [*usual, *words], expected.replace(" | ", r" \| "))


def good() -> Iterator[Case]:
    """The same of what is accepted: that --out is refused shows that all the rest was not."""
    plain = ["--model=mlp-8", "--epochs=1", "--loss=labels", "--out={foreign}"]
    for title, words in GOOD.items():
        yield Case("distill", title, [*plain, *words], "^error: --out is taken: .* no run folder")


def tree(folder: Path) -> dict[str, str]:
    """What lies in a folder, to the byte."""
    return {
        str(path): os.readlink(path) if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }  # fmt: skip


def fault(outcome: Any, case: Case, before: dict[str, str], home: Path) -> str:
    """What is wrong with how it ended; nothing where all is well.  outcome: with status, out and err."""
    if outcome.status != 2:
        return f"status {outcome.status}: {outcome.err[-200:]}"
    if outcome.out or not re.fullmatch("error: .*\n", outcome.err):
        return f"not one line: {(outcome.out + outcome.err)[-200:]!r}"
    if not re.search(case.expected, outcome.err) or not re.search(": expected .+; given .+", outcome.err):
        return f"another line: {outcome.err}"
    if len(outcome.err) > LONGEST:
        return f"a line of {len(outcome.err)} characters"
    changed = sorted(dict(set(tree(home).items()) ^ set(before.items())))
    return f"written: {', '.join(changed[:3])}" if changed else ""


def attempt(
    launch: Any, case: Case, known: dict[str, str], before: dict[str, str], notes: bool = False
) -> str:
    """What is wrong with one case, run in the launcher's process.  notes: whether some may come first."""
    words = [word.format(**known) for word in case.words]
    outcome = launch(case.entry, *words)
    if notes:
        outcome = outcome._replace(err=re.sub("^(note: .*\n)*", "", outcome.err))
    return fault(outcome, case, before, Path(known["home"]))


def prepare(home: Path) -> tuple[dict[str, str], dict[str, str]]:
    """(names of places, the tree of all of them)."""
    known = places(home)
    return known, tree(home)


def environment(home: Path) -> dict[str, str]:
    """Of the entry points: ~ is `home`, the caches lie beside it."""
    beside = {"KD_JAX_CACHE": "decoded", "XDG_CACHE_HOME": "compiled", "MPLCONFIGDIR": "matplotlib"}
    return {"HOME": str(home)} | {name: f"{home}-{folder}" for name, folder in beside.items()}


def without_permission(home: Path, known: dict[str, str]) -> list[str] | None:
    """What is wrong with each of two real processes of a user whom permissions bind, in a folder that has
    none; None where there is no such user to be."""
    root = os.geteuid() == 0
    if root and not shutil.which("setpriv"):
        return None
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if root else []
    home.parent.chmod(0o755)
    closed = home / "bad" / "closed"
    commands = f"report {closed}/run", f"train_teacher --model=mlp-8 --out={closed}/new"
    shutil.copytree(known["sweep"], closed / "run")
    closed.chmod(0)
    found = []
    try:
        for command in commands:
            name, *words = command.split()
            line = [*user, sys.executable, "-P", "-m", f"experiments.{name}", *words]
            given = os.environ | environment(home) | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": "/dev/null"}
            done = subprocess.run(line, capture_output=True, text=True, cwd="/", env=given, check=False)
            well = done.returncode == 2 and re.fullmatch("error: .*ermission denied.*\n", done.stderr)
            found.append("" if well else f"{name}: status {done.returncode}: {done.stderr[-200:]}")
    finally:
        closed.chmod(0o755)
    return found


def row(what: str, outcome: str, each: list[str]) -> Tried:
    """each: what was wrong with each case, or nothing."""
    failures = tuple(filter(None, each))
    return Tried(what, len(each), len(each) - len(failures), outcome, failures)


def campaign() -> list[Tried]:
    from tests.experiments.launcher import Launcher

    wrong: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve() / "home"
        home.mkdir()
        with mock.patch.dict(os.environ, {"XLA_FLAGS": ""} | environment(home)), Launcher(home) as launch:
            known, before = prepare(home)
            for case in cases():
                found = attempt(launch, case, known, before)
                wrong.setdefault(case.entry, []).append(f"{case.title}: {found}" if found else "")
            accepted = [attempt(launch, case, known, before, True) for case in good()]
        closed = without_permission(home, known)
    rows = [row(f"wrong input to {entry}", REFUSED, each) for entry, each in wrong.items()]
    rows.append(row("names with spaces, letters of all kinds, ~, relative paths", "accepted", accepted))
    what = "a folder without permission, by a user whom it binds"
    return rows if closed is None else [*rows, row(what, "one line, status 2", closed)]
