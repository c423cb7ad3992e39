"""Counts of a batch or a split, per class, and whether numbers are finite. Ratios are taken on the host."""

import jax
import jax.numpy as jnp

from kd_jax.losses import cross_entropy
from kd_jax.types import Counts


def zero_counts(num_classes: int) -> Counts:
    """Counts of no example; correct, total i32[K]."""
    per_class = jnp.zeros(num_classes, jnp.int32)
    return Counts(per_class, per_class, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))


def count(
    logits: jax.Array,
    labels: jax.Array,
    losses: jax.Array | None = None,
    teacher_logits: jax.Array | None = None,
) -> Counts:
    """What a batch adds to the counts.

    Args:
        logits: f32[B,K]. labels: i32[B].
        losses: f32[B], summed into loss_sum; the cross-entropy with the labels where None.
        teacher_logits: f32[B,K] for `agree`, which stays 0 where None.
    """
    num_classes = logits.shape[-1]
    losses = cross_entropy(logits, labels) if losses is None else losses
    predicted = jnp.argmax(logits, axis=-1)
    # One-hot sums, not a scatter: a scatter inside a compiled loop runs one element after another.
    of_class = jax.nn.one_hot(labels, num_classes, dtype=jnp.int32)
    right = (predicted == labels).astype(jnp.int32)
    agree = jnp.zeros((), jnp.int32)
    if teacher_logits is not None:
        agree = jnp.sum(predicted == jnp.argmax(teacher_logits, axis=-1), dtype=jnp.int32)
    return Counts(
        jnp.sum(of_class * right[:, None], axis=0, dtype=jnp.int32),
        jnp.sum(of_class, axis=0, dtype=jnp.int32),
        jnp.sum(losses),
        agree,
    )


def all_finite(tree) -> jax.Array:
    """Whether a tree of arrays holds finite numbers only.  -> bool[]."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
