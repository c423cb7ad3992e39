"""CRD: contrastive representation distillation with a memory of embeddings (Tian et al. 2020, section 3).

The memory is a part of the run's state. An example's negatives are drawn anew at each update, uniformly with
replacement, from the seen examples of other classes: no row of an omitted class is ever read or written.
"""

import flax.struct
import jax
import jax.numpy as jnp

TEMPERATURE, MOMENTUM, EPS = 0.07, 0.5, 1e-7


class Memory(flax.struct.PyTreeNode):
    """student, teacher: f32[N,D], an embedding of norm 1 of each training example. z: f32[2], normalisers of
    the student's and the teacher's scores, set by the first batch; -1 before it."""

    student: jax.Array
    teacher: jax.Array
    z: jax.Array


def init_memory(key: jax.Array, num: int, size: int) -> Memory:
    """Rows uniform within +-sqrt(3 / size), as RepDistiller's.  key: consumed."""
    bound = (3 / size) ** 0.5
    rows = jax.random.uniform(key, (2, num, size), jnp.float32, -bound, bound)
    return Memory(rows[0], rows[1], -jnp.ones(2))


def draw_negatives(
    key: jax.Array, labels: jax.Array, by_class: jax.Array, sizes: jax.Array, class_mask: jax.Array, num: int
) -> jax.Array:
    """Examples of seen classes other than the example's own; of its own where no other is seen.

    Args: key: consumed; labels: i32[B]; by_class: i32[N], all examples ordered by class; sizes: i32[K],
        examples of each class; class_mask: bool[K]; num: negatives of an example.  Returns: i32[B,num].
    """
    num_classes = sizes.shape[0]
    is_label = jax.nn.one_hot(labels, num_classes, dtype=bool)
    seen = jnp.where(class_mask, sizes, 0)
    allowed = jnp.where(is_label, 0, seen[None])
    allowed = jnp.where(
        jnp.any(allowed > 0, axis=1, keepdims=True), allowed, jnp.where(is_label, sizes[None], 0)
    )
    ends = jnp.cumsum(allowed, axis=1)
    draws = jax.random.uniform(key, (labels.shape[0], num), jnp.float32)
    total = ends[:, -1:]
    place = jnp.minimum((draws * total.astype(jnp.float32)).astype(jnp.int32), total - 1)
    of_class = jnp.sum(place[:, :, None] >= ends[:, None, :], axis=-1, dtype=jnp.int32)
    within = place - jnp.take_along_axis(ends - allowed, of_class, axis=1)
    return by_class[(jnp.cumsum(sizes) - sizes)[of_class] + within]


def contrast(
    student: jax.Array, teacher: jax.Array, memory: Memory, index: jax.Array, negatives: jax.Array
) -> tuple[jax.Array, Memory]:
    """The loss of each example, and the memory after the batch.

    Args: student, teacher: embeddings f32[B,D] of norm 1; gradients flow into both. index: i32[B], the
        examples. negatives: i32[B,n], rows of the memory.
    Returns: (f32[B], memory): -log h of the positive and -log(1 - h) of each negative, summed, of both
        networks as the anchor; h as in equation 18 with N the rows of the memory.
    Departures of RepDistiller's code, followed here: Z is the mean score of the first batch times N; 1e-7 in
    the denominators; the memory keeps half of the old row. Its negatives are drawn by the data loader.
    """
    num, places = memory.student.shape[0], jnp.concatenate([index[:, None], negatives], axis=1)
    scores = [
        jnp.exp(jnp.einsum("bnd,bd->bn", rows[places], anchor, precision="highest") / TEMPERATURE)
        for rows, anchor in ((memory.teacher, student), (memory.student, teacher))
    ]
    first = jnp.stack([jax.lax.stop_gradient(jnp.mean(score)) * num for score in scores])
    z = jnp.where(memory.z < 0, first, memory.z)
    losses = _noise_contrastive(scores[0] / z[0], num) + _noise_contrastive(scores[1] / z[1], num)
    rows = [_follow(old, new, index) for old, new in ((memory.student, student), (memory.teacher, teacher))]
    return losses, Memory(rows[0], rows[1], z)


def _noise_contrastive(scores: jax.Array, num: int) -> jax.Array:
    """scores f32[B,1+n], the positive's first -> f32[B]."""
    noise = (scores.shape[1] - 1) / num
    positive, negative = scores[:, 0], scores[:, 1:]
    of_negatives = jnp.log(noise / (negative + noise + EPS))
    return -jnp.log(positive / (positive + noise + EPS)) - jnp.sum(of_negatives, axis=1)


def _follow(rows: jax.Array, new: jax.Array, index: jax.Array) -> jax.Array:
    moved = MOMENTUM * rows[index] + (1 - MOMENTUM) * jax.lax.stop_gradient(new)
    norm = jnp.sqrt(jnp.maximum(jnp.sum(moved**2, axis=1, keepdims=True), 1e-24))
    return rows.at[index].set(moved / norm)
