"""Figures: the data that they show."""

import io
import math
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from PIL import Image

from kd_jax import plots
from kd_jax.io import run_folder
from kd_jax.stats import summary
from kd_jax.stats.rows import HistoryRow
from tests.experiments.reporting.toy_run import ALL, SOFT
from tests.io.test_run_folder import describe

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def run(folder):
    return run_folder.read_run(folder)


@pytest.fixture
def values(run):
    return summary.summarise(run.results, run.description)


def labels_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def notes_of(figure):
    """What stands below the figure, whose title is a text of its own kind."""
    return [text.get_text() for text in figure.texts if text is not figure._suptitle]


def test_learning_curves(run):
    left, right = (figure := plots.learning_curves(run.history, run.description)).axes
    assert labels_of(figure) == [ALL, SOFT]
    # Epoch e: 0.2 e + (0, 0.1, 0.2) over the seeds: mean 0.2 e + 0.1.
    for line in left.lines:
        np.testing.assert_allclose(np.asarray(line.get_xydata()), [[1, 30], [2, 50]])
    (line,) = right.lines
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[1, 20], [2, 20]])
    # sd 0.1: half width 4.302653 * 10 % / sqrt(3) = 24.84; the band is cut at 0.
    band = np.asarray(right.collections[0].get_paths()[0].vertices)[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.0, 44.84), abs=0.01)
    assert "(%)" in left.get_ylabel() and left.get_xlabel() == "epoch"
    assert notes_of(figure) == ["toy; mean; bands: 95 % interval; n = 3 seeds."]


def test_learning_curves_without_a_validation_split(run):
    history = [row for row in run.history if row.split == "train"]
    (axes,) = plots.learning_curves(history, run.description).axes
    assert axes.get_ylabel() == "training accuracy (%)" and len(axes.lines) == 2


def test_learning_curves_of_many_settings_stay_readable():
    settings = [{"name": f"s{i}", "omitted": []} for i in range(20)]
    history = [HistoryRow(i, f"s{i}", 0, 1, "validation", "accuracy", i / 20) for i in range(20)]
    description = describe(settings=settings, seeds=1)
    data = replace(description.data, name="/data/of/toys")
    figure = plots.learning_curves(history, replace(description, data=data))
    assert notes_of(figure) == ["toys; one seed, so no interval."]
    looks = {
        (line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines[13:]
    }
    assert len(looks) == len(set(zip(*looks, strict=True)).pop()) == 7
    assert labels_of(figure) == ["13 other settings", *(f"s{i}" for i in range(13, 20))]


def test_class_bars(run, values):
    figure = plots.class_bars(values, run.description, {SOFT: "teacher_matched"})
    first, second = figure.axes
    # What has omitted classes comes first.
    assert (first.get_title("left"), second.get_title("left")) == (SOFT, ALL)
    bars = [container for container in first.containers if isinstance(container, BarContainer)]
    heights = [[bar.get_height() for bar in container] for container in bars]
    np.testing.assert_allclose(heights, [[100, 100, 40], [90, 100, 90]])
    assert [tick.get_text() for tick in second.get_xticklabels()] == ["0", "1", "2"]
    assert set(labels_of(figure)) == {
        "as trained", "bias corrected, teacher_matched", "never seen in training",
    }  # fmt: skip


def test_class_bars_where_nothing_is_omitted(run, values):
    description = replace(run.description, settings=run.description.settings[:1])
    (axes,) = plots.class_bars(values, description, {}).axes
    (points,) = axes.containers
    np.testing.assert_allclose(np.asarray(points.lines[0].get_xydata()), [[0, 100], [1, 90], [2, 100]])
    assert axes.get_ylim()[0] > 70  # the interval of class 1 begins at 73.5


def test_a_figure_says_what_it_shows_and_its_svg_holds_text(drawn, run, values):
    figure = partial(plots.class_bars, values, run.description, {SOFT: "teacher_matched"})
    files = {kind: plots.render(figure(), kind) for kind in ("png", "svg")}
    assert all(file == plots.render(figure(), kind) for kind, file in files.items())
    with Image.open(io.BytesIO(files["png"])) as image:
        assert image.size[0] == 7.2 * 300 and image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    text = " ".join(ElementTree.fromstring(files["svg"]).itertext())
    for words in ("accuracy (%)", "never seen in training", "95 % interval; n = 3 seeds.", SOFT):
        assert words in text
    assert b"20" not in files["svg"].split(b"<metadata>")[1].split(b"</metadata>")[0]  # no date


def test_legend_and_note_stand_below_the_panels(drawn, run, values):
    figure = plots.class_bars(values, run.description, {SOFT: "teacher_matched"})
    plots.render(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (legend,), (note,) = figure.legends, [text for text in figure.texts if text is not figure._suptitle]
    lowest = min(axes.get_tightbbox(renderer).y0 for axes in figure.axes)
    box = legend.get_window_extent(renderer)
    assert lowest >= box.y1 and box.y0 >= note.get_window_extent(renderer).y1 and box.x0 > 0


def test_bias_curve(run, values):
    figure = plots.bias_curve(run.bias_curve, values, run.description, [SOFT])
    (axes,) = figure.axes
    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines}
    np.testing.assert_allclose(lines["omitted classes"], [[-1, 10], [3, 90]])
    np.testing.assert_allclose(lines["seen classes"], [[-1, 100], [3, 60]])
    np.testing.assert_allclose(lines["all classes"], [[-1, 70], [3, 70]])
    assert (
        lines["bias chosen, teacher_matched"][0, 0] == 2.5 and lines["bias chosen, test_tuned"][0, 0] == 4.0
    )
    assert "(nats)" in axes.get_xlabel()


@pytest.mark.parametrize(
    "chosen, drawn", [(3.5, True), (6.9, True), (7.1, False), (150.04, False), (-4.9, True), (-5.1, False)]
)
def test_biases_outside_the_curve(run, values, chosen, drawn):
    # The curve goes from -1 to 3: the axis extends by up to 4 on each side, what is further out is written.
    key = summary.Key(SOFT, "test", "test_tuned", "omitted", "bias")
    changed = {key: values.intervals[key]._replace(mean=chosen)}
    values = summary.Summary({**values.intervals, **changed})
    (axes,) = plots.bias_curve(run.bias_curve, values, run.description, [SOFT]).axes
    marks = {line.get_label(): float(np.asarray(line.get_xdata())[0]) for line in axes.lines}
    low, high = axes.get_xlim()
    assert marks["bias chosen, teacher_matched"] == 2.5
    if drawn:
        assert marks["bias chosen, test_tuned"] == chosen and low < chosen < high
        assert axes.get_xlabel().endswith("(nats)")
    else:
        assert "bias chosen, test_tuned" not in marks and -5 < low < high < 7
        assert axes.get_xlabel().endswith(f"(nats)\nchosen beyond this axis: test_tuned {chosen:.1f}")


def test_confusion_matrix(run):
    figure = plots.confusion_matrix(run.confusions, run.description, SOFT, ["none", "teacher_matched"])
    before, after, _ = figure.axes
    # Of the 2s, 40 % are right on average, and the others are called 0.
    expected = [[100, 0, 0], [0, 100, 0], [60, 0, 40]]
    np.testing.assert_allclose(np.asarray(before.images[0].get_array()), expected)
    expected = [[90, 10, 0], [0, 100, 0], [10, 0, 90]]
    np.testing.assert_allclose(np.asarray(after.images[0].get_array()), expected)
    assert [text.get_text() for text in before.texts] == ["100", "100", "60", "40"]
    assert [tick.get_text() for tick in before.get_yticklabels()] == ["0", "1", "2 *"]


def test_undefined_values_leave_gaps_not_errors(drawn, run, values):
    undefined = {
        key: value._replace(mean=math.nan, low=math.nan, high=math.nan)
        for key, value in values.intervals.items()
    }
    assert plots.render(plots.class_bars(summary.Summary(undefined), run.description, {}))
