"""Ablations of what a teacher says: which part of its answer carries the class that the student never saw?

Each leaves the shape, the temperature and (but for `omitted_removed`) the named class and its probability as
they were, and takes away what the others' probabilities tell. All run in one compiled program: which one a
run hears is a number of `HParams`.

Each is (draws f32[B,K] uniform on [0, 1), log_p f32[B,K] the answer's log-probabilities, class_mask bool[K])
-> f32[B,K], log-probabilities.
"""

import jax
import jax.numpy as jnp

NEVER = -1e9
"""A logit whose probability is 0 at any temperature up to 1e6, and whose differences are finite."""


def full(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """All of it."""
    del draws, class_mask
    return log_p


def omitted_removed(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """The omitted classes at 0, the rest renormalised: what a teacher without these outputs would say."""
    del draws
    return jnp.where(class_mask, log_p, NEVER)


def top1(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """The named class keeps its probability, the rest is spread evenly: no class is likelier than another."""
    del draws, class_mask
    return _spread(log_p, 1)


def top2(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """The two likeliest classes keep theirs, the rest is spread evenly."""
    del draws, class_mask
    return _spread(log_p, min(2, log_p.shape[-1]))


def shuffled(draws: jax.Array, log_p: jax.Array, class_mask: jax.Array) -> jax.Array:
    """All but the named class swap their probabilities at random, each example and step anew: the values
    stay, whose they are is lost.  draws: f32[B,K], uniform."""
    del class_mask
    named = jax.nn.one_hot(jnp.argmax(log_p, axis=-1), log_p.shape[-1], dtype=bool)
    # Sorted by random numbers; the named class has the least on both sides, so it meets itself.
    places = jnp.argsort(jnp.where(named, -1.0, draws), axis=-1)
    values = jnp.argsort(jnp.where(named, jnp.inf, log_p), axis=-1)[:, ::-1]
    moved = jnp.take_along_axis(log_p, values, axis=-1)
    return jnp.take_along_axis(moved, jnp.argsort(places, axis=-1), axis=-1)


def _spread(log_p: jax.Array, num: int) -> jax.Array:
    """All but the `num` likeliest classes share what is left of the probability."""
    seen = jax.nn.one_hot(jax.lax.top_k(log_p, num)[1], log_p.shape[-1], dtype=jnp.float32).sum(axis=-2) > 0
    rest = jax.nn.logsumexp(jnp.where(seen, NEVER, log_p), axis=-1, keepdims=True)
    return jnp.where(seen, log_p, rest - jnp.log(float(max(1, log_p.shape[-1] - num))))


TEACHER_ABLATIONS = {one.__name__: one for one in (full, omitted_removed, top1, top2, shuffled)}


def ablate(
    signal: jax.Array,
    key: jax.Array,
    teacher_logits: jax.Array,
    class_mask: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """The teacher's logits with the ablation number `signal` (i32[], of SIGNALS) at this temperature.

    Args: key: consumed; teacher_logits: f32[B,K]; class_mask: bool[K].  Returns: f32[B,K], logits whose
        softmax at `temperature` is the ablated distribution.
    """
    log_p = jax.nn.log_softmax(teacher_logits / temperature)
    draws = jax.random.uniform(key, log_p.shape, jnp.float32)  # of a vmapped switch all branches are computed
    return temperature * jax.lax.switch(signal, list(TEACHER_ABLATIONS.values()), draws, log_p, class_mask)
