"""The comparison of a run with the committed result of its recipe, on results of our own."""

import json
import math
import os

import pytest

from experiments.gallery import recipes, reproduction
from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.stats.intervals import Interval
from kd_jax.stats.summary import Key
from tests.io.test_run_folder import LABELS, SOFT, make_config, write_config

HEAD = f"""# Toys? They say so: 3 +- 1 %.
# source: Toy et al. 2020
# published: {SOFT}, accuracy = 91
# published: {SOFT}, prior_matched, omitted, accuracy = 42
# published: {SOFT}, errors = 3
# minutes: 7
--learning_rates=1e-3
--out=runs/toy
"""
KEY = Key(SOFT, "test", "none", "all", "accuracy")


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy.flags").write_text(HEAD)
    return recipes.read(tmp_path / "toy.flags")


def write(folder, mean, n=5, half=0.01, **others):
    config = make_config()
    write_config(folder, config | {"flags": config["flags"] | {"learning_rates": "1e-3"} | others})
    ends = {"low": mean - half, "high": mean + half} if half else {"low": None, "high": None}
    entries = [
        dict(zip(("setting", "split", "correction", "class", "metric"), key, strict=True)) | ends
        | {"mean": mean, "n": n}
        for key in (KEY, (LABELS, *KEY[1:]), (SOFT, "test", "none", "omitted", "accuracy"),
                    (SOFT, "test", "prior_matched", "all", "accuracy"),
                    (SOFT, "test", "prior_matched", "omitted", "accuracy"))
    ]  # fmt: skip
    run_files.write(folder / "summary.json", json.dumps({"results": entries}).encode())


def test_the_head_is_sentences_and_facts(toy):
    assert toy.head == "Toys? They say so: 3 ± 1 %." and toy.minutes == 7
    assert toy.published == {
        KEY: "91",
        (SOFT, "test", "prior_matched", "omitted", "accuracy"): "42",
        (SOFT, "test", "none", "all", "errors"): "3",
    }


@pytest.mark.parametrize("text", ["T=4, accuracy", "accuracy = 3", "a, none, test_tuned, errors = 3", ""])
def test_a_malformed_figure_is_refused(text):
    with pytest.raises(ValueError):
        recipes.parse_published(text)


def test_the_figures_stand_side_by_side(toy, tmp_path):
    write(tmp_path / "results" / "toy", 0.90)
    write(tmp_path / "runs" / "toy", 0.905)
    found = reproduction.compare(toy, tmp_path / "runs" / "toy", [toy], tmp_path / "results")
    first = found.rows[0]
    assert first.key == KEY and first.published == "91"
    shown = reproduction.terminal([found], quick=False)
    lines = shown.splitlines()
    below = lines[lines.index(f"toy: {SOFT}") + 1]
    assert below.split() == ["91", "90.00", "±", "1.00", "(5)", "90.50", "±", "1.00", "(5)", "yes"]
    assert max(map(len, shown.splitlines())) <= 80
    page = reproduction.markdown([found], quick=False)
    # Welch: both standard errors are 0.01 / 2.776; theirs together 0.00509, with 8 degrees of freedom and the
    # quantile 2.306: half width 1.17 points.
    cells = "91 | 90.00 ± 1.00 (5) | 90.50 ± 1.00 (5) | +0.50 | -0.67 to +1.67"
    assert f"| {SOFT} | {cells} |" in page.replace("\\", "")
    assert "Published: Toy et al. 2020." in page
    reduced = reproduction.markdown([found], quick=True)
    assert "no reproduction" in reduced and "agrees" not in reduced
    assert " yes" not in reproduction.terminal([found], quick=True)


@pytest.mark.parametrize(
    "ours, yours, expected",
    [
        (Interval(0.9, 0.89, 0.91, 5), Interval(0.93, 0.92, 0.94, 5), "NO"),
        (Interval(0.9, 0.89, 0.91, 5), Interval(0.905, 0.895, 0.915, 5), "yes"),
        (Interval(0.9, math.nan, math.nan, 1), Interval(0.9, math.nan, math.nan, 1), "equal"),
        (Interval(0.9, 0.89, 0.91, 5), Interval(0.8, math.nan, math.nan, 1), "n = 1"),
        (Interval(0.0, 0.0, 0.01, 5), Interval(0.0, 0.0, 0.01, 5), "equal"),
        (Interval(0.0, 0.0, 0.01, 5), Interval(0.1, 0.09, 0.11, 5), "no spread"),
        (None, Interval(0.9, 0.89, 0.91, 5), "-"),
    ],
)
def test_the_verdict(ours, yours, expected):
    assert reproduction.verdict(reproduction.Row(KEY, "", ours, yours)) == expected


def test_without_a_committed_result_yours_stands_alone(toy, tmp_path):
    write(tmp_path / "runs" / "toy", 0.905, n=1, half=0)
    found = reproduction.compare(toy, tmp_path / "runs" / "toy", [toy], tmp_path / "results")
    assert {row.ours for row in found.rows} == {None} and "90.50 (1)" in reproduction.terminal([found], False)
    (tmp_path / "runs" / "toy" / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary\.json"):
        reproduction.compare(toy, tmp_path / "runs" / "toy", [toy], tmp_path / "results")


def test_what_is_complete(toy, tmp_path):
    folder = tmp_path / "toy"
    assert not reproduction.is_complete(toy, folder, {})
    write(folder, 0.9, out="runs/toy", flip=True, seeds=3)
    assert not reproduction.is_complete(toy, folder, {})  # it has no results yet
    (folder / "results.csv").write_text("")
    assert reproduction.is_complete(toy, folder, {})
    assert reproduction.is_complete(toy, folder, {"seeds": 3})
    teacher = tmp_path / "teacher" / "results.csv"
    for time, same in ((None, False), (5, True), (4 * 10**9, False)):  # absent, older, newer
        if time is not None:
            teacher.parent.mkdir(exist_ok=True)
            teacher.write_text("")
            os.utime(teacher, (time, time))
        assert reproduction.is_complete(toy, folder, {}, [teacher.parent]) is same
    assert not reproduction.is_complete(toy, folder, {"seeds": 2})
    for flags, same in (
        ({"flip": ""}, True),
        ({"flip": "false"}, False),
        ({"learning_rates": "1e-2"}, False),
    ):
        assert reproduction.is_complete(toy._replace(flags=toy.flags | flags), folder, {}) is same
