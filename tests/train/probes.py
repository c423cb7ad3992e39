"""A model, a table and a loss whose numbers show what a step was given.

The model `Probe` tells what it is given. The first of its K logits is
    (sum of the image's pixel values) + w + (1000 in evaluation mode only),
and it counts its training steps as batch statistics. Image i sums to i and has the label i, so every batch
shows which examples, which teacher (whose w is 100 (m + 1)) and which mode it was made with.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from kd_jax.models import build
from kd_jax.train import (
    Config,
    fit,
    init_state,
    optim,
)
from kd_jax.train.sweep import QUICK_COMPILE
from kd_jax.types import HParams, Table

N = K = 12
B, U, M = 4, 3, 2
EVALUATION = 1000.0
quick = partial(jax.jit, compiler_options=QUICK_COMPILE)


class Probe(nn.Module):
    @nn.compact
    def __call__(self, images, train: bool):
        w = self.param("w", nn.initializers.zeros, ())
        steps = self.variable("batch_stats", "steps", lambda: jnp.zeros(()))
        if train:
            steps.value += 1
        first = 255 * jnp.sum(images, axis=(1, 2, 3)) + w + (0.0 if train else EVALUATION)
        return jnp.zeros((images.shape[0], K)).at[:, 0].set(first), {}


IMAGES = np.zeros((N, 3, 3, 1), np.uint8)
IMAGES[:, 1, 1, 0] = np.arange(N)
LABELS = np.arange(N, dtype=np.int32)
# Cached logits say the same as a queried Probe would: example i of teacher m has i + 100 (m + 1) + 1000.
CACHED = np.zeros((M, N, K), np.float32)
CACHED[:, :, 0] = LABELS + 100 * np.arange(1, M + 1)[:, None] + EVALUATION
PROBES = {
    "params": {"w": 100 * jnp.arange(1.0, M + 1)},
    "batch_stats": {"steps": jnp.full(M, 7.0)},
}
TABLE = Table(jnp.asarray(IMAGES), jnp.asarray(LABELS))
FULL_IMAGES = np.random.RandomState(0).randint(1, 256, size=(N, 3, 3, 1)).astype(np.uint8)
SMALL, PLAIN = build("mlp-6", K, dropout=0.5), build("mlp-6", K)
STEP = optim.Optimizer(optax.identity, decoupled=False)  # the update is the gradient times the rate


def hparams(rate=0.0, decay=0.0, temperature=1.0, alpha=0.0, mask=None, teacher=0) -> HParams:
    numbers = (np.float32(x) for x in (rate, decay, temperature, alpha))
    return HParams(*numbers, np.ones(K, bool) if mask is None else mask, np.int32(teacher))


def stacked(*runs: HParams) -> HParams:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)


def config_of(loss_fn, **options) -> Config:
    defaults = {"model": Probe(), "optimizer": STEP, "schedule": optim.Constant(0)}
    shape = {"image_shape": (3, 3, 1), "num_classes": K, "batch_size": B, "num_updates": U}
    return Config(loss_fn=loss_fn, **defaults | shape | options)


def fit_all(config, table, validation, hparams, seeds, epochs):
    """(states, history) of one run for each row of hparams, mapped."""

    def one(hparams, seed):
        state = init_state(config, jax.random.fold_in(jax.random.key(0), seed))
        return fit(config, table, validation, hparams, state, jnp.int32(epochs), epochs)

    return quick(jax.vmap(one))(hparams, jnp.asarray(seeds, jnp.uint32))


def mean_logit(student, batch, hparams):
    return student[:, 0]


def small_state(config):
    return quick(partial(init_state, config))(jax.random.key(0))


def labels_only(student, batch, hparams):
    return -jnp.take_along_axis(jax.nn.log_softmax(student), batch.labels[:, None], axis=-1)[:, 0]
