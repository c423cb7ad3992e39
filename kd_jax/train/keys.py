"""Purposes folded into a run's key: all that there are, so that no two draw the same numbers."""

import jax

INIT = 0
ORDER = 1
DROPOUT = 2
AUGMENT = 3
MIXUP = 4
NOISE = 5
SHOTS = 6
ABLATION = 7
PERTURB = 8
CONNECTOR = 9
MEMORY = 10
NEGATIVES = 11
GENERATOR = 12
LATENT = 13
MIXTURES = 100
IMPRESSION = 101
IMPRESSION_SHIFT = 102


def at(key: jax.Array, purpose: int, step: jax.Array) -> jax.Array:
    """The key that a purpose has at this step, i32[].  key: the run's own, not consumed."""
    return jax.random.fold_in(jax.random.fold_in(key, purpose), step)
