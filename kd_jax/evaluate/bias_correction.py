"""Bias correction: one number added to the logits of the omitted classes.

A student that never saw a class gives it too low a bias (Hinton et al. 2015, section 3). With one number b
added to all omitted logits, an example's prediction changes once, where b passes its margin
    m = max over seen logits - max over omitted logits,
from the best seen class to the best omitted one. So a sort of the margins gives every prediction for every b,
and each rule below is exact: no grid, no step size. Lowering the seen classes together ("only 7s and 8s")
is the same correction with the sign turned.

Every function takes one run and is mapped over runs by the caller; omitted: bool[K], at least one True and
one False, else the correction is 0.
"""

import jax
import jax.numpy as jnp

from kd_jax.train.sampling import epoch_order


def margins(logits: jax.Array, omitted: jax.Array) -> jax.Array:
    """The bias at which each prediction flips to the best omitted class.  logits f32[N,K] -> f32[N]."""
    best = lambda classes: jnp.max(jnp.where(classes, logits, -jnp.inf), axis=-1)  # noqa: E731
    return best(~omitted) - best(omitted)


def add_class_bias(logits: jax.Array, omitted: jax.Array, bias: jax.Array) -> jax.Array:
    """logits f32[N,K] + bias f32[] on the omitted classes."""
    return logits + bias * omitted.astype(logits.dtype)[None, :]


def _between(sorted_margins: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For j = 0..N: a b that turns exactly the j smallest margins, and how wide its interval is; beyond the
    outermost margins the interval is taken as 2 wide. Width 0: examples tie, and no b turns just j of them.
    f32[N] -> f32[N+1], f32[N+1]."""
    edges = jnp.concatenate([sorted_margins[:1] - 2, sorted_margins, sorted_margins[-1:] + 2])
    middles = (edges[1:] + edges[:-1]) / 2
    inside = (middles > edges[:-1]) & (middles < edges[1:])
    return middles, jnp.where(inside, edges[1:] - edges[:-1], 0.0)


def _or_zero(bias: jax.Array, omitted: jax.Array) -> jax.Array:
    return jnp.where(jnp.any(omitted) & ~jnp.all(omitted), bias, 0.0)


def min_error_bias(logits: jax.Array, labels: jax.Array, omitted: jax.Array) -> jax.Array:
    """The b with the fewest errors; of several, the middle of the widest interval.

    On the test set this is the paper's way (`test_tuned`); on the validation split, `validation_tuned`.
    Args: logits f32[N,K], labels i32[N].  Returns: f32[].
    """
    margin = margins(logits, omitted)
    right = lambda classes: jnp.argmax(jnp.where(classes, logits, -jnp.inf), axis=-1) == labels  # noqa: E731
    gain = right(omitted).astype(jnp.int32) - right(~omitted).astype(jnp.int32)
    order = jnp.argsort(margin)
    gains = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(gain[order])])
    biases, widths = _between(margin[order])
    gains = jnp.where(widths > 0, gains, -logits.shape[0] - 1)
    best = jnp.argmax(jnp.where(gains == jnp.max(gains), widths, -1.0))
    return _or_zero(biases[best], omitted)


def prior_matching_bias(logits: jax.Array, omitted: jax.Array, share: jax.Array) -> jax.Array:
    """The b that makes `share` (f32[], in [0, 1]) of the examples be predicted as omitted classes, or, where
    margins tie, the nearest share that some b gives.  -> f32[].

    With unlabelled validation images and the known share of the omitted classes among them this is
    `prior_matched`; with images made from the transfer set and the share that the teacher names,
    `teacher_matched`.
    """
    biases, widths = _between(jnp.sort(margins(logits, omitted)))
    turned = jnp.round(share * logits.shape[0])
    off = jnp.abs(jnp.arange(logits.shape[0] + 1, dtype=jnp.float32) - turned)
    return _or_zero(biases[jnp.argmin(jnp.where(widths > 0, off, jnp.inf))], omitted)


def omitted_share(logits: jax.Array, omitted: jax.Array) -> jax.Array:
    """Share of examples predicted as omitted classes.  logits f32[N,K] -> f32[]."""
    return jnp.mean(omitted[jnp.argmax(logits, axis=-1)].astype(jnp.float32))


def curve(logits: jax.Array, labels: jax.Array, omitted: jax.Array, biases: jax.Array) -> jax.Array:
    """Correct predictions per class under each of G biases.  biases f32[G] -> i32[G,K]."""
    of_class = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.int32)

    def correct(bias):
        right = jnp.argmax(add_class_bias(logits, omitted, bias), axis=-1) == labels
        return jnp.sum(of_class * right[:, None].astype(jnp.int32), axis=0, dtype=jnp.int32)

    return jax.lax.map(correct, biases)


def average_image_pairs(key: jax.Array, images: jax.Array, mask: jax.Array, num: int) -> jax.Array:
    """`num` images, each the pixelwise mean of two different seen examples at random (where two are seen):
    made of the transfer set alone, yet unlike it, so that the teacher names omitted classes in some of them.

    Args: key: consumed; images u8[N,h,w,c]; mask bool[N], the examples that may be used.
    Returns: u8[num,h,w,c].
    """
    order_key, offset_key = jax.random.split(key)
    order = epoch_order(order_key, mask, mask.shape[0])
    seen = jnp.sum(mask, dtype=jnp.int32)
    place = jnp.arange(num, dtype=jnp.int32) % seen
    other = (place + jax.random.randint(offset_key, (num,), 1, jnp.maximum(seen, 2), jnp.int32)) % seen
    first, second = (images[order[index]].astype(jnp.uint16) for index in (place, other))
    return ((first + second) // 2).astype(jnp.uint8)
