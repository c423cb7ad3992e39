"""Runs beside each other: differences by hand, what is refused, and what is written where."""

import json

import pytest
from absl import flags

from experiments import report as entry_point
from experiments.reporting import comparison
from kd_jax.errors import InputError
from tests.experiments.reporting.toy_run import SOFT, rows_of, toy_history, write_run

SETTINGS = [{"name": SOFT, "omitted": [2]}]


def write(folder, right, corrected, **changes):
    """By seed, right[s] of ten 2s are right as trained, corrected[s] after; of other classes all are."""
    rows = []
    for seed, (before, after) in enumerate(zip(right, corrected, strict=True)):
        rows += rows_of(SOFT, seed, "none", [10, 10, before], (2,), 0.0)
        rows += rows_of(SOFT, seed, "teacher_matched", [10, 10, after], (2,), 2.0)
    history = [row for row in toy_history() if row.setting == SOFT and row.seed < len(right)]
    return write_run(folder, SETTINGS, rows, history, seeds=len(right), **changes)


@pytest.fixture
def a(tmp_path):
    return write(tmp_path / "a", (2, 4, 6), (8, 8, 8))


@pytest.fixture
def b(tmp_path):
    return write(
        tmp_path / "b", (3, 6, 9, 1), (8, 9, 10, 1), flags={"omit": "none,2", "translate": 7, "out": "b"}
    )


def table(text, title):
    """The rows of a section's table, the cells as text."""
    lines = text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [rows[0], *rows[2:]]


def test_the_differences_by_hand(a, b, tmp_path):
    files, text = comparison.render([str(a), str(b)], out := tmp_path / "out")
    rows = table(files[out / "report.md"].decode(), "Paired differences")
    assert rows[0] == ["difference", "settings", "correction", "classes", "points", "95 % interval", "p", "n"]
    # Of the 2s, seeds 0 to 2, which both have: 1, 2 and 3 of ten more: mean 20, sd 10 points, half width
    # 4.302653 * 10 / sqrt(3) = 24.84; with t = 3.4641 and 2 degrees of freedom p = 1 - t / sqrt(2 + t^2).
    assert rows[2] == ["2 - 1", SOFT, "none", "omitted", "+20.00", "-4.84 to +44.84", "0.074", "3"]
    # Of all 30, a third of it; corrected 0, 1 and 2 of ten.
    assert rows[1][3:6] == ["all", "+6.67", "-1.61 to +14.95"]
    assert rows[4][2:6] == ["teacher_matched", "omitted", "+10.00", "-14.84 to +34.84"] and len(rows) == 5
    lines = text.splitlines()
    at = lines.index(f"2 - 1: {SOFT}")
    assert lines[at + 2] == " none             omitted  +20.00   -4.84 to +44.84  0.074  3"
    assert max(map(len, lines[:-1])) <= 80
    entry = json.loads(files[out / "comparison.json"])["paired"][1]
    assert (entry["a"], entry["b"]) == ({"run": "a", "setting": SOFT}, {"run": "b", "setting": SOFT})
    assert entry["difference"] == pytest.approx(0.2) and entry["n"] == 3


def test_settings_stand_side_by_side_and_what_differs_is_listed(a, b, tmp_path):
    files, text = comparison.render([str(a), str(b)], out := tmp_path / "out")
    told = files[out / "report.md"].decode()
    head, first, _ = table(told, "Settings")
    assert head == [
        "setting",
        "correction",
        *(f"{run}: {part}" for run in (1, 2) for part in ("all", "omitted", "n")),
    ]
    # Of b's four seeds 3, 6, 9 and 1 of ten: mean 47.5, sd 35.0, t quantile 3.182: half width 55.7.
    assert first[2:] == ["80.00 ± 16.6", "40.00 ± 49.7", "3", "82.50 ± 18.6", "47.50 ± 55.7", "4"]
    assert table(told, "What differs") == [["", "a", "b"], ["--translate", "-", "7"]]
    assert told.count("Having never seen class 2") == 2 and text.count("Having never seen class 2") == 2
    page = files[out / "report.html"].decode()
    assert "Comparison of a, b" in page and '"a: T=20' in page and "b: T=20" in page


def test_a_difference_that_is_the_same_in_all_seeds_has_no_interval_and_no_p(a, tmp_path):
    better = write(tmp_path / "better", (3, 5, 7), (8, 8, 8))
    files, text = comparison.render([str(a), str(better)], out := tmp_path / "out")
    rows = table(files[out / "report.md"].decode(), "Paired differences")
    assert rows[2][3:] == ["omitted", "+10.00", "no spread seen", "-", "3"]
    assert rows[4][3:] == ["omitted", "+0.00", "no spread seen", "-", "3"]
    entry = json.loads(files[out / "comparison.json"])["paired"][1]
    assert entry["low"] is entry["high"] is entry["p"] is None and "no spread seen" in text


def test_one_shared_seed_makes_no_interval(a, tmp_path):
    one = write(tmp_path / "one", (9,), (9,))
    files, _ = comparison.render([str(a), str(one)], out := tmp_path / "out")
    rows = table(files[out / "report.md"].decode(), "Paired differences")
    assert rows[2][4:] == ["+70.00", "-", "-", "1"]
    assert json.loads(files[out / "comparison.json"])["paired"][1]["low"] is None


def test_students_of_one_teacher_in_both_runs_count_once(a, tmp_path):
    runs = [{"run": s, "setting": SOFT, "seed": s, "teacher_seed": s % 2} for s in range(3)]
    paired = write(tmp_path / "paired", (2, 6, 8), (8, 8, 8), runs=runs)
    files, _ = comparison.render([str(a), str(paired)], out := tmp_path / "out")
    rows = table(files[out / "report.md"].decode(), "Paired differences")
    # Differences 0, 2 and 2 of ten; those of seeds 0 and 2, of one teacher, are one of 1: mean 15, n 2.
    assert (rows[2][4], rows[2][7]) == ("+15.00", "2")


def test_main_writes_into_out_alone(a, b, tmp_path, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in (*a.rglob("*"), *b.rglob("*")) if path.is_file()}
    monkeypatch.setattr(flags.FLAGS["out"], "value", str(tmp_path / "out"))
    monkeypatch.setattr(flags.FLAGS["out"], "present", 1)
    monkeypatch.setattr("sys.argv", words := ["report", str(a), str(b)])
    entry_point.main(words)
    assert capsys.readouterr().out.endswith(f"Report: {tmp_path / 'out' / 'report.html'}\n")
    written = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {path.name for path in written} == {"comparison.json", "report.md", "report.html"}
    entry_point.main(words)
    assert written == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr("sys.argv", other := ["report", str(b), str(a)])
    with pytest.raises(InputError, match="--out is taken"):
        entry_point.main(other)
    with pytest.raises(InputError, match="--out is of a comparison"):
        entry_point.main(other[:2])
    assert before == {path: path.read_bytes() for path in (*a.rglob("*"), *b.rglob("*")) if path.is_file()}


def test_what_cannot_be_compared_is_refused(a, b, tmp_path):
    data = json.loads((a / "config.json").read_text())["data"] | {"fingerprint": "other"}
    elsewhere = write(tmp_path / "elsewhere", (1, 2), (3, 4), data=data)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "report.md").write_text("mine")
    new = tmp_path / "new"
    for words, out, expected in (
        ((a, elsewhere), new, "different data.*a: toy ab12, elsewhere: toy other"),
        ((a, b, f"{a}/"), new, "named twice"),
        ((a, tmp_path / "none"), new, "no such folder"),
        ((a, b), a, "--out is taken"),
        ((a, b), a / "figures", "inside another run"),
        ((a, b), tmp_path / "full", "--out is taken"),
    ):
        with pytest.raises(InputError, match=expected):
            comparison.render(list(map(str, words)), out)
    assert not new.exists()


def test_runs_of_one_name_have_their_paths(a, tmp_path):
    other = write(tmp_path / "there" / "a", (1, 2), (3, 4))
    files, _ = comparison.render([str(a), str(other)], out := tmp_path / "out")
    assert f"\n\n2: {other}: Having never" in files[out / "report.md"].decode()
