"""The README's Python does what it says: each block is run as it stands, but for fewer epochs and seeds."""

import re

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import report, tables
from kd_jax import data
from kd_jax.io import run_folder
from tests.experiments.reporting.test_report import (
    SETTINGS,
    SOFT,
    toy_curve,
    toy_history,
    toy_rows,
    write_run,
)

BLOCKS = re.findall(r"```python\n(.*?)```", tables.README.read_text(), re.DOTALL)
OWN, FIGURE, SCATTER, LIBRARY = (
    next(block for block in BLOCKS if sign in block) for sign in ("np.savez", "history.csv", "scatter", "jax")
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run where the README has the quickstart's."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs" / "quickstart", SETTINGS, toy_rows(), toy_history(), toy_curve())


def test_every_block_is_run():
    assert set(BLOCKS) == {OWN, FIGURE, SCATTER, LIBRARY}


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
    assert len(names["found"]) and set(names["found"].setting) == {SOFT}


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
    """Compiling is nearly all of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_the_experiment_in_python(capsys, quickly_compiled):
    """Two epochs and two seeds, for the lines to run; the README's figures come from all of them."""
    short = LIBRARY.replace("num_epochs=100", "num_epochs=2").replace("=range(10)", "=range(2)")
    short = short.replace("mlp-256-256", "mlp-32").replace("mlp-64-64", "mlp-16")
    assert short.count("num_epochs=2") == 4 and short.count("=range(2)") == 1
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # optax's cosine promotes
        exec(short, names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["as trained", "prior_matched"]
    shares = [float(line.split()[-5]) for line in lines]
    assert names["logits"].shape == (2, 500, 10) and names["biases"].shape == (2,)
    # A tenth of the unlabelled images is called a 3, whatever they are.
    raised = np.asarray(names["biases"])[:, None, None] * names["missing"]
    called = (np.asarray(names["unlabelled"]) + raised).argmax(-1) == 3
    assert called.mean() == pytest.approx(names["prior"], abs=0.005) and all(0 <= s <= 100 for s in shares)


def test_the_readme_quotes_what_the_committed_run_found():
    text = tables.README.read_text()
    for name, correction in (("as trained", "none"), ("prior_matched", "prior_matched")):
        ours = tables.Ours("quickstart", "T=20 omit=3", correction, "3", "accuracy")
        (figure,) = re.findall(rf"^{name}: ([\d.]+) % of the 3s$", text, re.MULTILINE)
        assert tables.show(ours).startswith(f"{figure} ±")
