"""A few planted pickles, paths that lead outside, and what a report makes of hostile names."""

import os
import shutil
from html.parser import HTMLParser
from unittest import mock

import pytest

from experiments.reporting import comparison, report
from kd_jax import data, plots
from tests.faults import loaded, samples

ELSEWHERE = ("--dataset", "the cache", "a teacher's", "models read", "--pretrained")
"""Kinds of places that tests of their own modules plant pickles in."""


def test_a_pickle_planted_anywhere_is_not_executed(launch, tmp_path):
    """Of each kind of place the first."""
    seen = set()

    def wanted(number, place):
        first = place.what not in seen and not place.what.startswith(ELSEWHERE)
        seen.add(place.what)
        return first

    with mock.patch.dict(os.environ, {"KD_JAX_CACHE": str(tmp_path / "decoded")}):
        rows = loaded.traps(launch, tmp_path, wanted)
    assert len(rows) == 10 and len(seen) == 16
    assert all(row.held == row.times == 1 for row in rows), rows
    tried = loaded.outside(tmp_path)
    assert tried.held == tried.times == 11, tried


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>' onload='x\" {{7*7}} ](javascript:x)"


class Elements(HTMLParser):
    """Counts elements by their kind, and collects what may run or leave the page."""

    def __init__(self):
        super().__init__()
        self.count, self.odd = {}, []

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        own = [name for name, value in attrs if name.startswith("on")]
        away = [
            value for name, value in attrs if name in ("src", "href") and not value.startswith(("#", "data:"))
        ]
        self.odd += own + away


def elements(text):
    parser = Elements()
    parser.feed(text)
    return parser


def write_run(folder, evil):
    """A run in which every word of config.json that a user or a file may choose is this one's."""
    dataset = data.load(str(samples.toy(folder.parent / "toy.npz")))
    settings = [samples.setting(f"labels{evil}"), samples.setting(f"T=4 omit=2{evil}", [2], 4.0)]
    about = {
        "name": f"toy{evil}", "fingerprint": f"ab{evil}", "num_classes": 3, "train": 60, "validation": 10,
        "test": 30, "class_names": [f"{k}{evil}" for k in range(3)],
    }  # fmt: skip
    changes = {
        "command": f"./launch.sh distill --omit={evil}",
        "flags": {"epochs": 3, "omit": evil, f"x{evil}": evil},
        "versions": {f"jax{evil}": evil},
        "device": f"cpu{evil}",
        "question": f"Why{evil}?",
        "teacher": {"path": f"teacher{evil}", "sha256": "ab", "model": evil, "num_teachers": 1},
        "continued": [{"device": evil, evil: [evil]}],
    }
    return samples.write_run(folder, dataset, settings, data=about, **changes)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A run of plain words, and the same of hostile ones, in a folder of a hostile name."""
    monkeypatch.setattr(plots, "render", lambda figure, kind="png": b"")
    evil = EVIL.replace("/", "\u2215")  # which no folder's name can hold
    return write_run(tmp_path / "plain" / "run", ""), write_run(tmp_path / "evil" / f"run{evil}", EVIL)


def test_no_word_of_a_run_becomes_part_of_its_page(runs):
    pages = []
    for folder in runs:
        report.build(folder)
        pages.append(elements((folder / "report.html").read_text()))
    assert pages[0].count == pages[1].count and pages[0].count["script"] == 2
    assert pages[1].odd == []
    text = (runs[1] / "report.html").read_text()
    assert text.count("&lt;script&gt;alert(1)") > 10 and "{{7*7}}" in text
    markdown = (runs[1] / "report.md").read_text()
    shown = markdown.split("```")
    assert len(shown) == 3  # the command stands as it was given
    assert "<script" not in (shown[0] + shown[2]).replace(r"\<script", "")


def test_nor_of_a_comparison(runs, tmp_path):
    pages = []
    for folder in runs:
        words = [str(folder), str(folder.with_name("copy"))]
        shutil.copytree(*words)
        with mock.patch.object(comparison.provenance, "command", lambda: EVIL):
            files, _ = comparison.render(words, tmp_path / "out")
        pages.append(elements(files[tmp_path / "out" / "report.html"].decode()))
    assert pages[0].count["script"] == pages[1].count["script"] == 2
    assert pages[1].odd == [] and set(pages[0].count) == set(pages[1].count)
