"""What the batch normalisations of a network see, beside what they remember of its training data."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.models import forward
from kd_jax.models.layers import BatchNorm
from kd_jax.types import Variables


class Statistics(NamedTuple):
    """Of one batch normalisation, each f32[c]: mean and (biased) variance of its input over the batch and the
    places, and the running averages that its training left."""

    mean: jax.Array
    variance: jax.Array
    running_mean: jax.Array
    running_variance: jax.Array


def forward_with_statistics(
    model: Any, variables: Variables, images: jax.Array
) -> tuple[jax.Array, list[Statistics]]:
    """(logits f32[B,K], the statistics of each batch normalisation in the order of computation) in evaluation
    mode.  images: f32[B,h,w,c], scaled to [0, 1].  Gradients flow into the batch's mean and variance."""
    found: list[Statistics] = []

    def record(call, arguments, options, context):
        out = call(*arguments, **options)
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            x = arguments[0].astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            mean: Any = context.module.get_variable("batch_stats", "mean")
            variance: Any = context.module.get_variable("batch_stats", "var")
            found.append(Statistics(jnp.mean(x, axes), jnp.var(x, axes), mean, variance))
        return out

    with nn.intercept_methods(record):
        logits, _, _ = forward(model, variables, images)
    return logits, found
