"""The Python of the pages does what it says: each block is run, with fewer epochs and seeds."""

import re

import jax
import numpy as np
import pandas as pd
import pytest

from experiments.gallery import pages
from experiments.gallery.rows import Ours
from experiments.reporting import report
from kd_jax import data, losses, models
from kd_jax.io import run_folder
from kd_jax.types import Batch, HParams
from tests.experiments.reporting.toy_run import (
    SETTINGS,
    SOFT,
    toy_curve,
    toy_history,
    toy_rows,
    write_run,
)


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (pages.REPOSITORY / page).read_text(), re.DOTALL)


(SHORT,) = blocks_of("README.md")
OWN, FIGURE, SCATTER, _EXPORTED = blocks_of("experiments/README.md")  # the last: test_export.py
LIBRARY, NESTING, CHECKPOINTS, LOSS, MODEL, CORRECTION = blocks_of("kd_jax/README.md")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run where the guide has the quickstart's."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs" / "quickstart", SETTINGS, toy_rows(), toy_history(), toy_curve())


def test_an_npz_of_ones_own_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, labels = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2), np.array([0, 1, 2, 2, 1, 0])
    parts = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    exec(OWN, {"np": np, **parts})
    found = data.load("mine.npz")
    assert (
        found.class_names == ("circle", "square", "cross") and found.train_labels.tolist() == labels.tolist()
    )


def test_summary_makes_a_figure_against_the_temperature(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    settings = [setting | {"temperature": 4.0 * (setting["name"] == SOFT)} for setting in SETTINGS]
    rows = [
        row._replace(correction=row.correction.replace("test_tuned", "prior_matched")) for row in toy_rows()
    ]
    report.build(write_run(tmp_path / "runs" / "quickstart", settings, rows))
    names: dict = {}
    exec(SCATTER, names)
    assert (tmp_path / "temperatures.pdf").read_bytes().startswith(b"%PDF")
    assert len(names["results"]) and set(names["results"].setting) == {SOFT}


def test_three_lines_make_a_figure(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict = {}
    exec(FIGURE, names)
    assert len(list(filter(None, FIGURE.splitlines()))) == 3
    assert (tmp_path / "threes.png").read_bytes().startswith(b"\x89PNG")
    history = names["history"]
    assert set(history.setting) == {SOFT} and history.value.mean() == pytest.approx(0.2)


def test_pandas_reads_what_was_written(folder):
    run = run_folder.read_run(folder)
    kinds = {int: "int64", float: "float64", str: "str"}
    for name, rows in (("history", run.history), ("results", run.results), ("bias_curve", run.bias_curve)):
        frame = pd.read_csv(folder / f"{name}.csv")
        fields = type(rows[0]).__annotations__
        assert list(frame.columns) == [field.rstrip("_") for field in fields]
        found = [str(dtype).replace("object", "str") for dtype in frame.dtypes]
        assert found == [kinds[kind] for kind in fields.values()]
        assert [tuple(row) for row in frame.itertuples(index=False)] == [tuple(row) for row in rows]


@pytest.fixture
def quickly_compiled():
    """Compiling is nearly all of the time; optax's cosine promotes types."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def run(block: str, **names) -> dict:
    """The names after the block; exec would look up what a class of it needs in its module."""
    names["__name__"] = "page"
    exec(block, names)
    return names


def shortened(library: str) -> str:
    """Two epochs, two seeds and smaller networks."""
    short = library.replace("num_epochs=100", "num_epochs=2").replace("=range(10)", "=range(2)")
    short = short.replace("mlp-256-256", "mlp-32").replace("mlp-64-64", "mlp-16")
    assert short.count("num_epochs=2") == 4 and short.count("=range(2)") == 1
    return short


def test_the_experiment_in_python(capsys, quickly_compiled):
    """Two epochs and two seeds, for the lines to run; the figures of the page come from all of them."""
    names = run(shortened(LIBRARY))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["as trained", "prior_matched"]
    shares = [float(line.split()[-5]) for line in lines]
    assert names["logits"].shape == (2, 500, 10) and names["biases"].shape == (2,)
    # A tenth of the unlabelled images is called a 3, whatever they are.
    raised = np.asarray(names["biases"])[:, None, None] * names["mask"]
    called = (np.asarray(names["unlabelled"]) + raised).argmax(-1) == 3
    assert called.mean() == pytest.approx(names["prior"], abs=0.005) and all(0 <= s <= 100 for s in shares)


def test_the_guide_quotes_what_the_committed_run_found():
    text = (pages.REPOSITORY / "kd_jax" / "README.md").read_text()
    for name, correction in (("as trained", "none"), ("prior_matched", "prior_matched")):
        ours = Ours("quickstart", "T=20 omit=3", correction, "3", "accuracy")
        (figure,) = re.findall(rf"^{name}: ([\d.]+) % of the 3s$", text, re.MULTILINE)
        assert pages.show(ours, pages.RESULTS).startswith(f"{figure} ±")


def test_the_short_example(quickly_compiled):
    short = SHORT.replace("num_epochs=20", "num_epochs=2").replace("mlp-64-64", "mlp-8")
    assert short.count("num_epochs=2") == 2
    names = run(short)
    assert names["logits"].shape == (10, 500, 10) and np.all(np.isfinite(names["logits"]))


def test_each_level_of_the_nesting(quickly_compiled):
    names = run(NESTING)
    assert int(names["after_update"].epoch) == 0 and int(names["after_epoch"].epoch) == 1
    assert int(names["trained"].epoch) == 3 and names["history"]["train"].correct.shape == (3, 10)
    assert int(names["counts"].support.sum()) == names["config"].num_updates * names["config"].batch_size


def test_a_training_with_checkpoints_goes_on_where_it_was(capsys, quickly_compiled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, again = run(CHECKPOINTS), run(CHECKPOINTS)
    epochs = [line.split(",")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert epochs == ["epoch 0", "epoch 2", "epoch 4", "epoch 4"]
    assert (tmp_path / "runs/two_rates/epoch_000004").is_dir()
    assert {leaf.shape[0] for leaf in jax.tree.leaves(first["params"])} == {6}
    jax.tree.map(np.testing.assert_array_equal, first["params"], again["params"])


def test_a_loss_of_ones_own(monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "probabilities", None)  # so that the entry goes with the test
    loss = run(LOSS)["probabilities_loss"]
    assert losses.LOSSES["probabilities"] is loss
    student, teacher = np.zeros((1, 2), np.float32), np.log(np.array([[9, 1]], np.float32))
    number = lambda x: np.float32(x)  # noqa: E731
    hparams = HParams(number(0), None, number(1), number(0.5), np.ones(2, bool), np.int32(0))
    # Probabilities 1/2, 1/2 and 9/10, 1/10: distance 2 (4/10)^2 = 0.32; cross-entropy log 2.
    value = loss(student, Batch(np.zeros(1, np.int32), teacher), hparams)
    np.testing.assert_allclose(value, [0.5 * 0.32 + 0.5 * np.log(2)], rtol=1e-6)


def test_a_model_of_ones_own(monkeypatch):
    monkeypatch.setitem(models.MODELS, "linear", None)
    network = run(MODEL)["network"]
    variables = models.init_variables(network, jax.random.key(0), (2, 2, 1))
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    kernel = np.asarray(variables["params"]["logits"]["kernel"], np.float64)
    expected = pixels.reshape(3, 4) / 255 @ kernel  # the bias of a fresh layer is 0
    np.testing.assert_allclose(
        models.predict(network, variables, jax.numpy.asarray(pixels)), expected, atol=1e-6
    )


def test_a_correction_of_ones_own():
    """Of four examples, rows of the unit matrix times a: the margins of the three seen classes are a, that of
    the omitted one is -a, so the median is a, and then the four omitted logits are a or more."""
    names = run(CORRECTION)
    np.testing.assert_array_equal(names["biases"], [1, 2])
    np.testing.assert_array_equal(names["corrected"][1][:, 3], [2, 2, 2, 4])
