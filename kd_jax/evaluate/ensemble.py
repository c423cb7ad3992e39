"""Confusion matrices of ensembles: the mean of their models' probabilities at T = 1.

What an ensemble of teachers is to a student depends on the loss (`losses.ENSEMBLE_TARGETS`). Left out: a
majority vote.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import losses
from kd_jax.evaluate import metrics
from kd_jax.models import predict
from kd_jax.train.sweep import gather, on_mesh, over_runs
from kd_jax.types import Table, Variables


def confusion_of(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Confusion matrix of the mean of M models' probabilities.  f32[M,N,K], i32[N] -> i32[K,K]."""
    together = losses.average_teachers(logits, jnp.ones(()))
    return metrics.confusion(jnp.argmax(together, axis=-1), labels, logits.shape[-1])


def evaluate_settings(
    model: Any, table: Table, variables: Variables, num_settings: int, num_seeds: int
) -> np.ndarray:
    """Confusion matrix of each setting's S students together.

    Args: variables: leading axis R = H x S, setting-major, or on the mesh with its padding.
    Returns: i32[H,K,K], numpy, in every process.
    The logits of all runs on this table, f32[R,N,K], are held at once, split over the devices.
    """
    mesh, shared, runs = on_mesh((table.images, table.labels), variables, num_settings * num_seeds)
    return gather(_evaluate_all(model, num_settings, num_seeds, mesh, shared, runs), num_settings)


def evaluate_splits(
    model: Any, splits: Mapping[str, Table], variables: Variables, num_settings: int, num_seeds: int
) -> dict[str, np.ndarray]:
    """What `evaluate_settings` says of each split; nothing where there is but one seed."""
    if num_seeds == 1:
        return {}
    return {
        split: evaluate_settings(model, table, variables, num_settings, num_seeds)
        for split, table in splits.items()
    }


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _evaluate_all(model, num_settings, num_seeds, mesh, shared, runs):
    images, labels = shared
    logits = over_runs(lambda images, one: predict(model, one, images), mesh, 1)(images, runs)
    of_setting = logits[: num_settings * num_seeds].reshape(num_settings, num_seeds, *logits.shape[1:])
    return jax.lax.map(lambda each: confusion_of(each, labels), of_setting)
