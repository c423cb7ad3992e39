"""What students get from their teachers: which ensemble teaches each, initial weights, targets."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cli.main import log_note
from experiments.settings.distill import Setting
from experiments.settings.teachers import Teachers, group_size
from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.train import Config, sweep
from kd_jax.train.config import FeatureMatch
from kd_jax.types import Table, TrainState


def generation(teachers: Teachers | None) -> int:
    """How many distillations lie between a student of these teachers and the labels, its own included. It is
    the base of the students' keys: none starts from the initial weights of a teacher in its chain, which
    would have the same seed and perhaps the same structure."""
    return 1 + (teachers.info.generation if teachers else 0)


def initial_keys(teachers: Teachers, seeds: Sequence[int]) -> jax.Array:
    """Typed keys [S] from which the initial weights of these students' teachers were drawn: of a teacher that
    began as its own teacher did, the keys of that one, and so on.

    Errors: InputError for a chain with a teacher of which it is not recorded how it began.
    """
    about, numbers = teachers.info.to_json(), list(seeds)
    while True:
        numbers = [number % about["num_teachers"] for number in numbers]
        # Older versions wrote no "student_init", and began such students of such students with other weights.
        if "student_init" not in about and "student_init=teacher" in about.get("setting", "").split():
            expected = (
                "a teacher that records how its own teacher began; train it again, or --student_init=random"
            )
            raise InputError("--student_init=teacher in a chain of an older version", expected, about["path"])
        if not about.get("student_init"):
            return sweep.run_keys(numbers, 1, about.get("generation", 0))
        about = about["teacher"]


def require_same_shapes(teachers: Teachers, spec: str, config: Config) -> None:
    """Refuses --student_init=teacher where a student cannot start from the initial weights of its teacher."""
    info = teachers.info
    if teachers.average or info.members or (info.flags or {}).get("pretrained"):
        expected = "one --teacher that drew its initial weights, paired or first"
        raise InputError("--student_init=teacher has no one teacher's draws to take", expected, info.path)
    init = partial(models.init_variables, config.model, image_shape=config.image_shape)
    shapes = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(init, jax.random.key(0))["params"])
    theirs = jax.tree.map(lambda leaf: leaf.shape[1:], teachers.variables[0]["params"])
    if shapes != theirs:
        raise InputError("--student_init=teacher needs its network", f"--model={info.model}", spec)
    initial_keys(teachers, [0])  # refuses what it cannot follow


def num_ensembles(teachers: Teachers | None) -> int:
    """The number of distinct ensembles; seed s learns from ensemble s modulo this."""
    if teachers is None or teachers.average:
        return 1
    return group_size(teachers.variables[0])


def teacher_seed(seed: int, teachers: Teachers | None) -> int | None:
    """The number of the ensemble that teaches student `seed`; None where it is no single teacher a group."""
    return None if teachers is None or teachers.average else seed % num_ensembles(teachers)


def ensembles(teachers: Teachers, seeds: Sequence[int]) -> list[list[int]]:
    """The ensembles that teach these seeds, each a list of its members, numbered through all groups."""
    sizes = list(map(group_size, teachers.variables))
    if teachers.average:
        return [list(range(sum(sizes)))]
    numbers = sorted({seed % sizes[0] for seed in seeds})
    return [[group * sizes[0] + number for group in range(len(sizes))] for number in numbers]


def warn_of_common_gaps(
    settings: Sequence[Setting], teacher: Teachers | None, class_names: Sequence[str]
) -> None:
    """A class that neither student nor teacher saw cannot come back."""
    mask = teacher.info.class_mask if teacher else ()
    omitted = sorted({k for setting in settings for k in setting.omitted if mask and not mask[k]})
    if omitted:
        noun = "class" if len(omitted) == 1 else "classes"
        log_note(f"note: the teacher never saw {noun} {', '.join(class_names[k] for k in omitted)} either")


def init_states(
    teacher: Teachers | None, settings: Sequence[Setting], num_seeds: int, config: Config, keys: jax.Array
) -> TrainState:
    """States of fresh runs: `sweep.init_states`, but that some begin as their teachers did."""
    if teacher is None or not any(setting.student_init for setting in settings):
        return sweep.init_states(config, keys)
    seeds = range(num_seeds)
    of_teachers = jnp.tile(initial_keys(teacher, seeds), len(settings))
    shared = jnp.repeat(jnp.array([setting.student_init is not None for setting in settings]), num_seeds)
    states = sweep.init_states(config, jnp.where(shared, of_teachers, keys))
    return states.replace(key=sweep.on_mesh((), keys, len(keys))[2])


def with_teachers(table: Table, teacher: Teachers | None, queried: bool, mirrored: bool = False) -> Table:
    """The table with what losses of logits need of the teachers: cached logits, or variables to query.

    queried: whether the teachers are asked about each batch as students see it.  mirrored: whether the logits
    on the mirror images are cached too.
    """
    if teacher is None:
        return table
    if queried:
        return table.replace(teacher_variables=teacher.variables)
    images = np.asarray(table.images)
    views = (images, images[:, :, ::-1]) if mirrored else (images,)
    logits = [
        np.concatenate([np.asarray(models.predict_stacked(model, variables, view)) for view in views], axis=1)
        for model, variables in zip(teacher.models, teacher.variables, strict=True)
    ]
    return table.replace(teacher_logits=tuple(logits))


def with_layers(
    table: Table, teacher: Teachers, match: FeatureMatch, num_classes: int, cached: bool
) -> Table:
    """The table of `with_teachers` with what a feature loss needs.

    cached: whether the teacher's layers are in the table; else the teacher is queried, for logits as well.
    """
    if match.loss == "crd":
        table = table.replace(
            by_class=np.argsort(table.labels, kind="stable").astype(np.int32),
            class_sizes=np.bincount(table.labels, minlength=num_classes).astype(np.int32),
        )
    if cached:
        return table.replace(teacher_features=_layers(table, teacher, match))
    return table.replace(teacher_logits=None, teacher_variables=teacher.variables)


def features_bytes(table: Table, teacher: Teachers, match: FeatureMatch) -> int:
    """What the layers that a feature loss reads take, of all of the group's teachers on all images."""
    shapes = models.layer_shapes(teacher.models[0], table.images.shape[1:])
    numbers = sum(math.prod(shapes[layer]) for layer in match.teacher_layers)
    return 4 * numbers * len(table.labels) * group_size(teacher.variables[0])


def _layers(table: Table, teacher: Teachers, match: FeatureMatch) -> tuple[np.ndarray, ...]:
    """f32[M,N,...] of each layer."""
    shapes = models.layer_shapes(teacher.models[0], table.images.shape[1:])
    predict = jax.jit(partial(models.predict_layers, teacher.models[0], layers=match.teacher_layers))
    found = [
        predict(jax.tree.map(lambda leaf, m=m: leaf[m], teacher.variables[0]), table.images)
        for m in range(group_size(teacher.variables[0]))
    ]
    return tuple(
        np.stack([np.asarray(one[i]).reshape(-1, *shapes[layer][1:]) for one in found])
        for i, layer in enumerate(match.teacher_layers)
    )
