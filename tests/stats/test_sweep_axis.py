"""The axis of a sweep: which value it is, where the settings stand on it, and the figure, derived by hand."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.reporting import report
from kd_jax import plots
from kd_jax.stats.intervals import Interval
from kd_jax.stats.summary import Key, Summary
from kd_jax.stats.sweep_axis import axis_of, controls_of
from tests.experiments.reporting.toy_run import rows_of, write_run
from tests.io.test_run_folder import describe

STUDENT = {
    "omitted": [],
    "logit_mask": "auxiliary",
    "share": "all",
    "perturb": 0.0,
    "temperature": 1.0,
    "model": "mlp-64-64",
    "auxiliary": 3,
    "classes": 10,
    "transfer": "uniform_noise",
    "loss": "soft",
}
CONTROL = STUDENT | dict.fromkeys(("logit_mask", "share", "perturb", "temperature", "transfer", "loss"))


def students(*changes):
    """Settings that differ from STUDENT in these values, named by their number."""
    return infos(*(STUDENT | change | {"name": str(number)} for number, change in enumerate(changes)))


def infos(*settings):
    return list(describe(settings=list(settings)).settings)


@pytest.mark.parametrize(
    "changes, name, places",
    [
        ([{"perturb": 0.0}, {"perturb": 0.4}], "perturb", [0.0, 0.4]),
        ([{"auxiliary": 1}, {"auxiliary": 10}], "auxiliary", [1, 10]),
        ([{"temperature": 1.0}, {"temperature": 4.0}], "temperature", [1.0, 4.0]),
        ([{"model": "mlp-64-64"}, {"model": "mlp-512-512"}], "width", [64, 512]),
        ([{"model": "mlp-64"}, {"model": "mlp-64-64-64"}], "depth", [1, 3]),
        ([{"model": "mlp-64"}, {"model": "mlp-8-8"}], "model", ["mlp-64", "mlp-8-8"]),
        ([{"model": "mlp-64-64"}, {"model": "mlp-64-8"}], "model", ["mlp-64-64", "mlp-64-8"]),
        ([{"omitted": []}, {"omitted": [1, 2]}], "omitted", ["none", "1+2"]),
        (
            [{"temperature": 4.0}, {"loss": "logits", "temperature": None}],
            "loss",
            ["soft, T = 4", "logits"],
        ),
    ],
)
def test_the_axis_is_what_differs(changes, name, places):
    settings = students(*changes)
    axis = axis_of(settings)
    assert (axis.name, list(axis.places.values())) == (name, places)
    assert axis.numeric == (not isinstance(places[0], str)) and set(axis.series.values()) == {""}
    assert settings == students(*changes)  # which config.json holds


def test_of_several_values_the_one_with_most_is_the_axis():
    grid = [
        {"logit_mask": seen, "share": part}
        for part in ("all", "hidden", "none")
        for seen in ("all", "classes")
    ]
    axis = axis_of(students(*grid))
    assert axis.name == "share" and [axis.places[str(i)] for i in (0, 2, 4)] == ["all", "hidden", "none"]
    assert [axis.series[str(i)] for i in range(3)] == [
        "logit_mask: all",
        "logit_mask: classes",
        "logit_mask: all",
    ]


def sweep(*changes):
    """The students, and the controls of each width."""
    controls = [
        CONTROL | {"name": f"{kind} model={model}", "model": model}
        for model in ("mlp-64-64", "mlp-8-8")
        for kind in ("teacher", "reference")
    ]
    return [*students(*changes), *infos(*controls)]


def test_the_controls_of_each_student_are_those_of_its_network():
    found = controls_of(sweep({}, {"model": "mlp-8-8"}, {"share": "none"}))
    assert found["teacher"] == {
        "0": "teacher model=mlp-64-64",
        "2": "teacher model=mlp-64-64",
        "1": "teacher model=mlp-8-8",
    }
    assert found["reference"]["1"] == "reference model=mlp-8-8"


def figure_of(settings):
    """Setting i has accuracy (10 i + 5) % +- 2."""
    intervals = {
        Key(s.name, "test", "none", "all", "accuracy"): Interval(
            0.1 * i + 0.05, 0.1 * i + 0.03, 0.1 * i + 0.07, 3
        )
        for i, s in enumerate(settings)
    }
    return plots.axis(Summary(intervals), replace(describe(), settings=settings))


def lines_of(axes):
    return {
        container.get_label(): np.asarray(container.lines[0].get_xydata()) for container in axes.containers
    }


def test_numbers_lie_along_the_axis_and_few_of_them_on_a_logarithmic_one():
    settings = sweep({}, {"model": "mlp-8-8"})
    (axes,) = figure_of(settings).axes
    np.testing.assert_allclose(lines_of(axes)["students"], [[8, 15], [64, 5]])
    np.testing.assert_allclose(lines_of(axes)["teacher"], [[8, 45], [64, 25]])
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "width of the hidden layers (units)"
    (axes,) = figure_of(students({"perturb": 0.4}, {"perturb": 0.0})).axes
    np.testing.assert_allclose(lines_of(axes)["students"], [[0, 15], [0.4, 5]])
    assert axes.get_xscale() == "linear" and [t.get_text() for t in axes.get_xticklabels()] == ["0.4", "0"]


def test_words_stand_below_each_other_and_one_teacher_is_a_line():
    one = infos(CONTROL | {"name": "teacher"}, CONTROL | {"name": "reference"})
    (axes,) = figure_of([*students({"share": "all"}, {"share": "none"}), *one]).axes
    np.testing.assert_allclose(lines_of(axes)["students"], [[5, 0], [15, 1]])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["all", "none"]
    marks = {
        line.get_label(): line.get_xdata()[0] for line in axes.lines if not line.get_label().startswith("_")
    }
    assert marks["teacher"] == pytest.approx(25) and marks["reference"] == pytest.approx(35)


def test_where_all_students_miss_one_class_it_is_shown():
    names = [str(k) for k in range(5)]
    for omitted, label in (([2], "test accuracy of class c (%)"), ([1, 2], "test accuracy (%)")):
        settings = students({"omitted": omitted}, {"omitted": omitted, "perturb": 0.4})
        part = str(omitted[0]) if len(omitted) == 1 else "all"
        intervals = {
            Key(name, "test", "none", class_, "accuracy"): Interval(
                0.5 if class_ == part else 0.9, 0.4, 0.6, 3
            )
            for name in names
            for class_ in ("all", "2")
        }
        data = replace(describe().data, class_names=("a", "b", "c"))
        (axes,) = plots.axis(Summary(intervals), replace(describe(), settings=settings, data=data)).axes
        np.testing.assert_allclose(lines_of(axes)["students"], [[0, 50], [0.4, 50]])
        assert axes.get_ylabel() == label


def test_the_report_of_subliminal_learning_has_this_figure_alone(tmp_path):
    settings = [STUDENT | {"name": "0"}, STUDENT | {"name": "1", "perturb": 0.4}]
    settings.append(CONTROL | {"name": "teacher"})
    rows = [
        row
        for s in settings
        for seed in range(2)
        for row in rows_of(s["name"], seed, "none", [9, 8, 10], splits=("test",))
    ]
    folder = write_run(tmp_path / "toy", settings, rows, seeds=2, experiment="subliminal", teacher=None)
    report.build(folder)
    assert {path.name for path in (folder / "figures").iterdir()} == {"axis.png"}
    assert "](figures/axis.png)" in (folder / "report.md").read_text()
