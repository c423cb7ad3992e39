"""The benchmark's arithmetic, its flags, the file it writes, and what the README makes of it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import dense, rivals
from experiments.cli import machine
from experiments.gallery import pages, performance
from experiments.settings.dataset import require_memory
from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.train import sweep
from kd_jax.types import Table

ROOT = Path(__file__).resolve().parents[3]


def test_flops_of_a_training_step():
    """mlp-2-3 by hand: products of 784 x 2, 2 x 3 and 3 x 10 multiplications, two operations each. Forward
    and weights' gradients do all of them, 1568 + 6 + 30 = 1604, inputs' gradients all but the first, 36."""
    assert dense.flops_per_example([2, 3]) == 2 * (2 * 1604 + 36)


def test_spread():
    assert dense.median_and_range([3.0, 1.0, 2.0, 10.0]) == {"median": 2.5, "low": 1.0, "high": 10.0}


@pytest.mark.slow
def test_it_measures_and_writes(tmp_path):
    """One small row; the rivals' part where PyTorch is installed."""
    command = [sys.executable, "-P", "-m", "experiments.benchmark", "--workloads=mlp-30-30", "--runs=2"]
    command += ["--repeats=1", f"--out={tmp_path / 'new'}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "new" / f"{dense.instruction_set()}.json").read_text())
    (row,) = content["speed"]
    rate = row["examples_per_second"]["median"]
    assert rate > 0 and row["flops_per_second"]["median"] == pytest.approx(rate * row["flops_per_example"])
    assert f"{rate:,.0f}" in done.stdout and "examples/s" in done.stdout
    share = rate * row["flops_per_example"] / row["matrix_peak"]["median"]
    assert row["share_of_peak"]["median"] == pytest.approx(share)
    assert ("times_best_loop" in row) == (importlib.util.find_spec("torch") is not None)
    again = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert again.returncode == 2 and again.stderr.startswith("error: --out is taken: ")
    for more, word in (
        ("--parts=sped", "--parts"),
        ("--workloads=mlp-1", "--workloads"),
        ("--runs=3", "--runs"),
        ("--epochs=3", "--epochs"),
    ):
        bad = subprocess.run([*command, more], capture_output=True, text=True, env=environment, timeout=300)
        assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and word in bad.stderr, bad.stderr


def test_the_default_way_of_mapping_is_the_measured_best():
    """Within 10 %, on every device that was measured and for every model."""
    benchmarks = [some for some in performance.read(pages.RESULTS / "benchmark") if "vmap_sizes" in some]
    assert benchmarks
    for content in benchmarks:
        default = sweep.default_vmap_size(content["platform"], models.build("mlp-4", 10))
        rates: dict[str, dict] = {}
        for row in content["vmap_sizes"]:
            rates.setdefault(row["workload"], {})[row["vmap_size"]] = row["examples_per_second"]["median"]
        for workload, own in rates.items():
            assert own["all" if default is None else default] > 0.9 * max(own.values()), workload


def test_blocks_of_the_readme_follow_the_file():
    (content, *_) = performance.read(pages.RESULTS / "benchmark")
    text = performance.speed([content])
    for row in content["speed"]:
        found = [
            line for line in text.splitlines() if line.startswith(f"| {row['workload']} | {row['runs']} |")
        ]
        assert len(found) == 1 and f"{row['examples_per_second']['median']:,.0f}" in found[0]
    assert performance.starts([content]).count("\n| ") == 2 + len(content["starts"])
    assert re.search(r"\| mlp-30-30, 16 runs( \| [\d,]+){4} \|", performance.vmap_sizes([content]))


def test_data_that_no_device_can_hold_are_refused(monkeypatch):
    table = Table(np.zeros((1000, 28, 28, 1), np.uint8), np.zeros(1000, np.int32))  # 788,000 bytes
    monkeypatch.setattr(machine, "free_memory", lambda: 788_000)
    require_memory(table, None)
    monkeypatch.setattr(machine, "free_memory", lambda: 787_999)
    with pytest.raises(InputError, match="data too large for the memory: expected at most the"):
        require_memory(table, None)
    monkeypatch.setattr(machine, "free_memory", lambda: None)  # a system that does not say
    require_memory(table)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="no system that says")
def test_the_memory_of_this_machine_is_known():
    free = machine.free_memory()
    assert free is not None and 2**20 < free < 2**50


def test_torch_is_imported_only_where_it_is_used():
    code = "import sys, experiments.benchmarks.parts; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert rivals.TEMPERATURE == 20.0
