"""How quickly runs learn, by hand; the section of the report and its figure; the target accuracy."""

import math
from dataclasses import replace

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import report as entry_point
from experiments.cli import help
from experiments.reporting import report
from experiments.reporting.sections import learning_speed as sections
from kd_jax import plots
from kd_jax.errors import InputError
from kd_jax.stats import learning_speed
from kd_jax.stats.description import RunInfo
from kd_jax.stats.rows import HistoryRow
from tests.experiments.reporting.toy_run import cells, rows_of, write_run
from tests.io.test_run_folder import describe

FAST, SLOW = "T=4", "labels"
SETTINGS = [{"name": FAST, "omitted": []}, {"name": SLOW, "omitted": []}]
CURVES = {
    FAST: [(0.2, 0.5, 0.8), (0.4, 0.4, 0.6), (0.5, 0.3, 0.7)],
    SLOW: [(0.1, 0.2, 0.6), (0.1, 0.3, 0.2), (0.1, 0.4, 0.4)],
}
"""Of three seeds, the accuracy after each of three epochs."""


def history_of(curves, split="validation"):
    return [
        HistoryRow(0, setting, seed, epoch, split, "accuracy", value)
        for setting, seeds in curves.items()
        for seed, values in enumerate(seeds)
        for epoch, value in enumerate(values, start=1)
    ]


def config_of(curves, teachers=1, **flag_values):
    names = [(setting, seed) for setting, seeds in curves.items() for seed in range(len(seeds))]
    runs = [RunInfo(run, setting, seed, seed % teachers) for run, (setting, seed) in enumerate(names)]
    return replace(describe(), runs=tuple(runs), settings=infos(SETTINGS), flags=flag_values)


def infos(settings):
    return describe(settings=settings).settings


def speeds_of(curves, target, teachers=1):
    return learning_speed.speeds(
        learning_speed.accuracy_curves(history_of(curves)), config_of(curves, teachers), target
    )


def test_speeds_by_hand():
    fast, slow = speeds_of(CURVES, 0.5).values()
    # First at 0.5 or more: epochs 2, 3, 1: mean 2, sd 1, the t quantile with 2 degrees of freedom 4.302653.
    assert (fast.reached, fast.seeds) == (3, 3)
    assert fast.epochs == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5, 3), abs=1e-6)
    # Means over the epochs 1.5 / 3, 1.4 / 3, 1.5 / 3: mean 4.4 / 9. After the last: 0.8, 0.6, 0.7.
    assert fast.area.mean == pytest.approx(4.4 / 9) and fast.final.mean == pytest.approx(0.7)
    # Only seed 0 gets there, after epoch 3: a mean of one, without an interval.
    assert (slow.reached, slow.seeds, slow.epochs.mean, slow.epochs.n) == (1, 3, 3, 1)
    assert math.isnan(slow.epochs.low) and slow.area.n == 3


def test_a_target_that_nobody_reaches():
    fast, slow = speeds_of(CURVES, 0.9).values()
    for speed in (fast, slow):
        assert speed.reached == 0 and math.isnan(speed.epochs.mean) and speed.epochs.n == 0
    assert fast.area.mean == pytest.approx(4.4 / 9)


def test_students_of_one_teacher_share_its_luck():
    speed = speeds_of(CURVES, 0.5, teachers=2)[FAST]
    # Teacher 0 taught seeds 0 and 2 (epochs 2 and 1), teacher 1 seed 1 (epoch 3): means 1.5 and 3.
    assert speed.epochs.mean == pytest.approx(2.25) and speed.epochs.n == 2


@pytest.mark.parametrize("percent", [35, 55, 57, 58, 87.2])
def test_a_target_in_percent_is_reached_exactly(percent):
    right = round(percent * 10)
    assert learning_speed.first_epoch({1: (right - 1) / 1000, 2: right / 1000}, percent / 100) == 2


def test_a_curve_that_falls_back_reached_its_target():
    assert learning_speed.first_epoch({1: 0.2, 2: 0.6, 3: 0.1}, 0.6) == 2
    assert learning_speed.first_epoch({1: math.nan, 2: 0.6}, 0.1) == 2


def test_the_default_target():
    curves = learning_speed.accuracy_curves(history_of(CURVES))
    assert learning_speed.default_target(curves, config_of(CURVES)) == 0.63  # of 0.8, 0.6 and 0.7: mean 0.7
    shallow = {FAST: [(0.4567,)]}  # 0.41103, rounded down to 0.1 %
    assert (
        learning_speed.default_target(learning_speed.accuracy_curves(history_of(shallow)), config_of(shallow))
        == 0.411
    )
    assert math.isnan(learning_speed.default_target({}, config_of(CURVES)))


def test_training_accuracy_counts_only_where_nothing_else_was_measured():
    train = history_of({FAST: [(0.9, 0.9, 0.9)]}, "train")
    both = train + history_of(CURVES)
    assert learning_speed.accuracy_curves(both) == learning_speed.accuracy_curves(history_of(CURVES))
    assert learning_speed.accuracy_curves(train) == {FAST: {0: {1: 0.9, 2: 0.9, 3: 0.9}}}


def test_updates_an_epoch():
    assert learning_speed.updates_per_epoch(config_of(CURVES, batch_size=30)) == 2
    assert learning_speed.updates_per_epoch(config_of(CURVES, batch_size=32)) == 2  # the last one filled up
    assert learning_speed.updates_per_epoch(config_of(CURVES)) is None
    assert learning_speed.updates_per_epoch(config_of(CURVES, batch_size=0)) is None
    foreign = replace(config_of(CURVES, batch_size=30), transfer={"name": "clothes", "examples": 95})
    assert learning_speed.updates_per_epoch(foreign) == 4
    several = infos([setting | {"classes": 2} for setting in SETTINGS])  # data of its own
    several = replace(config_of(CURVES, batch_size=30), settings=several)
    assert learning_speed.updates_per_epoch(several) is None


# The report


@pytest.fixture
def folder(tmp_path):
    rows = [
        row for setting in CURVES for seed in range(3) for row in rows_of(setting, seed, "none", [9, 9, 9])
    ]
    return write_run(tmp_path / "toy", SETTINGS, rows, history_of(CURVES), flags={"batch_size": 32})


def section_of(folder, target_accuracy=None):
    report.build(folder, report.Options(target_accuracy))
    return (folder / "report.md").read_text().split("## Learning speed")[1].split("\n## ")[0]


def test_the_section_by_hand(folder):
    text = section_of(folder, 50.0)
    assert "The target accuracy is 50 %. " in text and "validation split" in text
    heads = ["reached by", "epochs", "updates", "epoch mean, %", "last epoch, %"]
    assert cells(text, "setting") == [*heads, "n"]
    # Epochs 2.0 +- 2.48; two updates an epoch. Areas of 50, 46.67, 50 %: sd 1.925; finals of 80, 60, 70 %.
    assert cells(text, FAST) == ["3 of 3", "2.0 ± 2.5", "4 ± 5", "48.89 ± 4.78", "70.00 ± 24.8", "3"]
    # Areas of 30, 20 and 30 %: mean 26.67, sd 5.77; finals of 60, 20 and 40 %.
    assert cells(text, SLOW) == ["1 of 3", r"3.0\*", r"6\*", "26.67 ± 14.3", "40.00 ± 49.7", "3"]
    assert r"\* Not all seeds reached the target accuracy" in text


def test_the_target_of_the_report_is_said(folder):
    text = section_of(folder)
    assert "The target accuracy is 63 %, 90 % of the best setting's mean validation accuracy" in text
    assert cells(text, SLOW)[:3] == ["0 of 3", "-", "-"] and "test" not in text


def test_some_seeds_make_no_interval(folder):
    text = section_of(folder, 40.0)
    assert cells(text, FAST)[:3] == ["3 of 3", "1.3 ± 1.4", "3 ± 3"]  # epochs 2, 1, 1: sd 0.577
    assert cells(text, SLOW)[:3] == ["2 of 3", r"2.5\*", r"5\*"]  # epochs 3 and 2


def test_a_target_beyond_all_is_no_number(folder):
    text = section_of(folder, 99.0)
    assert cells(text, FAST)[:3] == ["0 of 3", "-", "-"] and "Not all seeds" not in text


def test_one_seed_without_validation(tmp_path):
    rows = rows_of(FAST, 0, "none", [9, 9, 9], splits=("test",))
    history = history_of({FAST: CURVES[FAST][:1]}, "train")
    folder = write_run(tmp_path, SETTINGS[:1], rows, history, seeds=1)
    text = section_of(folder)
    assert "There is no validation split: accuracy on the training batches" in text
    # The target accuracy is 72 %; how large a batch was, the toy's config.json does not say.
    assert cells(text, FAST) == ["1 of 1", "3.0", "50.00", "80.00", "1"] and "updates |" not in text


def test_a_run_without_history_has_no_such_section(tmp_path):
    folder = write_run(tmp_path, SETTINGS[:1], rows_of(FAST, 0, "none", [9, 9, 9]), seeds=1)
    assert "Learning speed" not in report.build(folder) + (folder / "report.md").read_text()
    assert sections.section([], config_of(CURVES), 40.0) == []


@flagsaver.flagsaver
def test_the_flag():
    assert flags.FLAGS(["report", "--target_accuracy=40", "run"])[1:] == ["run"]
    assert flags.FLAGS.target_accuracy == 40


@pytest.mark.parametrize("given", ["0.8", "101", "-3", "nan", "much"])
@flagsaver.flagsaver
def test_a_target_that_is_no_percentage_is_refused(given):
    with pytest.raises(InputError, match="--target_accuracy cannot be this"):
        help.parse(["report", f"--target_accuracy={given}", "run"], entry_point.EXAMPLE)


# The figure of a grid


def grid(temperatures=(1.0, 20.0), alphas=(0.1, 0.5)):
    settings = [{"name": SLOW, "omitted": [], "temperature": None, "alpha": 0.0, "learning_rate": 0.1}]
    return settings + [
        {"name": f"{t} {a}", "omitted": [], "temperature": t, "alpha": a, "learning_rate": 0.1}
        for t in temperatures
        for a in alphas
    ]


def test_what_is_a_grid():
    assert plots.is_grid(infos(grid())) and plots.is_grid(infos(grid()[1:]))
    assert not plots.is_grid(infos(grid(alphas=(0.5,)))) and not plots.is_grid(infos(grid((4.0,))))
    for other in ({"omitted": [2]}, {"learning_rate": 0.2}):
        assert not plots.is_grid(infos([*grid(), grid()[1] | other | {"name": "other"}]))
    assert not plots.is_grid(infos(SETTINGS))


def test_the_grid_shows_each_setting_in_its_panel():
    settings = grid()
    curves = {s["name"]: [(number / 10, number / 5)] for number, s in enumerate(settings)}
    description = replace(config_of(curves), settings=infos(settings))
    figure = plots.learning_grid(history_of(curves), description, 0.4)
    first, second = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["T=1", "T=20"]
    for axes, numbers in ((first, (0, 1, 2)), (second, (0, 3, 4))):
        *lines, target = axes.lines
        shown = [np.asarray(line.get_ydata()) for line in lines]
        np.testing.assert_allclose(shown, [[10 * number, 20 * number] for number in numbers])
        assert set(np.asarray(target.get_ydata())) == {40.0}
        assert [line.get_label() for line in axes.lines] == [SLOW, "alpha=0.1", "alpha=0.5", "40 %"]
    assert len({line.get_color() for line in first.lines[:3]}) == 3
    assert [line.get_color() for line in first.lines] == [line.get_color() for line in second.lines]


def test_a_grid_too_large_says_what_it_leaves_out():
    settings = grid(tuple(range(1, 9)), tuple(a / 10 for a in range(1, 9)))
    curves = {s["name"]: [(0.1, 0.2)] for s in settings}
    figure = plots.learning_grid(history_of(curves), replace(config_of(curves), settings=infos(settings)))
    assert len([axes for axes in figure.axes if axes.lines]) == 6
    assert "28 settings are not shown." in " ".join(text.get_text() for text in figure.texts)


def test_a_grid_of_which_nothing_was_measured_draws_nothing():
    figure = plots.learning_grid([], replace(config_of({}), settings=infos(grid())), 0.4)
    assert plots.render(figure) and not figure.axes[0].lines
