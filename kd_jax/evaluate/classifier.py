"""Trained networks as a classifier: images -> probabilities of the classes, under a bias correction.

Left out: a temperature other than 1.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.evaluate.bias_correction import add_class_bias
from kd_jax.models import forward, predict_stacked, scale_pixels
from kd_jax.types import Variables

PLATFORMS = ("cpu", "cuda", "tpu")


def class_probabilities(logits: jax.Array, omitted: jax.Array, biases: jax.Array) -> jax.Array:
    """The mean of M networks' probabilities at T = 1, the logits of each under its own bias correction.

    logits: f32[M,N,K]; omitted: bool[K]; biases: f32[M].  Returns: f32[N,K].
    """
    corrected = jax.vmap(add_class_bias, (0, None, 0))(logits, omitted, biases)
    return jnp.mean(jax.nn.softmax(corrected, axis=-1), axis=0)


@partial(jax.jit, static_argnums=0)
def classify(
    model: Any, variables: Variables, omitted: jax.Array, biases: jax.Array, images: jax.Array
) -> jax.Array:
    """Probabilities of images u8[N,h,w,c].  variables: leading axis M; others as above.  -> f32[N,K]."""
    return class_probabilities(predict_stacked(model, variables, images), omitted, biases)


def to_stablehlo(
    model: Any, variables: Variables, omitted: Any, bias: Any, image_shape: tuple[int, int, int]
) -> bytes:
    """A StableHLO program for PLATFORMS, serialised by `jax.export`: images u8[b,h,w,c] of any number b >= 1
    -> f32[b,K], one network's probabilities under the bias correction. The weights are in it, and so is the
    normalisation.  variables: of one network; omitted: bool[K]; bias: f32[].
    """
    from jax import export

    def probabilities(images):
        logits = forward(model, variables, scale_pixels(images))[0]
        return class_probabilities(logits[None], jnp.asarray(omitted), jnp.asarray(bias)[None])

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
    return bytes(export.export(jax.jit(probabilities), platforms=PLATFORMS)(images).serialize())
