"""Ablations of the teacher's output: which part of it carries a class that the student never saw?

Each keeps the shape, the temperature and, except for `omitted_removed`, the predicted class and its
probability. It removes information from the probabilities of the other classes. All ablations are branches of
one compiled program; `HParams.teacher_ablation` is the number of the branch.

Each is (draws f32[B,K] uniform on [0, 1), log_p f32[B,K] the teacher's log-probabilities, class_mask bool[K])
-> f32[B,K], log-probabilities.
"""

import jax
import jax.numpy as jnp

NEVER = -1e9
"""A logit whose probability is 0 at any temperature up to 1e6, and whose differences are finite."""


def full(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """The whole output."""
    return log_p


def omitted_removed(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """The omitted classes get probability 0, the others are renormalised, as of a teacher without them."""
    return jnp.where(class_mask, log_p, NEVER)


def top1(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """The predicted class keeps its probability; the other classes share the rest evenly."""
    return _spread(log_p, 1)


def top2(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """The two most probable classes keep their probabilities; the other classes share the rest evenly."""
    return _spread(log_p, min(2, log_p.shape[-1]))


def shuffled(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """The probabilities of all classes but the predicted one are permuted at random, anew for each example
    and step: the values stay, their classes are lost.  draws: f32[B,K], uniform."""
    predicted = jax.nn.one_hot(jnp.argmax(log_p, axis=-1), log_p.shape[-1], dtype=bool)
    # Sorted by random numbers; the predicted class comes first in both orders, so it keeps its place.
    places = jnp.argsort(jnp.where(predicted, -1.0, draws), axis=-1)
    values = jnp.argsort(jnp.where(predicted, jnp.inf, log_p), axis=-1)[:, ::-1]
    moved = jnp.take_along_axis(log_p, values, axis=-1)
    return jnp.take_along_axis(moved, jnp.argsort(places, axis=-1), axis=-1)


def _spread(log_p: jax.Array, num: int) -> jax.Array:
    """All but the `num` most probable classes share the remaining probability evenly."""
    kept = jax.nn.one_hot(jax.lax.top_k(log_p, num)[1], log_p.shape[-1], dtype=jnp.float32).sum(axis=-2) > 0
    rest = jax.nn.logsumexp(jnp.where(kept, NEVER, log_p), axis=-1, keepdims=True)
    return jnp.where(kept, log_p, rest - jnp.log(float(max(1, log_p.shape[-1] - num))))


TEACHER_ABLATIONS = {one.__name__: one for one in (full, omitted_removed, top1, top2, shuffled)}


def ablate_teacher_logits(
    number: jax.Array,
    key: jax.Array,
    teacher_logits: jax.Array,
    class_mask: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """Applies the run's ablation to the teacher logits.

    Args: number: i32[], the place in TEACHER_ABLATIONS; key: consumed; teacher_logits: f32[B,K]; class_mask:
        bool[K]; temperature: f32[].  Returns: f32[B,K], logits whose softmax at `temperature` is the ablated
        distribution.
    """
    log_p = jax.nn.log_softmax(teacher_logits / temperature)
    draws = jax.random.uniform(key, log_p.shape, jnp.float32)  # of a vmapped switch all branches are computed
    return temperature * jax.lax.switch(number, list(TEACHER_ABLATIONS.values()), draws, log_p, class_mask)
