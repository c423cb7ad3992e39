"""The run folder of toy_run.py, and whether figures are drawn."""

import pytest

from tests.experiments.reporting.toy_run import SETTINGS, toy_curve, toy_history, toy_rows, write_run


@pytest.fixture
def drawn():
    """For a test that looks at the files of figures."""


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "toy", SETTINGS, toy_rows(), toy_history(), toy_curve())
