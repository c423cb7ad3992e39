"""A correction is one entry of CORRECTIONS: an added one is computed, and shown wherever corrections are."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.reporting import report
from kd_jax import losses, models, plots
from kd_jax.evaluate import bias_correction, evaluate
from kd_jax.io import run_folder
from kd_jax.stats import corrections, summary
from kd_jax.stats.corrections import CORRECTIONS, Correction
from kd_jax.train import sweep
from kd_jax.types import Table
from tests.experiments.reporting.toy_run import (
    SETTINGS,
    SOFT,
    toy_curve,
    toy_history,
    toy_rows,
    write_run,
)

LABEL, DASHES = "bias under which half of the images are assigned to an omitted class", (9, 4)


def median_margin(inputs):
    return jnp.median(bias_correction.margins(inputs.logits["validation"], inputs.omitted))


@pytest.fixture
def added(monkeypatch):
    """The name of a correction that only an entry defines."""
    monkeypatch.setitem(
        CORRECTIONS, "median_margin", Correction(LABEL, "validation_images", DASHES, median_margin)
    )
    return "median_margin"


def test_the_order_of_preference_is_that_of_what_is_needed(added):
    assert corrections.label_free(CORRECTIONS) == ["teacher_matched", "median_margin", "prior_matched"]
    assert corrections.preferred(CORRECTIONS) == "teacher_matched"
    assert corrections.preferred(["none", "validation_tuned", "test_tuned"]) == "validation_tuned"
    assert corrections.preferred(["none", "test_tuned"]) == corrections.preferred([]) == "none"
    assert [name for name in CORRECTIONS if not corrections.is_result(name)] == ["test_tuned"]
    assert corrections.of_teacher() == ["teacher_matched"]
    assert all(entry.needs in corrections.NEEDS for entry in CORRECTIONS.values())


@pytest.mark.parametrize("held_out", [True, False])
def test_an_added_rule_is_computed_where_there_is_what_it_needs(added, held_out):
    table = Table(jnp.zeros((3, 1, 1, 1), jnp.uint8), jnp.array([0, 1, 1]))
    logits = jnp.array([[1.0, 0.0], [5.0, 1.0], [9.0, 0.0]])  # margins of class 1 omitted: 1, 4, 9
    splits = {"test": logits} | ({"validation": logits} if held_out else {})
    chosen = evaluate.choose_biases(
        models.build("mlp-4", 2), (), False, losses.labels_loss,
        evaluate.EvaluationData(table, table if held_out else None, table, None), {},
        sweep.make_hparams(2, (1,)), jax.random.key(0), splits,
    )  # fmt: skip
    expected = {"none", "test_tuned"} | ({"validation_tuned", "prior_matched", added} if held_out else set())
    assert set(chosen) == expected and chosen["none"] == 0
    if held_out:
        assert chosen[added] == 4


def test_an_added_correction_is_in_tables_figures_and_page(added, tmp_path):
    rows = [row._replace(correction=row.correction.replace("teacher_matched", added)) for row in toy_rows()]
    folder = write_run(tmp_path / "toy", SETTINGS, rows, toy_history(), toy_curve())
    shown = report.build(folder, report.Options(full=True))
    assert f"after bias correction {added}." in " ".join(shown.split())
    assert shown.count(f"\n {added} ") == 3  # in the small table and in both full ones
    text = (folder / "report.md").read_text()
    assert f"| {SOFT} | {added} | 2.0 | 93.33 ± 8.28 |" in text and f"- {added}: {LABEL}" in text
    page = (folder / "report.html").read_text()
    assert f'data-correction="{added}"' in page and f"<dt>{added}</dt><dd>{LABEL}</dd>" in page
    assert '"dash": "9 4"' in page
    run = run_folder.read_run(folder)
    values = summary.summarise(run.results, run.description)
    figure = plots.bias_curve(run.bias_curve, values, run.description, [SOFT])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"bias chosen, {added}" in labels and "bias chosen, test_tuned" in labels
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == f"bias chosen, {added}"]
    assert line.get_xdata()[0] == 2.5
    np.testing.assert_allclose(line._unscaled_dash_pattern[1], DASHES)
    bars = plots.class_bars(values, run.description, {SOFT: added})
    assert f"bias corrected, {added}" in [text.get_text() for text in bars.legends[0].get_texts()]


def test_the_guide_names_every_correction():
    guide = (Path(__file__).parents[2] / "experiments" / "README.md").read_text()
    section = guide.split("\n## Bias correction\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [c for c in CORRECTIONS if c != "none"]
