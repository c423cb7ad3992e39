"""Cached teacher logits of images and of their mirror images: flipped batches need no query."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses
from kd_jax.models import build, init_variables, predict_stacked
from kd_jax.train import augment, augment_and_scale, batch, init_state, make_config, optim, train_epoch
from kd_jax.types import Table
from tests.train.probes import STEP, hparams, quick

N, K = 24, 3
IMAGES = np.random.RandomState(0).randint(0, 256, (N, 2, 3, 1)).astype(np.uint8)
TABLE = Table(jnp.asarray(IMAGES), jnp.arange(N, dtype=jnp.int32) % K)
FLIPPED = {"augment": augment.RandomFlip()}


def test_the_row_is_that_of_the_image_that_the_student_sees():
    network = build("mlp-4", K)
    config = make_config(network, IMAGES.shape, losses.soft_loss, num_epochs=1, batch_size=N, **FLIPPED)
    table = TABLE.replace(teacher_logits=(jnp.zeros((1, 2 * N, K)),))
    index, mirrored = jnp.asarray(np.random.RandomState(1).permutation(N), jnp.int32), []
    for step in range(3):
        key = jax.random.key(7)
        seen, _ = augment_and_scale(config, key, TABLE.images[index], jnp.int32(step))
        rows = np.asarray(batch.cached_rows(table, key, index, jnp.int32(step)))
        np.testing.assert_array_equal(rows % N, index)
        views = np.concatenate([IMAGES, IMAGES[:, :, ::-1]])
        np.testing.assert_allclose(seen, views[rows] / 255, atol=1e-6)
        mirrored.append(tuple(rows >= N))
    assert len({*mirrored}) == 3 and 0 < np.mean(mirrored) < 1


@pytest.mark.parametrize("logits", [None, (jnp.zeros((1, N, K)),)])
def test_without_mirror_images_the_rows_are_the_examples(logits):
    index = jnp.arange(5, dtype=jnp.int32)
    table = TABLE.replace(teacher_logits=logits)
    np.testing.assert_array_equal(batch.cached_rows(table, jax.random.key(0), index, jnp.int32(0)), index)


def test_an_epoch_is_the_same_as_with_a_queried_teacher():
    network = build("mlp-4", K)
    teacher = jax.tree.map(
        lambda leaf: 3 * leaf[None], dict(init_variables(network, jax.random.key(5), IMAGES.shape[1:]))
    )
    views = (IMAGES, IMAGES[:, :, ::-1])
    cached = np.concatenate([predict_stacked(network, teacher, view) for view in views], axis=1)
    options = FLIPPED | {"batch_size": 8, "schedule": optim.Constant, "optimizer": STEP}
    make = partial(make_config, network, IMAGES.shape, losses.soft_loss, num_epochs=1, **options)
    run = jax.tree.map(jnp.asarray, hparams(0.01, temperature=2.0, alpha=1.0)).replace(
        class_mask=jnp.ones(K, bool)
    )
    after = []
    for config, table in (
        (make(), TABLE.replace(teacher_logits=(jnp.asarray(cached),))),
        (make(teacher_models=(network,)), TABLE.replace(teacher_variables=(teacher,))),
    ):
        state = init_state(config, jax.random.key(0))
        after.append(quick(partial(train_epoch, config))(table, run, state)[0].params)
    start = init_state(make(), jax.random.key(0)).params
    for one, other, first in zip(*map(jax.tree.leaves, (*after, start)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert not np.allclose(one, first, atol=1e-4)
