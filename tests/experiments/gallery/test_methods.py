"""The table of methods, from two small summaries."""

import json
import math

import pytest

from experiments.gallery import methods
from kd_jax.stats.intervals import Interval


def entry(a, b, difference, p):
    numbers = {"difference": difference, "low": difference - 0.01, "high": difference + 0.02, "p": p, "n": 5}
    about = {"a": a, "b": b, "split": "test", "correction": "prior_matched", "class": "omitted"}
    return about | {"metric": "accuracy"} | numbers


@pytest.fixture
def results(tmp_path):
    """dkd is 3 points above T=4 and fitnet 2 below; T=4 comes first in one run and last in the other."""
    dkd, fitnet, plain = "dkd T=4 omit=3", "fitnet omit=3", "T=4 omit=3"
    runs = {
        "methods_logits": ([plain, dkd], [entry(plain, dkd, -0.03, 0.02)]),
        "methods_features": ([fitnet, plain], [entry(fitnet, plain, -0.02, 0.03)]),
    }
    for run, (names, paired) in runs.items():
        shown = [
            {"setting": name, "split": "test", "correction": "none", "class": "omitted", "metric": "accuracy",
             "mean": 0.5, "low": 0.45, "high": 0.55, "n": 5}
            for name in names
        ]  # fmt: skip
        (tmp_path / run).mkdir()
        (tmp_path / run / "summary.json").write_text(json.dumps({"results": shown, "paired": paired}))
        (tmp_path / run / "config.json").write_text(json.dumps({"settings": [{"name": n} for n in names]}))
    return tmp_path


def test_each_setting_less_plain_distillation_with_holms_correction(results):
    """0.02 x 2 = 0.04; 0.03 x 1, and no less than that."""
    lines = methods.blocks(results)["methods"]().splitlines()
    names = [line.split(" | ")[0] for line in lines[2:]]
    assert names == ["| `T=4 omit=3`", "| `dkd T=4 omit=3`", "| `fitnet omit=3`"]
    assert "50.00 ± 5.00" in lines[2] and lines[2].endswith("|  |  |  |  |  |")
    assert lines[3].endswith("| +3.00 | +1.00 to +4.00 | 0.02 | 5 | 0.040 |")
    assert lines[4].endswith("| -2.00 | -3.00 to +0.00 | 0.03 | 5 | 0.040 |")


def test_with_all_classes_and_with_one_omitted_are_tables_of_their_own(results):
    """The same settings with all classes: their difference is of the accuracy of all classes, as trained."""
    for run, name in zip(methods.CIFAR10, ("dkd T=4", "fitnet"), strict=True):
        names = [name, f"{name} omit=3", "T=4", "T=4 omit=3"]
        paired = [
            entry(name, "T=4", 0.05, 0.01) | {"correction": "none", "class": "all"},
            entry(f"{name} omit=3", "T=4 omit=3", 0.07, 0.01),
        ]
        (results / run).mkdir()
        (results / run / "summary.json").write_text(json.dumps({"results": [], "paired": paired}))
        (results / run / "config.json").write_text(json.dumps({"settings": [{"name": n} for n in names]}))
    made = methods.blocks(results)
    rows = [line.split(" | ") for line in made["methods_all"]().splitlines()[2:]]
    assert [row[0] for row in rows] == ["| `dkd T=4`", "| `T=4`", "| `fitnet`"]
    assert [row[2] for row in rows] == ["+5.00", "", "+5.00"]
    rows = [line.split(" | ") for line in made["methods_cifar10"]().splitlines()[2:]]
    assert [row[0] for row in rows] == ["| `dkd T=4 omit=3`", "| `T=4 omit=3`", "| `fitnet omit=3`"]
    assert [row[5] for row in rows] == ["+7.00", "", "+7.00"]


def test_what_a_probe_reads_off(results, monkeypatch):
    """Where a run has it: the column before the difference."""
    found = {"dkd T=4 omit=3": Interval(0.9, 0.88, 0.92, 5)}
    monkeypatch.setattr(
        methods.hidden_signals, "probed", lambda folder: found if folder.name == "methods_logits" else {}
    )
    lines = methods.blocks(results)["methods"]().splitlines()
    assert lines[0].split(" | ")[4] == "the 3s, linear probe"
    assert [line.split(" | ")[4] for line in lines[2:]] == ["-", "90.00 ± 2.00", "-"]


def test_without_results_the_block_says_so(tmp_path):
    assert methods.blocks(tmp_path)["methods"]() == "No result yet."


def test_a_p_is_never_shown_as_0():
    assert [methods.as_p(p) for p in (0.0001, 0.0449, math.nan)] == ["<0.001", "0.045", "-"]
