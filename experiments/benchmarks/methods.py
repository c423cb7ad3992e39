"""What an update costs by each method, relative to plain distillation: ours, and torchdistill's losses in a
loop of PyTorch. Images of CIFAR's size, and what is cached of the teacher, are random.

The teacher's layers are cached where `distill` would cache them for the training images of CIFAR-10. Else our
teacher is queried at each update, as torchdistill's is in any case.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import dense, pictures, torchdistill_loops, torchdistill_pairs
from experiments.cli import machine
from experiments.settings import students
from experiments.settings.methods import Structure, with_structure
from experiments.settings.teachers import Teachers
from experiments.studies.distill import CACHED_BYTES
from kd_jax import losses, models
from kd_jax.train import Config, sweep
from kd_jax.types import HParams, Table

STUDENT, TEACHER = "resnet-8", "resnet-20"
PLAIN = "soft"
METHODS = (PLAIN, "dkd", "dist", *losses.FEATURE_LOSSES)
NUM_RUNS = (1, 8)
NUM_EXAMPLES = 10_000  # of the table
CIFAR_EXAMPLES = 50_000  # by which it is decided whether layers are cached
NUM_NEGATIVES = 4096  # of CRD, the default of --crd_negatives
TEMPERATURE, ALPHA = 4.0, 0.9
RIVAL_UPDATES = 2  # of a timed pass


class Training(NamedTuple):
    """One method as `distill` trains it. cached: whether no teacher is asked; layers: the student's."""

    config: Config
    table: Table
    cached: bool
    layers: tuple[str, ...]


def num_updates(num_runs: int, platform: str) -> int:
    """Of a timed pass: one to three seconds of two cores, or of an accelerator."""
    return max(2, 4 // num_runs) if platform == "cpu" else 50


def make_teacher() -> Teachers:
    """Untrained."""
    model = models.build(TEACHER, dense.NUM_CLASSES)
    init = jax.vmap(lambda key: models.init_variables(model, key, pictures.CIFAR))
    variables = jax.jit(init, compiler_options=sweep.QUICK_COMPILE)(jax.random.split(jax.random.key(0), 1))
    return Teachers((model,), (variables,), False, None)  # type: ignore[arg-type]


def make_training(method: str, updates: int, precision: str, teacher: Teachers, table: Table) -> Training:
    """table: with the logits of the teacher."""
    structure = Structure(feature_loss=method) if method in losses.FEATURE_LOSSES else Structure(method)
    config = dense.make_config(STUDENT, updates, precision, pictures.CIFAR)
    num = len(table.labels)
    config = with_structure(config, structure, teacher, ("", ""), NUM_NEGATIVES, num)
    match = config.feature_match
    if match is None:
        return Training(config, table, True, ())
    queried = students.with_layers(table, teacher, match, dense.NUM_CLASSES, cached=False)
    if students.features_bytes(table, teacher, match) / num * CIFAR_EXAMPLES > CACHED_BYTES:
        config = dataclasses.replace(config, teacher_models=teacher.models)
        return Training(config, queried, False, match.student_layers)
    shapes, random = models.layer_shapes(teacher.models[0], pictures.CIFAR), np.random.default_rng(0)
    cached = queried.replace(
        teacher_logits=table.teacher_logits,
        teacher_variables=None,
        teacher_features=tuple(
            jnp.asarray(random.random((1, num, *shapes[layer][1:]), np.float32))
            for layer in match.teacher_layers
        ),
    )
    return Training(config, cached, True, match.student_layers)


def make_hparams(method: str, num_runs: int) -> HParams:
    """Those of dense.make_hparams, with labels and the published weight of a feature loss."""
    hparams = dense.make_hparams(num_runs)
    numbers = {"temperature": TEMPERATURE, "alpha": ALPHA}
    if method in losses.FEATURE_LOSSES:
        numbers["feature_weight"] = losses.FEATURE_LOSSES[method].weight
    return hparams.replace(**{name: np.full(num_runs, x, np.float32) for name, x in numbers.items()})


def make_rivals(method: str, training: Training, table: Table) -> dict[str, pictures.Rate]:
    """torchdistill's loops, with the teacher queried at each update or its logits cached. None where it is
    not installed, of a method that it lacks, and on an accelerator."""
    installed = torchdistill_pairs.is_installed() and jax.default_backend() == "cpu"
    if not installed or method not in torchdistill_pairs.METHODS:
        return {}
    match = training.config.feature_match
    layers = (match.student_layers, match.teacher_layers) if match else ((), ())
    weight = losses.FEATURE_LOSSES[method].weight if match else 0.0
    work = torchdistill_pairs.Work(
        STUDENT,
        TEACHER,
        table,
        *layers,
        dense.BATCH_SIZE,
        RIVAL_UPDATES,
        TEMPERATURE,
        ALPHA,
        weight,
        NUM_NEGATIVES,
    )
    loop = functools.partial(torchdistill_loops.loop, method, work, machine.num_cores())
    return {"queried": loop()} if match else {"queried": loop(), "cached": loop(cached=True)}


def measure_methods(num_runs: int, precision: str, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each method. In a turn, each method is measured once, ours and then torchdistill's."""
    platform = jax.default_backend()
    updates = num_updates(num_runs, platform)
    teacher, table = make_teacher(), dense.random_table(NUM_EXAMPLES, pictures.CIFAR)
    ours, rivals, rows = {}, {}, {}
    for method in METHODS:
        training = make_training(method, updates, precision, teacher, table)
        vmap_size = sweep.default_vmap_size(platform, training.config.model)
        hparams = make_hparams(method, num_runs)
        ours[method] = dense.train_epochs(training.config, num_runs, vmap_size, hparams, training.table)
        rows[method] = {
            "method": method,
            "student": STUDENT,
            "teacher": TEACHER,
            "runs": num_runs,
            "precision": precision,
            "vmap_size": vmap_size,
            "updates": updates,
            "layers": list(training.layers),
            "cached": training.cached,
            "first_pass_seconds": dense.seconds(functools.partial(next, ours[method])),
        }
        rivals[method] = make_rivals(method, training, table)
        for run in rivals[method].values():
            run(1)
    turns: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for method in METHODS:
            seconds = dense.seconds(functools.partial(next, ours[method]))
            rate = num_runs * updates * dense.BATCH_SIZE / seconds
            turns.setdefault((method, "ours"), []).append(rate)
            for name, run in rivals[method].items():
                turns.setdefault((method, name), []).append(run(RIVAL_UPDATES))
    for method in METHODS:
        yield rows[method] | _rates(method, turns, list(rivals[method]))


def _rates(method: str, turns: dict[tuple[str, str], list[float]], rivals: list[str]) -> dict[str, Any]:
    """What a row says of the turns: examples/s and `cost`, the time of an update divided by that of plain
    distillation in the same loop; and how many times the rate of each rival ours is."""

    def own(name: str) -> dict[str, Any]:
        rate = turns[method, name]
        return {
            "examples_per_second": dense.median_and_range(rate),
            "cost": dense.times(turns[PLAIN, name], rate),
        }

    ours = turns[method, "ours"]
    return own("ours") | {
        "rivals": {name: own(name) | {"times": dense.times(ours, turns[method, name])} for name in rivals}
    }
