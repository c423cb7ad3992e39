"""The run folder: what is written reads back exactly, what is damaged is refused."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from kd_jax.errors import InputError
from kd_jax.io import confusions, run_config, run_files, run_folder, tidy
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.rows import BiasRow, Confusion, HistoryRow, ResultRow

NAN = math.nan
LABELS, SOFT = "labels omit=none", "T=20 alpha=1 omit=2"


def make_config(seeds=3, num_teachers=1, settings=None):
    settings = settings or [
        {"name": LABELS, "temperature": 20.0, "alpha": 0.0, "omitted": []},
        {"name": SOFT, "temperature": 20.0, "alpha": 1.0, "omitted": [2]},
    ]
    pairs = [(setting["name"], seed) for setting in settings for seed in range(seeds)]
    return {
        "format": 2,
        "experiment": "distill",
        "command": "./launch.sh distill --seeds=3",
        "flags": {"seeds": 3, "omit": "none,2"},
        "versions": {"jax": "0.10.2"},
        "device": "cpu",
        "data": {
            "name": "toy",
            "fingerprint": "ab12",
            "num_classes": 3,
            "class_names": ["0", "1", "2"],
            "train": 60,
            "validation": 6,
            "test": 30,
        },
        "teacher": {"path": "runs/teacher", "sha256": "cd34", "model": "mlp-8", "num_teachers": num_teachers},
        "settings": settings,
        "runs": [
            {"run": run, "setting": name, "seed": seed, "teacher_seed": seed % num_teachers}
            for run, (name, seed) in enumerate(pairs)
        ],
    }


def describe(**options):
    """The description of the run that `make_config` makes."""
    return run_config.parse(make_config(**options))


def write_config(folder, config):
    run_config.write(folder, run_config.parse(config))


def accuracies(setting, values, correction="none", class_="all"):
    """Test accuracies of the seeds 0, 1, ..."""
    return [
        ResultRow(setting, seed, "test", correction, class_, "accuracy", value)
        for seed, value in enumerate(values)
    ]


def write_tested(folder, rows, classes=3):
    """results.csv and the confusion matrices that belong to it, in which all examples are right."""
    tested = [row for row in rows if (row.split, row.class_, row.metric) == ("test", "all", "accuracy")]
    right = np.eye(classes, dtype=int)
    matrices = [Confusion(row.setting, row.seed, row.correction, right) for row in tested]
    confusions.write(folder, matrices, classes)
    run_folder.write_results(folder, rows)
    return matrices


@pytest.fixture
def folder(tmp_path):
    write_config(tmp_path, make_config())
    run_folder.write_history(tmp_path, [HistoryRow(0, LABELS, 0, 1, "train", "loss", 0.5)])
    rows = accuracies(LABELS, [0.9, 0.8, 0.7]) + accuracies(SOFT, [0.5, 0.5, 0.5])
    write_tested(tmp_path, [*rows, ResultRow(SOFT, 0, "test", "prior_matched", "2", "errors", 3.0)])
    run_folder.write_bias_curve(tmp_path, [BiasRow(SOFT, 0, -1.5, "2", 0.25)])
    return tmp_path


def test_round_trip_is_exact(tmp_path):
    awkward = [0.1 + 0.2, 1e-300, 1 / 3, 97.0, -0.0]
    fractions = [value if value <= 1 else 0.97 for value in awkward]
    description = describe(seeds=5)
    history = [HistoryRow(seed, LABELS, seed, 1, "train", "loss", v) for seed, v in enumerate(awkward)]
    history.append(HistoryRow(0, LABELS, 0, 2, "validation", "loss", math.inf))
    rows = accuracies(LABELS, fractions) + accuracies(SOFT, fractions) + accuracies("teacher", [0.5])
    rows += [ResultRow(SOFT, 0, "test", "teacher_matched", "omitted", "bias", 2.5)]
    curve = [BiasRow(SOFT, 0, bias, part, 0.75) for bias in awkward for part in ("seen", "1")]
    run_config.write(tmp_path, description)
    run_folder.write_history(tmp_path, history)
    matrices = write_tested(tmp_path, rows)
    run_folder.write_bias_curve(tmp_path, curve)
    read = run_folder.read_run(tmp_path)
    assert (read.description, read.history, read.results, read.bias_curve) == (
        description, history, rows, curve,
    )  # fmt: skip
    assert [row[:3] for row in read.confusions] == [row[:3] for row in matrices]
    assert (tmp_path / "results.csv").read_text().splitlines()[:2] == [
        "setting,seed,split,correction,class,metric,value",
        "labels omit=none,0,test,none,all,accuracy,0.30000000000000004",
    ]
    assert (tmp_path / "history.csv").read_text().startswith("run,setting,seed,epoch,split,metric,value\n")
    assert (tmp_path / "bias_curve.csv").read_text().startswith("setting,seed,bias,class,accuracy\n")


def test_undefined_values_are_empty_cells(folder):
    run_folder.write_history(folder, [HistoryRow(0, LABELS, 0, 1, "train", "agreement", NAN)])
    assert (folder / "history.csv").read_text().splitlines()[1] == "0,labels omit=none,0,1,train,agreement,"
    (row,) = run_folder.read_run(folder).history
    assert math.isnan(row.value)


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    row = (np.int32(0), LABELS, np.int64(1), 2, "train", "loss", np.float32(0.1))
    run_folder.write_history(tmp_path, [HistoryRow._make(row)])
    (read,) = run_folder.read_history(tmp_path, describe())
    assert read == (0, LABELS, 1, 2, "train", "loss", float(np.float32(0.1)))


def test_names_that_csv_must_quote(tmp_path):
    name = 'a, "b"\nc'
    config = describe(settings=[{"name": name, "omitted": []}])
    run_folder.write_results(tmp_path, accuracies(name, [0.1, 0.2, 0.3]))
    assert run_folder.read_results(tmp_path, config) == accuracies(name, [0.1, 0.2, 0.3])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        run_folder.write_results(folder, [])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


DAMAGES = {  # file, its new content or an edit of the old, what the message must name
    "no config": ("config.json", None, ["config.json", "no such file"]),
    "config not JSON": ("config.json", '{\n "format": 2,\n oops', ["config.json, line 3", "JSON"]),
    "config of a huge number": ("config.json", '{"format": 2' + "0" * 5000 + "}", ["config.json", "JSON"]),
    "config too deep": ("config.json", "[" * 100_000, ["config.json"]),
    "config no object": ("config.json", "[]", ["config.json", "an object"]),
    "config of another format": (
        "config.json",
        ('"format": 2', '"format": 3'),
        ["format", "expected 2", "3"],
    ),
    "run of an older version": (
        "config.json",
        ('"format": 2', '"format": 1'),
        ["older version", "./launch.sh distill --seeds=3", "format 1"],
    ),
    "config without data": ("config.json", ('"data"', '"date"'), ["config.json: data", "nothing"]),
    "config flag for a number": ("config.json", ('"train": 60', '"train": true'), ["train", "int", "True"]),
    "class names too few": ("config.json", ('"2"\n', '"2", "3"\n'), ["class_names", "3 names"]),
    "omitted no class": (
        "config.json",
        ('"omitted": [\n    2', '"omitted": [\n    3'),
        ["omitted", "below 3"],
    ),
    "omitted no index": ("config.json", ('"omitted": [\n    2', '"omitted": [\n    [2]'), ["omitted"]),
    "setting twice": ("config.json", (SOFT, LABELS), ["a name of its own"]),
    "run of no setting": ("config.json", ('"setting": "labels', '"setting": "label'), ["a run's setting"]),
    "no results": ("results.csv", None, ["results.csv", "no such file"]),
    "no history": ("history.csv", None, ["history.csv", "no such file"]),
    "no bias curve": ("bias_curve.csv", None, ["bias_curve.csv", "no such file"]),
    "empty": ("results.csv", "", ["results.csv", "cut off"]),
    "cut off": ("results.csv", ("errors,3.0\n", "errors,3"), ["results.csv", "cut off"]),
    "rows lost": ("results.csv", (f"{SOFT},2,test,none,all,accuracy,0.5\n", ""), ["incomplete", "seed 2"]),
    "other header": ("results.csv", ("class,metric", "klass,metric"), ["results.csv, line 1", "class"]),
    "too few columns": ("results.csv", (",all,accuracy,0.8", ",all,0.8"), ["line 3", "7 columns", "6"]),
    "no number": ("results.csv", ("0.8", "0.8x"), ["line 3, column value", "a number", "'0.8x'"]),
    "nan": ("results.csv", ("0.8", "nan"), ["line 3, column value", "a number"]),
    "infinite": ("results.csv", ("0.8", "1e999"), ["line 3, column value", "a finite number"]),
    "a share above 1": ("results.csv", ("0.8", "1.5"), ["line 3, column value", "from 0 to 1", "'1.5'"]),
    "a share below 0": ("results.csv", ("0.8", "-0.1"), ["line 3, column value", "from 0 to 1", "'-0.1'"]),
    "half an error": ("results.csv", ("errors,3.0", "errors,3.5"), ["line 8, column value", "a count"]),
    "a huge seed": ("results.csv", (f"{LABELS},1,", f"{LABELS},{'9' * 5000},"), ["column seed", "whole"]),
    "curve above 1": ("bias_curve.csv", ("0.25", "1.25"), ["line 2, column accuracy", "from 0 to 1"]),
    "config of nan": ("config.json", ('"train": 60', '"train": NaN'), ["config.json", "out of range, NaN"]),
    "config of half a letter": ("config.json", ('"device": "cpu"', r'"device": "\ud800"'), ["config.json"]),
    "config beyond 64 bits": ("config.json", ('"train": 60', f'"train": 1{30 * "0"}'), ["of range"]),
    "alpha no number": ("config.json", ('"alpha": 0.0', '"alpha": "0"'), ["alpha", "a number or null"]),
    "setting of objects": ("config.json", ('"alpha": 0.0', '"x": {}'), [f"{LABELS!r}: x", "a word or"]),
    "teachers no number": ("config.json", ('"num_teachers": 1', '"num_teachers": "1"'), ["num_teachers"]),
    "members no list": ("config.json", ('"num_teachers": 1', '"members": {}'), ["members", "a list of"]),
    "underscore": ("results.csv", ("0.8", "1_0"), ["line 3, column value", "a number"]),
    "space": ("results.csv", ("0.8", " 0.8"), ["line 3, column value", "a number"]),
    "seed not whole": ("results.csv", (f"{LABELS},1,", f"{LABELS},1.0,"), ["line 3, column seed", "whole"]),
    "seed negative": ("results.csv", (f"{LABELS},1,", f"{LABELS},-1,"), ["line 3, column seed", "whole"]),
    "unknown setting": ("results.csv", (f"{LABELS},1,", "x,1,"), ["line 3, column setting", LABELS]),
    "unknown split": ("results.csv", ("1,test", "1,train"), ["line 3, column split", "validation | test"]),
    "unknown correction": ("results.csv", ("prior_matched", "prior"), ["line 8, column correction"]),
    "unknown class": (
        "results.csv",
        (",2,errors", ",3,errors"),
        ["line 8, column class", "seen | 0 | 1 | 2"],
    ),
    "unknown metric": ("results.csv", (",2,errors", ",2,predicted_as_3"), ["line 8, column metric"]),
    "row twice": ("results.csv", (f"{LABELS},1,", f"{LABELS},0,"), ["line 3", "once", "again"]),
    "confusion as a metric": ("results.csv", (",2,errors", ",2,predicted_as_1"), ["line 8, column metric"]),
    "no confusions": ("confusions.npz", None, ["confusions.npz", "no such file"]),
    "confusions no archive": ("confusions.npz", b"PK", ["confusions.npz is damaged"]),
    "a matrix too few": (
        "results.csv",
        ("prior_matched,2,errors,3.0", "prior_matched,all,accuracy,0.3"),
        ["confusions.npz does not fit", SOFT, "seed 0", "prior_matched"],
    ),
    "open quote": ("results.csv", ("0.8", '"0.8'), ["results.csv, line 8", "comma-separated"]),
    "not text": ("results.csv", b"setting\xff\n", ["results.csv", "UTF-8"]),
    "history of no epoch": ("history.csv", ("0,1,train", "0,x,train"), ["history.csv, line 2, column epoch"]),
    "history of teacher": ("history.csv", (LABELS, "teacher"), ["history.csv, line 2, column setting"]),
    "curve of no class": ("bias_curve.csv", ("-1.5,2", "-1.5,3"), ["bias_curve.csv, line 2, column class"]),
    "curve without bias": ("bias_curve.csv", ("-1.5", ""), ["bias_curve.csv, line 2, column bias"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_refused_by_name(folder, damage):
    name, change, words = DAMAGES[damage]
    path = folder / name
    if change is None:
        path.unlink()
    elif isinstance(change, tuple):
        before = path.read_text()
        assert change[0] in before
        path.write_text(before.replace(*change, 1) if damage != "setting twice" else before.replace(*change))
    else:
        path.write_bytes(change if isinstance(change, bytes) else change.encode())
    with pytest.raises(InputError) as error:
        run_folder.read_run(folder)
    message = str(error.value)
    assert all(word in message for word in [*words, "expected", "given"]), message


def npz(folder, **changes):
    """confusions.npz of two rows, with other arrays in it."""
    arrays = {"setting": np.array([SOFT, "teacher"]), "seed": np.array([0, 1])}
    arrays |= {"correction": np.array(["none", "none"]), "counts": np.ones((2, 3, 3), np.int16)}
    np.savez(folder / "confusions.npz", **(arrays | changes))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"counts": np.ones((2, 3, 4), int)}, r"counts \[3,3\]"),
        ({"counts": np.ones((3, 3), int)}, "damaged"),
        ({"counts": -np.ones((2, 3, 3), int)}, "damaged"),
        ({"counts": np.ones((2, 3, 3))}, "damaged"),
        ({"seed": np.array([0, -1])}, "damaged"),
        ({"seed": np.array([0.0, 1.0])}, "damaged"),
        ({"seed": np.array([0])}, "damaged"),
        ({"setting": np.array([SOFT, "other"])}, "setting: expected .*teacher; given 'other'"),
        ({"setting": np.array([0, 1])}, "damaged"),
        ({"setting": np.array([SOFT, "teacher"], object)}, "no pickled objects"),
        ({"correction": np.array(["none", "some"])}, "correction: .*given 'some'"),
        ({"setting": np.array([SOFT, SOFT]), "seed": np.array([1, 1])}, "once"),
    ],
)
def test_confusions_that_are_no_such_are_refused(tmp_path, changes, words):
    npz(tmp_path)
    found = confusions.read(tmp_path, describe(), CORRECTIONS)
    assert [row[:3] for row in found] == [(SOFT, 0, "none"), ("teacher", 1, "none")]
    npz(tmp_path, **changes)
    with pytest.raises(InputError, match=r"confusions\.npz") as error:
        confusions.read(tmp_path, describe(), CORRECTIONS)
    assert re.search(words, str(error.value))


@pytest.mark.parametrize("most, dtype", [(7, np.int16), (40_000, np.int32)])
def test_confusions_are_read_as_they_were_written(tmp_path, most, dtype):
    counts = [np.array([[most, 1, 0], [0, 2, 3], [4, 5, 6]]), np.array([[1, 2], [3, 4]], np.int32)]
    rows = [Confusion(SOFT, 3, "none", counts[0]), Confusion("teacher", 0, "none", counts[1])]
    confusions.write(tmp_path, rows, 3)
    first = (tmp_path / "confusions.npz").read_bytes()
    of_all, of_two = confusions.read(tmp_path, describe(), CORRECTIONS)
    np.testing.assert_array_equal(of_all.counts, counts[0])
    # A model of the first two classes alone calls nothing by the third.
    np.testing.assert_array_equal(of_two.counts, [[1, 2, 0], [3, 4, 0], [0, 0, 0]])
    assert of_all.counts.dtype == dtype and of_all[:3] == (SOFT, 3, "none")
    confusions.write(tmp_path, rows, 3)
    assert (tmp_path / "confusions.npz").read_bytes() == first
    confusions.write(tmp_path, [], 3)
    assert confusions.read(tmp_path, describe(), CORRECTIONS) == []


def test_rows_grow_with_the_classes_not_with_their_square():
    sizes = []
    for classes in (20, 200):
        matrix, labels = np.eye(classes, dtype=int), np.arange(classes)
        curve = tidy.bias_rows(SOFT, 0, np.zeros(5), np.ones((5, classes), int), labels, [1])
        sizes.append((len(tidy.result_rows(SOFT, 0, "test", "none", matrix, [1], 0.0)), len(curve)))
    (few, few_curved), (many, many_curved) = sizes
    assert many - few == 5 * 180  # accuracy, errors, total, precision, f1
    assert few_curved == 5 * (20 + 3) and many_curved == 5 * 3


@pytest.mark.parametrize("seen", [slice(0), slice(7), slice(6), slice(4, None), slice(4)])
def test_a_history_that_lacks_epochs_is_refused(folder, seen):
    """Cut off at the end of a line, it is still one of whole lines."""
    config = make_config(seeds=2)
    config["flags"]["epochs"] = 2
    rows = [
        HistoryRow(seed, LABELS, seed, epoch, "train", metric, 0.5)
        for seed in (0, 1)
        for epoch in (1, 2)
        for metric in ("loss", "accuracy")
    ]
    write_config(folder, config)
    write_tested(folder, accuracies(LABELS, [0.9, 0.8]) + accuracies(SOFT, [0.5, 0.5]))
    run_folder.write_history(folder, rows)
    assert run_folder.read_run(folder).history == rows
    run_folder.write_history(folder, rows[seen])
    with pytest.raises(InputError, match=r"history\.csv is incomplete: expected epochs 1 to 2 of each run"):
        run_folder.read_run(folder)
    lost = [ResultRow(name, 1, "test", "none", "all", "diverged", 2) for name in (LABELS, SOFT)]
    whole = accuracies(LABELS, [0.9]) + accuracies(SOFT, [0.5])
    run_folder.write_history(folder, rows[:5])
    write_tested(folder, whole + lost)
    assert run_folder.read_run(folder).history == rows[:4]  # a run that diverged may lack epochs


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        run_folder.read_run(tmp_path / "nothing")


def test_optional_parts_of_the_config(tmp_path):
    teacher = make_config()["teacher"] | {"saw_validation": True}
    config = make_config() | {"teacher": teacher, "continued": [{"versions": {"jax": "0.11.2"}}]}
    config |= {"question": "Why?", "transfer": {"examples": 5}, "pretrained": {"sha256": "ef"}}
    config["data"] |= {"skipped": 2, "notes": ["as it is"]}
    config["time"] = {"run_seconds": 1.5, "training_seconds": 1.0, "examples": 90}
    write_config(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text()) == config
    assert run_config.to_json(run_config.read(tmp_path)) == config
    for name, value in (("continued", "once"), ("question", 5), ("pretrained", [])):
        with pytest.raises(InputError, match=f"{name}: expected"):
            run_config.parse(config | {name: value})
    for name, value in (("skipped", "2"), ("notes", 2)):
        with pytest.raises(InputError, match=f"data: {name}: expected"):
            run_config.parse(config | {"data": config["data"] | {name: value}})


def test_a_config_that_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(InputError, match="settings and runs: expected one or more of each"):
        run_config.write(tmp_path, dataclasses.replace(describe(), runs=()))
    assert not list(tmp_path.iterdir())


def test_the_bias_curve_may_be_absent_where_nothing_was_corrected(folder):
    write_tested(folder, accuracies(LABELS, [0.9, 0.8, 0.7]) + accuracies(SOFT, [0.5, 0.5, 0.5]))
    (folder / "bias_curve.csv").unlink()
    assert run_folder.read_run(folder).bias_curve == []


def test_what_a_killed_process_left_half_written_goes_when_the_file_is_written(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()  # its number is nobody's now
    left, of_another = (tmp_path / f".{name}.{ended.pid}.tmp" for name in ("report[1].md", "config.json"))
    living = tmp_path / f".report[1].md.{os.getppid()}.tmp"
    for path in (left, of_another, living):
        path.touch()
    run_files.write(tmp_path / "report[1].md", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"report[1].md", of_another.name, living.name}
