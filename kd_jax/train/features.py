"""A feature loss within an update: its connector and memory, and what it compares.

Left out: layers of several teachers, and teachers of several structures.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.losses import FEATURE_LOSSES, contrastive
from kd_jax.models import layer_shapes
from kd_jax.models.connectors import EMBEDDING, connect, init_connector
from kd_jax.train import keys
from kd_jax.train.config import Config
from kd_jax.types import Batch, HParams, Table


def init_features(config: Config, key: jax.Array) -> dict[str, Any]:
    """`TrainState.of_features` of a run before its first epoch; empty without a feature loss.  key: the
    run's."""
    match = config.feature_match
    if match is None:
        return {}
    sides = [
        [
            jax.ShapeDtypeStruct(layer_shapes(model, config.image_shape)[layer], jnp.float32)
            for layer in layers
        ]
        for model, layers in (
            (config.model, match.student_layers),
            (match.teacher_model, match.teacher_layers),
        )
    ]
    of_features: dict[str, Any] = {"connector": {}, "memory": {}}
    name = FEATURE_LOSSES[match.loss].connector
    if name is not None:
        of_features["connector"] = init_connector(name, jax.random.fold_in(key, keys.CONNECTOR), *sides)
    if match.loss == "crd":
        draw = partial(contrastive.init_memory, num=match.num_examples, size=EMBEDDING)
        of_features["memory"] = draw(jax.random.fold_in(key, keys.MEMORY))
    return of_features


def feature_losses(
    config: Config,
    of_features: dict[str, Any],
    features: dict[str, jax.Array],
    batch: Batch,
    table: Table,
    hparams: HParams,
    index: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Any]:
    """Each example's feature loss f32[B], not yet weighted, and the memory after the batch.

    features: the student's, by layer. index: i32[B], the examples. key: consumed.
    """
    match = config.feature_match
    if config.mixup is not None and table.teacher_features is not None:
        raise ValueError("cached teacher_features are not of mixtures: with mixup query the teachers")
    if match is None or batch.teacher_features is None:
        raise ValueError("a feature loss needs teacher_features: cached in the table, or of queried teachers")
    students = [features[layer].astype(jnp.float32) for layer in match.student_layers]
    teachers = [jax.lax.stop_gradient(one).astype(jnp.float32) for one in batch.teacher_features]
    method = FEATURE_LOSSES[match.loss]
    if method.connector is not None:
        students, teachers = connect(method.connector, of_features["connector"], students, teachers)
    if match.loss != "crd":
        return method.function(students, teachers), of_features["memory"]
    if table.by_class is None or table.class_sizes is None:
        raise ValueError("crd draws negatives by class: the table must hold by_class and class_sizes")
    negatives = contrastive.draw_negatives(
        key, table.labels[index], table.by_class, table.class_sizes, hparams.class_mask, match.num_negatives
    )
    return contrastive.contrast(students[0], teachers[0], of_features["memory"], index, negatives)
