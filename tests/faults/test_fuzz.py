"""A small portion of the fuzz run, and list flags by their properties."""

import math
import os
import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from experiments.cli import main, parse
from kd_jax.errors import InputError
from tests.faults import fuzz, fuzz_flags

RARE = ("read for figures", "arrays of a teacher")
"""Figures take long; Orbax leaves coroutines half done when it fails, which pytest reports."""

often = settings(max_examples=150, derandomize=True, database=None, deadline=None)


@pytest.mark.slow
def test_whatever_is_spoilt_is_read_or_refused(tmp_path):
    with mock.patch.object(main, "log_note", lambda line: None):
        for target in fuzz.targets(tmp_path):
            if not target.what.endswith(RARE) and not target.what.startswith(RARE):
                tried = fuzz.attack(target, max(10, target.times // 100), seed=1)
                assert tried.held == tried.times >= 10, tried


def test_command_lines_are_parsed_or_refused(launch):
    tried = fuzz_flags.command_lines(launch, 25, seed=1)
    assert tried.held == tried.times == 25 * len(fuzz_flags.ENTRY_POINTS), tried


def test_what_is_forbidden_is_seen(tmp_path):
    """Each of the things that no reader may do."""
    folder, outside = tmp_path / "given", tmp_path / "outside"
    folder.mkdir()
    outside.touch()
    (folder / "own").touch()

    def refuse(length):
        raise InputError("a" * length, "b" * 3 * length, "c")

    fine = (lambda: None, (folder / "own").read_bytes, lambda: refuse(100))
    assert [fuzz.fault(folder, read) for read in fine] == ["", "", ""]
    for read, expected in (
        (lambda: 1 / 0, "ZeroDivisionError"),
        (outside.read_bytes, "opened"),
        ((folder / ".." / "outside").read_bytes, "opened"),
        (lambda: (folder / "new").write_text(""), "opened"),
        ((folder / "own").unlink, "os.remove"),
        (lambda: os.system("true"), "os.system"),
        (lambda: pickle.loads(pickle.dumps(Path())), "pickle.find_class"),
        (lambda: np.float32(1e38) * np.float32(1e38), "RuntimeWarning"),
        (lambda: refuse(600), "a refusal of"),
    ):
        assert expected in fuzz.fault(folder, read)


# --- list flags -----------------------------------------------------------------------------------------

CLASSES = ["cat", "dog", "big dog", "a+b", "c,d", "none", "3", "\u00e4"]
singles = some.floats(2.0**-100, 2.0**100, width=32)


@often
@given(some.lists(singles, min_size=1, max_size=6, unique=True))
def test_numbers_come_back_as_they_were_written(values):
    assert parse.parse_numbers("x", ",".join(map(repr, values)), positive=True) == values
    assert parse.parse_numbers("x", ", ".join(map(repr, [0.0, *values]))) == [0.0, *values]


@often
@given(some.text(alphabet="0123456789eE+-., nainf_") | some.text(), some.booleans())
def test_any_text_is_numbers_of_a_float32_or_refused(text, positive):
    try:
        values = parse.parse_numbers("x", text, high=100.0, positive=positive)
    except InputError:
        return
    singles = np.array(values, np.float32)
    assert len(values) == text.count(",") + 1 == len(set(singles.tolist()))
    assert np.all((singles >= 0) & (singles <= 100)) and not (positive and 0 in singles)
    assert all(value == 0 or value >= 2.0**-126 for value in singles)  # the smallest of full precision


@often
@given(some.lists(some.frozensets(some.integers(0, 7), max_size=4), min_size=1, max_size=5, unique=True))
def test_class_sets_come_back_as_they_were_written(sets):
    text = ",".join("+".join(f"#{k}" for k in sorted(one, reverse=True)) or "#none" for one in sets)
    assert parse.parse_classes("x", text, CLASSES) == [tuple(sorted(one)) for one in sets]


@often
@given(some.text(alphabet="0123,+ -abcdgot\u00e4n") | some.text())
def test_any_text_is_class_sets_or_refused(text):
    try:
        sets = parse.parse_classes("x", text, CLASSES)
    except InputError:
        return
    assert sets and len(set(sets)) == len(sets)
    assert all(list(one) == sorted(set(one)) and set(one) <= set(range(8)) for one in sets)


@often
@given(some.text(alphabet="abc, ") | some.text())
def test_any_text_is_known_words_or_refused(text):
    try:
        words = parse.parse_words("x", text, ("a", "b", "c"))
    except InputError:
        words = []
    expected = [word.strip() for word in text.split(",")]
    right = set(expected) <= {"a", "b", "c"} and len(set(expected)) == len(expected)
    assert words == (expected if right else [])


def test_a_number_is_no_longer_than_a_line():
    with pytest.raises(InputError) as error:
        parse.parse_numbers("x", "1" * 10_000)
    assert len(str(error.value)) < 400 and math.isinf(float("1" * 10_000))
