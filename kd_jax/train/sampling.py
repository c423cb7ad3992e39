"""Class mask -> example mask -> the order of an epoch."""

import chex
import jax
import jax.numpy as jnp


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
