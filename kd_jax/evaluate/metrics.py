"""Device side: sums and counts per class, calibration, agreement with the teacher. Ratios are taken on the
host (tidy.py)."""

from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.losses import cross_entropy, kl_at_temperature

NUM_BINS = 15  # of the calibration error, as in Guo et al. 2017


def confusion(predicted: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Examples of class i predicted as j.  predicted, labels i32[N] -> i32[K,K]."""
    true = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    named = jax.nn.one_hot(predicted, num_classes, dtype=jnp.float32)
    return (true.T @ named).astype(jnp.int32)  # exact in f32 up to 2^24 examples


def quality(logits: jax.Array, labels: jax.Array, teacher_logits: jax.Array | None = None) -> dict[str, Any]:
    """How good the probabilities are: sums over the examples of a split, softmax at T = 1.

    Args: logits f32[N,K], labels i32[N]; teacher_logits f32[N,K] or None.
    Returns: nll f32[], nats; bins: of `calibration_bins`; where K > 5, top5 i32[], examples whose label is
        among the five largest logits (one that ties with the fifth is); where there is a teacher, agree
        i32[], examples on which both name the same class, and kl f32[], KL(teacher || student), nats.
    """
    of_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    # A nan comes before all: nothing is right.
    before = jnp.sum(~(logits <= of_label), axis=-1, dtype=jnp.int32)
    sums = {"nll": jnp.sum(cross_entropy(logits, labels)), "bins": calibration_bins(logits, labels)}
    if logits.shape[-1] > 5:
        sums["top5"] = jnp.sum(before < 5, dtype=jnp.int32)
    if teacher_logits is not None:
        same = jnp.argmax(logits, axis=-1) == jnp.argmax(teacher_logits, axis=-1)
        sums["agree"] = jnp.sum(same, dtype=jnp.int32)
        sums["kl"] = jnp.sum(kl_at_temperature(logits, teacher_logits, jnp.ones(())))
    return sums


def calibration_bins(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Examples by their confidence, the largest probability: bin m of 15 holds those in ](m - 1)/15, m/15].

    Args: logits f32[N,K], labels i32[N].
    Returns: count i32[15], confidence f32[15] (sums), correct i32[15].
    Source: Guo et al. 2017, section 2.
    """
    confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
    right = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.int32)
    index = jnp.clip(jnp.ceil(confidence * NUM_BINS).astype(jnp.int32) - 1, 0, NUM_BINS - 1)
    member = jax.nn.one_hot(index, NUM_BINS, dtype=jnp.int32)
    return {
        "count": jnp.sum(member, axis=0, dtype=jnp.int32),
        "confidence": jnp.sum(member.astype(jnp.float32) * confidence[:, None], axis=0),
        "correct": jnp.sum(member * right[:, None], axis=0, dtype=jnp.int32),
    }
