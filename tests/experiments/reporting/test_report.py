"""The report of a run folder whose every number is derived by hand, and what its figures show."""

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.reporting import report, sentences, text
from experiments.reporting.content import content_of
from kd_jax import plots
from kd_jax.io import run_config, run_folder
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.rows import HistoryRow, ResultRow
from kd_jax.stats.summary import Summary, summarise
from tests.experiments.reporting.toy_run import (
    ALL,
    SETTINGS,
    SOFT,
    cells,
    rows_of,
    toy_curve,
    toy_history,
    toy_rows,
    write_run,
)

pytestmark = pytest.mark.usefixtures("undrawn")


def test_the_tables_by_hand(folder):
    report.build(folder)
    text = (folder / "report.md").read_text()
    # Without correction, 2, 4 and 6 of ten 2s: mean 40 %, sd 20 %; the t quantile at 0.975 with 2 degrees of
    # freedom is 4.302653, so the half width is 4.302653 * 20 / sqrt(3) = 49.7. Of all 30: 22, 24, 26 right,
    # mean 80 %, sd 2 / 30: half width 16.6. Errors 8, 6, 4.
    text = text.split("## Accuracy of each class")[1]
    assert cells(text, "setting", "correction", "errors") == ["all classes", "0", "1", "2", "n"]
    # Three seeds with all of ten right: of 30 all, down to 0.025^(1/30) = 88.4 %; with 9 of ten: 27 of 30,
    # 73.5 to 97.9 %, whose larger side is shown; with 29 of 30: 87 of 90, 90.57 to 99.31 %.
    assert cells(text, SOFT, "none") == [
        "6.0", "80.00 ± 16.6", "100.0, at least 88.4", "100.0, at least 88.4", r"40.0 ± 49.7\*", "3",
    ]  # fmt: skip
    # Corrected: 28, 29, 27 right: mean 93.33 %, sd 1 / 30: 8.28; class 0: sd 10 %: 24.8.
    assert cells(text, SOFT, "teacher_matched", "2.0")[:2] == ["93.33 ± 8.28", "90.0 ± 24.8"]
    assert cells(text, "teacher", "none") == ["1.0", "96.67", "100.0", "100.0", "90.0", "1"]
    assert cells(text, ALL, "none") == [
        "1.0", "96.67 ± 6.10", "100.0, at least 88.4", "90.0 ± 16.5", "100.0, at least 88.4", "3",
    ]  # fmt: skip
    # Biases 2, 2.5, 3: 4.302653 * 0.5 / sqrt(3) = 1.24.
    (bias,) = [line for line in text.splitlines() if line.endswith("| 2.50 ± 1.24 | 3 |")]
    assert bias.startswith(f"| {SOFT} | teacher_matched |")
    # Corrected minus not, of all: 6, 5 and 1 of 30 more: mean 4, sd sqrt(7), t = 4 / sqrt(7 / 3); with
    # 2 degrees of freedom p = 1 - t / sqrt(2 + t^2) = 0.120.
    assert cells(text, "teacher_matched - none", SOFT, "all") == ["+13.33", "-8.57 to +35.24", "0.12", "3"]


def test_the_report_says_what_it_must(drawn, folder):
    report.build(folder)
    text = (folder / "report.md").read_text()
    assert text.startswith("# toy\n\nCan a student classify what it never saw")
    answer = text.split("**")[1]
    assert answer == (
        "Having never seen class 2, the student gets 40.00 % of its test examples right as trained and "
        "90.00 % after bias correction teacher_matched."
    )
    assert cells(text, SOFT, "teacher_matched", "93.33 ±8.28") == ["90.00 ±16.5", "3"]
    for words in (
        "./launch.sh distill --omit=none,2\n", "jax 0.10.2, numpy 2.4.6", "1 x cpu", "fingerprint ab12",
        "sha256 cd34", "3 seeds", "one teacher", "variation between teachers is not covered",
        "60 train, 30 validation,",
        "- test_tuned: bias tuned on the TEST set", "is no result",
    ):  # fmt: skip
        assert words in text, words
    for name in ("class_bars", "learning_curves", "bias_curve", "confusion_matrix"):
        assert f"](figures/{name}.png)" in text
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((folder / "figures").iterdir())) == 4


@pytest.mark.parametrize(("formats", "linked"), [("png", "png"), ("svg", "svg"), ("png,svg", "png")])
def test_the_formats_of_figures_are_those_that_are_wanted(folder, formats, linked):
    report.build(folder, report.Options(figure_formats=formats))
    names = ("class_bars", "learning_curves", "bias_curve", "confusion_matrix")
    files = {f"{name}.{kind}" for name in names for kind in formats.split(",")}
    assert {path.name for path in (folder / "figures").iterdir()} == files
    links = re.findall(r"\]\(figures/(.*?)\)", (folder / "report.md").read_text())
    assert sorted(links) == sorted(f"{name}.{linked}" for name in names)


def test_the_other_measures_by_hand(folder):
    run = run_folder.read_run(folder)
    report.build(folder)
    assert (
        "Beyond accuracy" not in (folder / "report.md").read_text()
    )  # as in runs of before they were measured
    rows = [
        ResultRow(name, seed, split, "none", "all", metric, value * (1 + seed))
        for name, seeds in (("teacher", 1), (ALL, 3), (SOFT, 3))
        for seed in range(seeds)
        for split, factor in (("validation", 1.5), ("test", 1))
        for metric, value in (
            ("macro_precision", 0.2 * factor), ("macro_recall", 0.1 * factor), ("macro_f1", 0.3),
            ("nll", 0.5 * factor), ("ece", 0.01), ("agreement", 0.25), ("kl_to_teacher", 0.125),
        )
        if name != "teacher" or metric not in ("agreement", "kl_to_teacher")
    ]  # fmt: skip
    run_folder.write_results(folder, run.results + rows)
    report.build(folder)
    text = (folder / "report.md").read_text().split("## Beyond accuracy")[1].split("## ")[0]
    heads = ["precision", "recall", "F1", "NLL", "ECE", "agreement", "KL", "n"]
    assert cells(text, "setting") == heads  # of three classes no top-5
    assert cells(text, "teacher") == ["20.00", "10.00", "30.00", "0.500", "1.00", "-", "-", "1"]
    # v, 2 v and 3 v: mean 2 v, sd v: half width 4.302653 v / sqrt(3) = 2.48414 v.
    assert cells(text, SOFT) == [
        "40.00 ± 49.7", "20.00 ± 24.8", "60.00 ± 74.5", "1.000 ± 1.242", "2.00 ± 2.48", "50.00 ± 62.1",
        "0.250 ± 0.311", "3",
    ]  # fmt: skip


def full_report(folder):
    """The lines that `report --full` prints."""
    return report.build(folder, report.Options(full=True)).splitlines()


def test_the_terminal_shows_the_answer_and_a_small_table(folder):
    lines = report.build(folder).splitlines()
    assert lines == [
        "Having never seen class 2, the student gets 40.00 % of its test examples right",
        "as trained and 90.00 % after bias correction teacher_matched.",
        "",
        " correction       all classes  omitted classes  n",
        "teacher",
        " none                   96.67                -  1",
        SOFT,
        " none             80.00 ±16.6      40.00 ±49.7  3",
        " teacher_matched  93.33 ±8.28      90.00 ±16.5  3",
        "",
        "Test accuracy in % (toy, 30 examples), mean ± half of the 95 % interval over 3",
        "seeds. teacher_matched: bias set from the teacher on the transfer set, without",
        "an example of what is omitted. All settings and classes: report.md, or report",
        "--full.",
        "",
        f"Report: {folder / 'report.html'}",
    ]


def test_the_full_tables_of_the_terminal_by_hand(folder):
    lines = full_report(folder)
    assert "The interval of each class is in report.md." in lines
    at = lines.index(f"{SOFT}  (n = 3)")
    assert lines[at + 1 : at + 4] == [
        " none                6.0  80.00 ±16.6  40.00 ±49.7  100.00 ≥94.03",
        " test_tuned          1.0  96.67 ±6.10  90.00 ±16.5  100.00 ≥94.03",
        " teacher_matched     2.0  93.33 ±8.28  90.00 ±16.5    95.00 ±12.4",
    ]
    at = len(lines) - 1 - lines[::-1].index(SOFT)
    assert lines[at + 1 : at + 4] == [
        " none             100   100  40.0*",
        " test_tuned       100   100  90.0*",
        " teacher_matched 90.0   100  90.0*",
    ]


def committed_contents():
    """Of each committed result folder what its answer is made from."""
    for path in sorted((Path(__file__).parents[3] / "experiments" / "results").glob("*/summary.json")):
        run = run_folder.Run(run_config.read(path.parent), [], [], [], [])
        yield pytest.param(
            content_of(run, Summary.from_json(json.loads(path.read_text()))), id=path.parent.name
        )


@pytest.mark.parametrize("content", list(committed_contents()))
def test_the_answer_of_each_committed_result_is_one_short_sentence(content):
    answer = sentences.answer(content)
    assert len(answer.split()) <= 30 and answer.endswith(".") and ". " not in answer
    assert "unknown" not in answer
    lines = text.terminal(content, full=True).splitlines()
    assert max(map(len, lines)) <= text.WIDTH == 80
    table = sentences.answer_table(content)
    assert 1 <= len(table.rows) <= 7 and len({len(row) for row in (table.head, *table.rows)}) == 1


def test_synthesised_images_of_the_omitted_class_are_not_passed_over(drawn, tmp_path):
    settings = [setting | {"transfer_share": 0.2} for setting in SETTINGS]
    folder = write_run(tmp_path, settings, toy_rows(), toy_history(), toy_curve())
    report.build(folder)
    shown = (folder / "report.md").read_text()
    assert "Having seen only synthesised images of class 2, the student gets 40.00 %" in shown
    assert "omitted from training, except for synthesised images" in shown and "never seen in" not in shown


def test_a_question_of_ones_own_heads_the_report(tmp_path):
    folder = write_run(tmp_path, SETTINGS, toy_rows(), question="Do 2s come back?")
    report.build(folder)
    assert "Do 2s come back?" in (folder / "report.md").read_text()


def test_what_is_tuned_on_the_test_split_heads_nothing(drawn, tmp_path):
    rows = [row for row in toy_rows() if row.correction != "teacher_matched"]
    folder = write_run(tmp_path, SETTINGS, rows, toy_history(), toy_curve())
    shown = report.build(folder)
    assert "test_tuned" not in shown and " right\nas trained." in shown
    run = run_folder.read_run(folder)
    settings = list(run.description.settings)
    content = report.Content(run, summarise(run.results, run.description), settings, (SOFT, "none"))
    tuned = content._replace(head=(SOFT, "test_tuned"))
    of_content, of_tuned = report.draw(content), report.draw(tuned)
    name = "confusion_matrix.png"
    assert of_content[name] == (folder / "figures" / name).read_bytes() != of_tuned[name]
    uncorrected = plots.render(plots.class_bars(content.summary, run.description, {}))
    assert uncorrected == (folder / "figures" / "class_bars.png").read_bytes()


def test_a_teacher_that_saw_the_validation_images(folder):
    report.build(folder)
    assert "validation images" not in (folder / "report.md").read_text()
    description = run_config.read(folder)
    for saw in (False, True):
        teacher = {**description.teacher, "saw_validation": saw}
        run_config.write(folder, replace(description, teacher=teacher))
        text = " ".join(report.build(folder).split())
        line = (
            "The teacher trained on the validation images: the students' validation figures are about labels"
        )
        assert (line in text) == saw == (f"\n\n{line} " in (folder / "report.md").read_text())


def test_where_a_run_was_continued(folder):
    entries = [{"device": "1 x TPU (tpu)", "versions": {"jax": "0.11.2", "numpy": "2.5"}}, "by <hand>"]
    run_config.write(folder, replace(run_config.read(folder), continued=tuple(entries)))
    report.build(folder)
    lines = (folder / "report.md").read_text().splitlines()
    assert lines[-2:] == [
        "- continued: device 1 x TPU (tpu), versions jax 0.11.2, numpy 2.5",
        r"- continued: by \<hand>",
    ]


@pytest.mark.parametrize("teachers, words", [(1, "its teacher 96.67 %."), (3, "its teachers 96.67 % each.")])
def test_whose_accuracy_stands_beside_that_of_an_ensembles_student(tmp_path, teachers, words):
    teacher = {"path": "runs/teacher", "num_teachers": teachers, "teacher_seeds": "ensemble"}
    rows = [row for row in toy_rows() if row.setting != SOFT]
    folder = write_run(tmp_path, SETTINGS[:1], rows, teacher=teacher)
    shown = " ".join(report.build(folder).split())
    assert f", {words}" in shown


def test_a_setting_may_lack_a_value(drawn, tmp_path):
    settings = [{"temperature": None, **SETTINGS[0]}, {"temperature": 20.0, **SETTINGS[1]}]
    changed = write_run(tmp_path / "changed", settings, toy_rows(), toy_history(), toy_curve())
    plain = write_run(tmp_path / "toy", SETTINGS, toy_rows(), toy_history(), toy_curve())
    assert report.build(changed).splitlines()[:-1] == report.build(plain).splitlines()[:-1]
    for name in ("summary.json", "figures/bias_curve.png", "figures/learning_curves.png"):
        assert (changed / name).read_bytes() == (plain / name).read_bytes()


def test_flags_of_training_are_refused(folder):
    command = [sys.executable, "-m", "experiments.report", "--seeds=7", str(folder)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 2 and not done.stdout and not (folder / "report.md").exists()
    assert done.stderr.startswith("error: a flag that means nothing here") and "--seeds" in done.stderr


def test_rebuilding_gives_the_same_bytes(drawn, folder):
    first = report.build(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert report.build(folder) == first
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_setting_of_the_answer_is_chosen_neither_on_the_test_split_nor_on_the_omitted_class(tmp_path):
    settings = [
        {"name": name, "omitted": [2]} for name in ("good on test", "good on missing", "good on validation")
    ]
    rows = []
    for setting, test, seen, omitted in zip(
        [setting["name"] for setting in settings], (10, 4, 4), (7, 8, 9), (5, 10, 1), strict=True
    ):
        rows += rows_of(setting, 0, "none", [10, test, test], (2,), splits=("test",))
        held_out = rows_of(setting, 0, "none", [10, seen, omitted], (2,), splits=("validation",))
        rows += [row for row in held_out if row.split == "validation"]
    shown = " ".join(report.build(write_run(tmp_path, settings, rows, seeds=1)).split())
    how = "is the best of 3 settings on the seen classes of the validation split."
    assert f"good on validation {how}" in shown


def many_settings(count, classes):
    settings = [{"name": f"T={i} alpha=1 omit={i % classes}", "omitted": [i % classes]} for i in range(count)]
    rows = rows_of("teacher", 0, "none", [10] * classes)
    for setting, correction, seed in itertools.product(settings, CORRECTIONS, range(2)):
        right = [(9, 10)[seed]] * classes
        rows += rows_of(
            setting["name"], seed, correction, right, setting["omitted"], 1.0 * (correction != "none")
        )
    return settings, rows


@pytest.mark.parametrize("count, classes", [(11, 10), (12, 10), (4, 11)])
def test_the_terminal_tables_fit(tmp_path, count, classes):
    settings, rows = many_settings(count, classes)
    settings[0]["name"] = long = "a setting of a long name: " + "x" * 90
    rows = [row._replace(setting=long) if row.setting.startswith("T=0 ") else row for row in rows]
    lines = full_report(write_run(tmp_path, settings, rows, seeds=2, classes=classes))
    assert max(map(len, lines[:-1])) <= 80
    table = [line.split() for line in lines if line.startswith(" validation_tuned")]
    few = classes == 10
    assert len(table) == count * (1 + few)
    # 9 and 10 of ten, or 90 and 100 of 100: mean 95, sd 7.07, t quantile 12.706 with 1 degree of freedom:
    # half width 12.706 * 7.07 / sqrt(2) = 63.5.
    errors = f"{0.5 * classes:.1f}"
    assert table[1] == ["validation_tuned", errors, *["95.00", "±63.5"] * 3]
    if few:
        assert table[count + 1][1:] == ["95.0*" if k == 1 else "95.0" for k in range(10)]


def test_a_data_set_of_many_classes(tmp_path):
    settings, rows = many_settings(2, 25)
    folder = write_run(tmp_path, settings, rows, seeds=2, classes=25)
    assert "seen" in report.build(folder)
    heads = cells((folder / "report.md").read_text(), "setting", "correction", "errors")
    assert heads == ["all classes", "seen", "omitted", "n"]


def test_a_run_of_teachers(tmp_path):
    settings = [{"name": "teacher", "omitted": [1]}]
    rows = [row for seed in range(3) for row in rows_of("teacher", seed, "none", [10, 7 + seed, 10], (1,))]
    history = [HistoryRow(s, "teacher", s, 1, "train", "accuracy", 0.5) for s in range(3)]
    runs = [{"run": s, "setting": "teacher", "seed": s, "teacher_seed": None} for s in range(3)]
    changes = {"experiment": "train_teacher", "teacher": None, "runs": runs}
    folder = write_run(tmp_path, settings, rows, history, **changes)
    lines = full_report(folder)
    assert lines.count("teacher  (n = 3)") == 1 and any(" 80.0*" in line for line in lines)
    assert lines[0].startswith("Having never seen class 1, the teacher gets 80.00 %")
    report_text = (folder / "report.md").read_text()
    assert "How accurate is the teacher?" in report_text and "variation" not in report_text


def test_one_seed_without_validation_history_or_teacher(tmp_path):
    rows = rows_of(ALL, 0, "none", [10, 9, 10], splits=("test",))
    folder = write_run(tmp_path, SETTINGS[:1], rows, seeds=1, teacher=None)
    lines = full_report(folder)
    assert lines[0] == "The student gets 96.67 % of the test examples right."
    assert any(line.startswith("One seed, so no interval.") for line in lines) and "±" not in "".join(lines)
    assert {path.stem for path in (folder / "figures").iterdir()} == {"class_bars", "confusion_matrix"}


@pytest.mark.parametrize(
    "seeds, words", [(2, "cover the variation between teachers"), (3, "n are those of the teachers")]
)
def test_several_teachers(tmp_path, seeds, words):
    rows = [row for seed in range(seeds) for row in rows_of(ALL, seed, "none", [10, 9, 6 + seed])]
    runs = [{"run": s, "setting": ALL, "seed": s, "teacher_seed": s % 2} for s in range(seeds)]
    folder = write_run(tmp_path, SETTINGS[:1], rows, seeds=seeds, runs=runs)
    shown = " ".join(" ".join(full_report(folder)).split())
    assert words in shown and "of 2 teachers" in shown
    assert f"{ALL} (n = 2{' teachers' * (seeds > 2)})" in shown


def test_names_cannot_break_the_page(tmp_path):
    names = ["<script>alert(1)</script>", "a|b", "*c*"]
    data = {"name": "toy", "fingerprint": "ab12", "num_classes": 3, "class_names": names}
    data |= {"train": 60, "validation": 30, "test": 30}
    folder = write_run(tmp_path, SETTINGS, toy_rows(), data=data)
    report.build(folder)
    text = (folder / "report.md").read_text()
    assert r"\<script>" in text and "|<script>" not in text and " <script>" not in text
    assert r"| a\|b | \*c\* | n |" in text
