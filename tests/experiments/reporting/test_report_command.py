"""The command report: what it writes, prints, loads and refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import report as entry_point
from kd_jax.errors import InputError
from tests.experiments.reporting.toy_run import (
    SETTINGS,
    toy_curve,
    toy_history,
    toy_rows,
    write_run,
)

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_damaged_folder_is_left_as_it_was(tmp_path, capsys):
    bad = write_run(tmp_path / "bad", SETTINGS, toy_rows(), toy_history(), toy_curve())
    (bad / "bias_curve.csv").unlink()
    with pytest.raises(InputError, match=r"bias_curve\.csv"):
        entry_point.main(["report", str(bad)])
    assert not (bad / "report.md").exists() and not (bad / "figures").exists()
    assert not capsys.readouterr().out


def test_main_reports_on_a_folder(folder, capsys):
    entry_point.main(["report", str(folder)])
    assert capsys.readouterr().out.count("Report: ") == 1
    with pytest.raises(InputError, match="RUN"):
        entry_point.main(["report"])


HEAVY = ("jax", "flax", "optax", "orbax", "sklearn", "scipy.stats", "tensorboardX")
DRAWING = ("matplotlib", "PIL", "jinja2")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import experiments.report", (*HEAVY, *DRAWING)),
        ("import runpy; runpy.run_module('experiments.report', run_name='__main__')", HEAVY),
    ],
)
def test_the_command_loads_nothing_that_it_does_not_need(folder, code, absent):
    code = f"import atexit, sys; atexit.register(lambda: print({{*{absent}}} & {{*sys.modules}})); {code}"
    command = [sys.executable, "-c", code, str(folder)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_command_refuses_in_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.report", str(tmp_path / "none")]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "no such folder" in done.stderr
