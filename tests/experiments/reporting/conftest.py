"""The run folder of toy_run.py, and whether figures are drawn."""

import pytest

from kd_jax import plots
from tests.experiments.reporting.toy_run import SETTINGS, toy_curve, toy_history, toy_rows, write_run


@pytest.fixture
def drawn():
    """For a test that looks at the files of figures."""


@pytest.fixture
def undrawn(request, monkeypatch):
    """Drawing takes ten times as long as all the rest of a report: elsewhere the files are empty."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(plots, "render", lambda figure, kind="png": b"")


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "toy", SETTINGS, toy_rows(), toy_history(), toy_curve())
