"""Every case of bad input, one after another in one process."""

from pathlib import Path

import pytest

from tests.experiments.launcher import Outcome
from tests.faults import bad_input


@pytest.fixture(scope="module")
def ready(launch, home):
    """(launcher, names of places, the tree of all of them)."""
    return launch, *bad_input.prepare(home)


CASES = [pytest.param(case, id=f"{case.entry}, {case.title}") for case in bad_input.cases()]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_costs_one_line(ready, case):
    assert bad_input.attempt(ready[0], case, *ready[1:]) == ""


@pytest.mark.parametrize("case", list(bad_input.good()), ids=lambda case: case.title)
def test_what_is_good_is_accepted(ready, case):
    assert bad_input.attempt(ready[0], case, *ready[1:], notes=True) == ""


def test_what_is_no_refusal_is_seen(tmp_path):
    (tmp_path / "held").write_text("before")
    before = bad_input.tree(tmp_path)
    case = bad_input.Case("report", "", [], "^error: wrong")
    line = "error: wrong: expected a; given b\n"
    for expected, outcome in {
        "": Outcome(2, "", line),
        "status 0": Outcome(0, "", line),
        "status 1": Outcome(1, "", "Traceback"),
        "not one line": Outcome(2, "out", line),
        "not one line: 'e": Outcome(2, "", f"{line}note\n"),
        "another line": Outcome(2, "", "error: other: expected a; given b\n"),
        "a line of": Outcome(2, "", line.replace("b", "b" * 600)),
    }.items():
        found = bad_input.fault(outcome, case, before, tmp_path)
        assert found.startswith(expected) and bool(found) == bool(expected), found
    (tmp_path / "held").write_text("beforf")
    assert (
        bad_input.fault(Outcome(2, "", line), case, before, Path(tmp_path)) == f"written: {tmp_path / 'held'}"
    )
