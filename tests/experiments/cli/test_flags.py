"""The shared flags: the words that they allow are the library's, and no heavy package is needed to say so."""

import json
import os
import subprocess
import sys

import pytest

from experiments.cli import flags
from experiments.settings import synthesis
from kd_jax import losses, models
from kd_jax.losses import teacher_ablations
from kd_jax.train import generator, noise, optim, subliminal
from tests.experiments.cli.test_help import ENTRY_POINTS, ROOT

HEAVY = ("jax", "jaxlib", "numpy", "scipy", "flax", "optax", "orbax", "matplotlib", "kd_jax.models")


def test_the_words_are_those_of_the_library():
    from experiments.benchmark import PICTURE_MODELS, WORKLOADS
    from experiments.benchmarks import dense, pictures
    from experiments.export import FORMATS
    from experiments.studies import export

    assert list(flags.OPTIMIZERS) == list(optim.OPTIMIZERS)
    assert list(flags.SCHEDULES) == list(optim.SCHEDULES)
    assert list(flags.PRECISIONS) == list(models.PRECISIONS)
    assert list(flags.LOSSES) == list(losses.LOSSES)
    assert list(flags.DIVERGENCES) == list(losses.DIVERGENCES)
    assert list(flags.FEATURE_LOSSES) == list(losses.FEATURE_LOSSES)
    for name, method in losses.FEATURE_LOSSES.items():
        assert flags.FEATURE_LOSSES[name].endswith(f"weight {method.weight:g}")
    for name, beta in losses.BETAS.items():
        assert flags.LOSSES[name].endswith(f"beta {beta:g}")
    assert list(flags.TEACHER_ABLATIONS) == list(teacher_ablations.TEACHER_ABLATIONS)
    assert list(flags.NOISES) == list(noise.NOISES)
    # Entry points share names of flags: these are read, not imported.
    for entry, name, words in (
        ("distill", "GENERATOR_OBJECTIVES", generator.OBJECTIVES),
        ("synthesize", "METHODS", synthesis.DEFAULTS),
    ):
        text = (ROOT / "experiments" / f"{entry}.py").read_text()
        assert f"\n{name} = {json.dumps([*words])[1:-1].join('()')}" in text
    assert list(flags.SUBLIMINAL_PARTS) == list(subliminal.PARTS)
    assert list(FORMATS) == list(export.FORMATS)
    assert list(WORKLOADS) == list(dense.UPDATES) and list(PICTURE_MODELS) == list(pictures.MODELS)


LOADED = """
import json, runpy, sys
name, *words = sys.argv[1:]
sys.argv = [name, *words]
try:
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code or 0
print(json.dumps([status, sorted(sys.modules)]))
"""


@pytest.mark.parametrize("words, status", [(["--help"], 0), (["--epocs=3"], 2), (["--quiet=maybe"], 2)])
@pytest.mark.parametrize("name", sorted(ENTRY_POINTS))
def test_flags_are_parsed_before_anything_heavy_is_loaded(name, words, status, tmp_path):
    command = [sys.executable, "-P", "-c", LOADED, name, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    ended, loaded = json.loads(done.stdout.splitlines()[-1])
    assert ended == status and not set(HEAVY) & set(loaded)
    assert bool(done.stderr) == bool(status)
