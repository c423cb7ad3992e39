"""The compression report: what it counts is true, what it measures is sane, bad input is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import compression as entry
from experiments.cli import places
from experiments.studies import compression
from kd_jax import models, plots
from kd_jax.errors import InputError
from kd_jax.io import checkpoint, run_config, run_folder
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import ResultRow
from tests.io.test_run_folder import LABELS, SOFT, describe, make_config, write_config

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (4, 3, 1)


def save_models(path, spec, num_models, **changes):
    model = models.build(spec, 3)
    each = [models.init_variables(model, jax.random.key(seed), SHAPE) for seed in range(num_models)]
    variables = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    options = {"input_dropout": 0.0, "dropout": 0.5, "precision": "float32"}
    metadata = {
        "model": spec,
        "model_options": options,
        "image_shape": list(SHAPE),
        "data": make_config()["data"],
        "flags": make_config()["flags"] | {"out": "elsewhere", "younger": 1},
    }
    checkpoint.save(path, variables, metadata | changes)


def rows_of(setting, metrics):
    """Test rows of the seeds 0, 1, ... as trained."""
    return [
        ResultRow(setting, seed, "test", "none", "all", metric, value)
        for metric, values in metrics.items()
        for seed, value in enumerate(values)
    ]


@pytest.fixture
def students(tmp_path):
    """Two settings of three mlp-5 each; the second's results are of before precision was measured."""
    folder = tmp_path / "students_run"
    run_config.write(folder, describe())
    new = {"accuracy": [0.7, 0.8, 0.9], "macro_precision": [0.5, 0.5, 0.5], "macro_recall": [0.6, 0.7, 0.8]}
    rows = rows_of(LABELS, new | {"macro_f1": [0.4, 0.5, 0.6]}) + rows_of(SOFT, {"accuracy": [0.6, 0.6, 0.6]})
    others = [row._replace(value=0.123) for row in rows]
    rows += [row._replace(split="validation") for row in others]
    rows += [row._replace(correction="test_tuned") for row in others] + rows_of(
        "teacher", {"accuracy": [0.99]}
    )
    run_folder.write_results(folder, rows)
    save_models(folder / "students", "mlp-5", 6)
    return folder


@pytest.fixture
def teacher(tmp_path):
    folder = tmp_path / "teacher_run"
    runs = [{"run": 0, "setting": "teacher", "seed": 0, "teacher_seed": None}]
    config = make_config(settings=[{"name": "teacher", "omitted": []}], seeds=1)
    write_config(folder, config | {"experiment": "train_teacher", "teacher": None, "runs": runs})
    run_folder.write_results(folder, rows_of("teacher", {"accuracy": [0.95], "macro_f1": [0.9]}))
    save_models(folder / "teachers", "mlp-50-50", 1)
    return folder


def cells(text, *starts):
    (line,) = [line for line in text.splitlines() if line.startswith("| " + " | ".join(starts) + " |")]
    return [cell.strip() for cell in line.strip("|").split("|")][len(starts) :]


def test_the_report_as_a_user_gets_it(students, teacher, tmp_path):
    """mlp-5 on 12 numbers: 12 x 5 + 5 x 3 = 75 products, 8 biases; mlp-50-50: 600 + 2500 + 150 = 3250
    products and 103 biases."""
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-P",
        "-m",
        "experiments.compression",
        str(teacher),
        str(students),
        f"--out={out}",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        f"compression.{kind}" for kind in ("json", "md", "png", "svg")
    ]
    text = (out / "compression.md").read_text()
    assert done.stdout.startswith(text)
    assert cells(text, "run", "setting", "model")[-5:] == [
        "accuracy (%)",
        "precision (%)",
        "recall (%)",
        "F1 (%)",
        "n",
    ]
    big = cells(text, "teacher_run", "teacher", "mlp-50-50", "3,353", "0.0065", "0.0134")
    assert big[4:] == ["95.00", "-", "-", "90.00", "1"]
    # sd 0.1: half width 4.302653 * 10 % / sqrt(3) = 24.8.
    small = cells(text, "students_run", LABELS, "mlp-5", "83", "0.00015", "0.000332")
    assert small[4:] == ["80.00 ± 24.8", "50.00 (no spread seen)", "70.00 ± 24.8", "50.00 ± 24.8", "3"]
    old = cells(text, "students_run", SOFT, "mlp-5", "83", "0.00015", "0.000332")
    assert old == [*small[:4], "60.00 (no spread seen)", "-", "-", "-", "3"]
    content = json.loads((out / "compression.json").read_text())
    assert compression.page(content) == text
    first, second, third = content["models"]
    assert (first["parameters"], first["forward_flops"], first["bytes"]) == (3353, 6500, 4 * 3353)
    assert second["latency_ms"] == third["latency_ms"] != first["latency_ms"]
    assert first["exported"]["bytes"] > first["bytes"] and second["exported"] == third["exported"]
    assert first["exported"]["latency_ms"]["median"] > 0
    for row in content["models"]:
        for spread in row["latency_ms"].values():
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert (
        second["results"]["macro_f1"]["mean"] == pytest.approx(0.5)
        and second["results"]["macro_f1"]["n"] == 3
    )
    assert first["results"]["accuracy"]["low"] is None


def test_latency_grows_with_the_work():
    """A thousandfold the work takes longer, whatever else the machine does."""
    model = models.build("mlp-2000-2000", 3)
    variables = models.init_variables(model, jax.random.key(0), SHAPE)
    candidate = compression.Candidate("a", {}, "mlp-2000-2000", model, variables, SHAPE)
    assert compression.latency(candidate, 1000)["low"] > compression.latency(candidate, 1)["low"]


def test_numbers_of_every_size():
    assert [compression._short(x) for x in (0.00123456, 12.345, 99.96, 123.4, 1234567.8)] == [
        "0.00123", "12.3", "100", "123", "1,234,568",
    ]  # fmt: skip


def test_what_cannot_be_reported_on(students, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "latency", lambda *_: pytest.fail("measured before all was read"))

    def refused(*folders):
        with pytest.raises(InputError) as error:
            compression.run(list(map(Path, folders)), None)
        return str(error.value)

    with pytest.raises(InputError, match=r"compression RUN \[RUN"):
        entry.main(["compression"])
    assert "no such folder" in refused(students, tmp_path / "nothing")
    (students / "students").rename(students / "elsewhere")
    assert "no checkpoint here" in refused(teacher, students)
    save_models(students / "students", "mlp-5", 6, model_options={"droput": 0.5})
    assert "damaged checkpoint" in refused(students)
    shutil.rmtree(students / "students")
    save_models(students / "students", "mlp-5", 6, flags={"seeds": 4, "omit": "none,2"})
    assert "students is of another run" in (said := refused(students)) and "given --seeds=4" in said
    shutil.rmtree(students / "students")
    save_models(students / "students", "mlp-5", 6, data=make_config()["data"] | {"fingerprint": "ef56"})
    assert "given data toy ef56" in refused(students)
    run_folder.write_results(teacher, rows_of("teacher", {"errors": [3.0]}))
    assert "test accuracies of 'teacher'" in refused(teacher)


def test_the_figure_shows_each_model_in_three_panels():
    points = [
        ("big", Interval(0.9, 0.85, 0.95, 3), 8.8, 2.0, 40.0),
        ("small", Interval(0.8, float("nan"), float("nan"), 1), 1.3, 0.5, 9.0),
    ]
    figure = plots.compression(points, 128)
    size, image, batch = figure.axes
    for axes, costs in ((size, (8.8, 1.3)), (image, (2.0, 0.5)), (batch, (40.0, 9.0))):
        assert axes.get_xscale() == "log"
        drawn = [np.asarray(container.lines[0].get_xydata())[0] for container in axes.containers]
        np.testing.assert_allclose(drawn, [(costs[0], 90), (costs[1], 80)])
    bars = size.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bars, [(8.8, 85), (8.8, 95)])
    assert "128" in batch.get_xlabel() and "(MB)" in size.get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["big", "small"]
    assert plots.render(figure).startswith(b"\x89PNG")


def test_settings_of_one_model_stand_side_by_side():
    models = [(name, Interval(0.9, 0.85, 0.95, 3), 8.0, 2.0, 40.0) for name in ("a", "b")]
    figure = plots.compression(models, 128)
    for axes, cost in zip(figure.axes, (8.0, 2.0, 40.0), strict=True):
        at = [float(np.asarray(container.lines[0].get_xdata())[0]) for container in axes.containers]
        assert at[1] / at[0] == pytest.approx(1.06) and at[0] * at[1] == pytest.approx(cost**2)


def test_the_report_goes_where_nothing_is_lost(students, teacher, tmp_path):
    """Not into a checkpoint, a run or a dataset, not over another command's report, not of one run twice."""
    before = {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}
    (tmp_path / "pictures" / "train" / "a").mkdir(parents=True)
    (tmp_path / "pictures" / "val" / "a").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "compression.json").write_text('{"command": "another"}')
    (tmp_path / "file").write_text("text")
    for out, expected in (
        (teacher / "teachers", "inside another run"),
        (tmp_path / "pictures" / "train" / "new", "inside a dataset"),
        (tmp_path / "other", "--out is taken"),
        (tmp_path / "file", "--out cannot be written"),
    ):
        with pytest.raises(InputError, match=expected):
            places.refuse_taken(out, "compression.json")
    places.refuse_taken(tmp_path / "new", "compression.json")
    places.refuse_taken(tmp_path / "pictures" / "runs" / "new", "compression.json")  # beside the splits
    (tmp_path / "pictures" / "train" / "run").mkdir()
    (tmp_path / "pictures" / "train" / "run" / "config.json").touch()
    places.refuse_taken(
        tmp_path / "pictures" / "train" / "run", "compression.json"
    )  # a run that is there already
    (tmp_path / "train").mkdir()
    places.refuse_taken(tmp_path / "train", "compression.json")  # a name like any other
    with pytest.raises(InputError, match="named twice"):
        compression.run([teacher, Path(f"{teacher}/")], None)
    assert before == {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}
