"""Class mask -> example mask -> the order of an epoch, of real examples, of synthesised ones or of both."""

import chex
import jax
import jax.numpy as jnp

from kd_jax.types import FOR_ALL, REAL, HParams, Table


def example_mask(labels: jax.Array, class_mask: jax.Array) -> jax.Array:
    """True where the example's class is seen.  labels i32[N], class_mask bool[K] -> bool[N]."""
    chex.assert_rank([labels, class_mask], 1)
    return class_mask[labels]


def shot_mask(key: jax.Array, labels: jax.Array, num: jax.Array) -> jax.Array:
    """True for `num` examples of each class, chosen at random; for all of a class that has no more.

    Args: key: consumed; labels: i32[N]; num: i32[].  Returns: bool[N].  The `num` examples are among the
        num + 1 that the same key chooses.
    """
    chex.assert_rank([labels, num], [1, 0])
    bits = jax.random.bits(key, labels.shape, jnp.uint32)
    by_class = jnp.lexsort((bits, labels))
    # Each class is a stretch of that order; where it begins, its members' ranks do.
    ordered = labels[by_class]
    place = jnp.arange(labels.shape[0], dtype=jnp.int32)
    begins = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    ranks = place - jax.lax.cummax(jnp.where(begins, place, 0))
    return jnp.zeros(labels.shape, bool).at[by_class].set(ranks < num)


def epoch_order(key: jax.Array, mask: jax.Array, num: int) -> jax.Array:
    """A random order of the seen examples, wrapped around to length `num`.

    Every run takes the same number of updates whatever its mask keeps, so shapes are static and the work is
    equal. A masked example never appears; with n seen ones, each appears floor(num/n) or ceil(num/n) times.

    Args: key: PRNG key, consumed; mask: bool[N] with at least one True; num: examples an epoch (U * B).
    Returns: i32[num], indices into the table.
    """
    chex.assert_rank(mask, 1)
    # 31 random bits as sort keys; a masked example gets the largest u32, so the seen ones come first. Ties
    # (one pair in 2^31) fall in index order, which no one can notice.
    bits = jax.random.bits(key, mask.shape, jnp.uint32) >> 1
    shuffled = jnp.argsort(jnp.where(mask, bits, jnp.uint32(0xFFFFFFFF)))
    seen = jnp.sum(mask, dtype=jnp.int32)
    return shuffled[jnp.arange(num, dtype=jnp.int32) % seen].astype(jnp.int32)


def real_mask(table: Table, class_mask: jax.Array) -> jax.Array:
    """True for the examples of the data whose class is seen: a synthesised image is none, whatever its label.
    class_mask bool[K] -> bool[N]."""
    mask = example_mask(table.labels, class_mask)
    return mask if table.sources is None else mask & (table.sources == REAL)


def synthetic_mask(sources: jax.Array, teacher: jax.Array) -> jax.Array:
    """True for the synthesised images that are for the students of this teacher.  i32[N], i32[] ->
    bool[N]."""
    return (sources == teacher) | (sources == FOR_ALL)


def run_order(
    order_key: jax.Array, shot_key: jax.Array, table: Table, hparams: HParams, num: int
) -> jax.Array:
    """The order of an epoch of one run, i32[num]: of the real examples that its masks let it see,
    of the synthesised images for it, or of both by `hparams.synthetic_share`.  Both keys are consumed."""
    mask = real_mask(table, hparams.class_mask)
    if hparams.num_shots is not None:
        labels = table.labels
        if table.sources is not None:  # a class of their own: none of them is a shot
            labels = jnp.where(table.sources == REAL, labels, hparams.class_mask.shape[0])
        shots = shot_mask(shot_key, labels, hparams.num_shots)
        mask |= shots if table.sources is None else shots & (table.sources == REAL)
    if table.sources is None:
        return epoch_order(order_key, mask, num)
    made = synthetic_mask(table.sources, hparams.teacher)
    if hparams.synthetic_share is None:
        return epoch_order(order_key, made, num)
    return mixed_order(order_key, mask, made, hparams.synthetic_share, num)


def mixed_order(key: jax.Array, mask: jax.Array, other: jax.Array, share: jax.Array, num: int) -> jax.Array:
    """`num` examples in random order, of which round(share num) come from `other` and the rest from `mask`,
    each part as of `epoch_order`.

    Args: key: consumed; mask, other: bool[N], each with at least one True; share: f32[] in [0, 1].
    Returns: i32[num], indices into the table.
    """
    keys = jax.random.split(key, 3)
    parts = epoch_order(keys[0], mask, num), epoch_order(keys[1], other, num)
    ranks = jnp.argsort(jax.random.bits(keys[2], (num,), jnp.uint32))
    of_other = ranks < jnp.round(share * num).astype(jnp.int32)
    places = (jnp.maximum(jnp.cumsum(chosen, dtype=jnp.int32) - 1, 0) for chosen in (~of_other, of_other))
    first, second = (part[place] for part, place in zip(parts, places, strict=True))
    return jnp.where(of_other, second, first)
