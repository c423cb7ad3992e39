"""What starting, more runs, evaluation and bias corrections cost, beside the training itself."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.dense import (
    BATCH_SIZE,
    MNIST,
    NUM_CLASSES,
    NUM_HELD_OUT,
    NUM_TRAIN,
    TEACHER,
    make_config,
    make_hparams,
    median_and_range,
    random_table,
    seconds,
    train_epochs,
)
from experiments.cli import provenance
from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.evaluate import evaluate
from kd_jax.train import sweep, variables_of


def peak_memory() -> int:
    """Bytes: of the device where it counts them, else of the process (a CPU's memory is the process's)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    unit = 1 if sys.platform == "darwin" else 1024
    return stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_growth(num_runs: int) -> dict:
    """What `num_runs` students mlp-300-300 cost: time until the first pass is done, rate, memory."""
    jax.config.update("jax_enable_compilation_cache", False)
    config = make_config("mlp-300-300", 106)
    ours = train_epochs(config, num_runs, sweep.default_vmap_size(jax.default_backend(), config.model))
    first = seconds(lambda: next(ours))
    second = min(seconds(lambda: next(ours)) for _ in range(2))
    shapes = jax.eval_shape(
        partial(models.init_variables, config.model, image_shape=MNIST), jax.random.key(0)
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    return {
        "runs": num_runs,
        "compile_seconds": first - second,
        "examples_per_second": num_runs * 106 * BATCH_SIZE / second,
        "peak_memory_bytes": peak_memory(),
        "state_bytes": 3 * 4 * parameters * num_runs,  # weights and Adam's two moments
    }


def measure_extras(repeats: int) -> dict:
    """Shares of the training time at default settings (40 epochs, mlp-800-800): evaluation after
    each epoch, then biases, confusion matrices and curves at the end."""
    num_runs, updates = 8, -(-NUM_TRAIN // BATCH_SIZE)
    config = make_config("mlp-800-800", updates)
    vmap_size = sweep.default_vmap_size(jax.default_backend(), config.model)
    held_out, test = (random_table(num).replace(teacher_logits=None) for num in (NUM_HELD_OUT, 10_000))
    bare, whole = (
        train_epochs(config, num_runs, vmap_size),
        train_epochs(config, num_runs, vmap_size, held_out),
    )
    next(bare), next(whole)
    pairs = [(seconds(lambda: next(bare)), seconds(lambda: next(whole))) for _ in range(repeats)]
    states, _, _ = next(whole)
    teacher = models.build(TEACHER, NUM_CLASSES)
    variables = models.init_variables(teacher, jax.random.key(0), MNIST)
    evaluation_data = evaluate.EvaluationData(
        random_table(NUM_TRAIN).replace(teacher_logits=None),
        held_out,
        test,
        (jax.tree.map(lambda x: x[None], variables),),
    )
    grid = jnp.arange(-6.0, 24.01, 0.25)
    judge = lambda: evaluate.evaluate_runs(  # noqa: E731
        config.model,
        (teacher,),
        False,
        config.loss_fn,
        evaluation_data,
        grid,
        variables_of(states),
        make_hparams(num_runs),
        states.key,
    )
    judge()  # the first compiles
    training = 40 * float(np.median([bare for bare, _ in pairs]))
    return {
        "evaluation_share": median_and_range([(whole - bare) / bare for bare, whole in pairs]),
        "assessment_share": seconds(judge) / training,
    }


def measure_starts() -> list[dict]:
    """Seconds from the command to its first epoch, of the quickstart's two programs: with an empty
    compilation cache, and again with the one that is then there."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        environment["PYTHONPATH"] = str(provenance.ROOT)
        for name, recipe in (("train_teacher", "quickstart_teacher"), ("distill", "quickstart")):
            times = []
            for turn in ("first", "second"):
                words = [
                    f"--flagfile={provenance.ROOT}/experiments/recipes/{recipe}.flags",
                    "--checkpoint_every=1",
                ]
                words += [f"--out={folder}/{turn}_{name}"]
                if name == "distill":
                    words += [f"--teacher={folder}/{turn}_train_teacher"]
                times.append(_first_epoch([f"experiments.{name}", *words], environment, name == "distill"))
            rows.append({"program": name, "first_seconds": times[0], "second_seconds": times[1]})
    return rows


def _first_epoch(words: list[str], environment: dict, stop: bool) -> float:
    """Until the line of the first epoch; then the process is stopped, or let to its end."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = next((time.perf_counter() for line in process.stdout if line.startswith("epoch 1/")), None)
        if stop:
            process.kill()
        else:
            process.stdout.read()
    if found is None:
        raise InputError("the quickstart did not start", "a line of its first epoch", words[0])
    return found - start
