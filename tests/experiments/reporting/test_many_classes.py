"""1,000 classes, 5 corrections and 20 runs are written and reported within the memory of a small machine."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.reporting import report, students
from experiments.settings.distill import Setting
from kd_jax.evaluate.evaluate import EvaluationOutcome
from kd_jax.io import confusions, run_config, run_folder
from kd_jax.stats.corrections import CORRECTIONS

ROOT = Path(__file__).parents[3]
K, RUNS, PER_CLASS = 1000, 20, 10


def outcome() -> EvaluationOutcome:
    """Of RUNS students: a diagonal of right predictions, and one wrong prediction a class."""
    matrix = np.diag(np.full(K, PER_CLASS - 1)) + np.roll(np.eye(K, dtype=int), 1, axis=1)
    every = np.tile(matrix.astype(np.int32), (RUNS, 1, 1))
    matrices = {split: {name: every.copy() for name in CORRECTIONS} for split in ("validation", "test")}
    biases = {name: np.full(RUNS, float(number), np.float32) for number, name in enumerate(CORRECTIONS)}
    return EvaluationOutcome(biases, matrices, np.zeros((RUNS, 0, K), np.int32), {}, {})


def write_and_report(folder: Path) -> None:
    setting = Setting("T=4 omit=3", (3,), temperature=4.0, alpha=1.0, learning_rate=1e-3, weight_decay=0.0)
    runs = [(setting, seed) for seed in range(RUNS)]
    data = {"name": "toy", "fingerprint": "ab12", "num_classes": K, "class_names": [str(k) for k in range(K)]}
    config = {
        "format": 2,
        "experiment": "distill",
        "command": "./launch.sh distill",
        "flags": {"omit": "3"},
        "versions": {},
        "device": "cpu",
        "data": data | {"train": 50 * K, "validation": PER_CLASS * K, "test": PER_CLASS * K},
        "teacher": None,
        "settings": [{"name": setting.name, "omitted": [3]}],
        "runs": [
            {"run": seed, "setting": setting.name, "seed": seed, "teacher_seed": None} for seed in range(RUNS)
        ],
    }
    run_config.write(folder, run_config.parse(config))
    ends, found = np.zeros(RUNS, np.int64), outcome()
    rows = students.student_rows(runs, found, ends)
    confusions.write(folder, students.student_confusions(runs, found, ends), K)
    run_folder.write_history(folder, ())
    run_folder.write_bias_curve(folder, ())
    run_folder.write_results(folder, rows)
    report.build(folder)
    print(json.dumps([len(rows), peak_memory()]))


def peak_memory() -> int:
    """Of this process, in bytes. getrusage's, on Linux, is at least that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.slow
def test_a_thousand_classes(tmp_path):
    code = f"import pathlib, {__name__} as here; here.write_and_report(pathlib.Path({str(tmp_path)!r}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.check_output([sys.executable, "-P", "-c", code], env=environment, text=True)
    num_rows, peak = json.loads(said.splitlines()[-1])
    assert num_rows < 15 * K * RUNS * len(CORRECTIONS)  # linear in K: about 5 measures of a class and split
    assert peak < 2 * 2**30
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "confusions.npz").stat().st_size < 5 * 2**20
