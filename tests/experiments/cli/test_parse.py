"""Classes on the command line: every text has one meaning, or is refused with both."""

import pytest

from experiments.cli.parse import parse_classes
from experiments.settings import teachers
from kd_jax.errors import InputError

NAMES = ["cat", "3", "big dog", "a+b", "b,c", "none", "c", "cat+3", "2007", "7 up", "sea", "sea"]


def parse(text, names=NAMES):
    return parse_classes("omit", text, names)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("cat", [(0,)]),
        ("0", [(0,)]),
        (" cat ", [(0,)]),
        ("#0", [(0,)]),
        ("#none,big dog,c+cat", [(), (2,), (0, 6)]),
        ("a+b", [(3,)]),
        ("b,c", [(4,)]),
        ("b,c+a+b,cat", [(3, 4), (0,)]),
        ("1", [(1,)]),
        ("#3", [(3,)]),
        ("2007", [(8,)]),  # no class has this number
        ("7 up+7", [(7, 9)]),
        ("cat+03", [(0, 3)]),
        ("none+cat", [(0, 5)]),  # the empty set is joined with nothing
    ],
)
def test_classes_by_number_and_name(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("cow", "--omit names no class 'cow': expected none or classes .numbers 0..11 or names"),
        ("Cat", "names no class 'Cat': .*; given 'Cat' .did you mean cat"),
        ("2008", "names no class '2008'"),
        ("#12", "names no class '#12'"),
        ("#cat", "names no class '#cat'"),
        ("cat+0", "names a class twice"),
        ("cat,0", "names a set twice"),
        ("cat+#none", "malformed --omit"),
        ("cat+", "malformed --omit"),
        (",cat", "malformed --omit"),
        ("", "malformed --omit"),
        ("cat big dog", "names no class 'cat big dog'"),
    ],
)
def test_what_names_no_classes(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "text, one, other",
    [
        ("3", "#3 for class 3, called 'a.b'", "#1 for class 1, called '3'"),
        ("cat,c+3", "#3 for class 3, called 'a.b'", "#1 for class 1, called '3'"),
        ("none", "#none for no class", "#5 for class 5, called 'none'"),
        ("c,none", "#none for no class", "#5 for class 5, called 'none'"),
        ("sea", "#10 for class 10, called 'sea'", "#11 for class 11, called 'sea'"),
        ("cat+3", "#3 for class 3, called 'a.b'", "#1 for class 1, called '3'"),
    ],
)
def test_two_meanings_are_refused_and_both_named(text, one, other):
    with pytest.raises(InputError, match=f"--omit has two meanings at .*: expected {one} or {other}; given"):
        parse(text)


def test_a_name_with_a_sign_and_its_parts():
    for text, names in (("a+b", ["a", "b", "a+b"]), ("a,b", ["a", "b", "a,b"])):
        with pytest.raises(InputError, match=r"two meanings.* #0 for class 0, called 'a' or #2 for class 2"):
            parse(text, names)
        assert parse("#2", names) == [(2,)]


@pytest.mark.parametrize("shift", [0, 1])
def test_classes_called_by_numbers(shift):
    """0..9 are their own numbers; of 1..10 each but two is another's number."""
    names = [str(k + shift) for k in range(10)]
    for k in range(10):
        assert parse(f"#{k}", names) == [(k,)]
    if shift:
        assert parse("0", names) == [(0,)] and parse("10", names) == [(9,)]
        for k in range(1, 10):
            with pytest.raises(InputError, match=rf"#{k} for class {k}, .* or #{k - 1} for class {k - 1}, "):
                parse(str(k), names)
    else:
        assert parse(",".join(names), names) == [(k,) for k in range(10)]


def test_a_class_called_as_a_number_is_written():
    names = ["#1", "#2", "#3"]
    with pytest.raises(InputError, match="#01 for class 1, called '#2' or #0 for class 0, called '#1'"):
        parse("#1", names)
    assert parse("#01", names) == [(1,)]


def test_many_words_and_many_readings():
    assert len(parse(",".join(f"c{k}" for k in range(1000)), [f"c{k}" for k in range(1000)])) == 1000
    with pytest.raises(InputError, match="two meanings"):
        parse("+".join("a" * 60), ["a", "a+a", "a+a+a"])


def test_the_default_is_no_class_whatever_one_is_called():
    names = ["some", "none"]
    assert parse_classes("omit", None, names) == [()]
    with pytest.raises(InputError, match="#none for no class or #1 for class 1"):
        parse_classes("omit", "none", names)


def test_a_folder_of_teachers_with_a_comma_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    assert teachers.split_paths("a,b") == ["a,b"] and teachers.split_paths("a, c") == ["a", "c"]
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="two meanings"):
        teachers.split_paths("a,b")
