"""Images from a teacher: each part of the objective against NumPy, targets, and several batches as one
program."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models
from kd_jax.models.layers import BatchNorm
from kd_jax.models.statistics import Statistics, forward_with_statistics
from kd_jax.train import synthesis
from kd_jax.train.sweep import QUICK_COMPILE

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.rand(6, 4, 5, 2).astype(np.float32)
quick = partial(jax.jit, compiler_options=QUICK_COMPILE)


def test_the_gradient_of_total_variation():
    """d/dx of (x - below)^2 + (x - right)^2, over all pixels, by the pixel's own four differences."""
    x = IMAGES.astype(np.float64)
    expected = np.zeros_like(x)
    down, right = np.diff(x, axis=1), np.diff(x, axis=2)
    expected[:, 1:] += 2 * down
    expected[:, :-1] -= 2 * down
    expected[:, :, 1:] += 2 * right
    expected[:, :, :-1] -= 2 * right
    value, gradient = quick(jax.value_and_grad(lambda x: jnp.sum(synthesis.total_variation(x))))(IMAGES)
    np.testing.assert_allclose(gradient, expected / 20, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value, ((down**2).sum() + (right**2).sum()) / 20, rtol=1e-5)
    assert synthesis.total_variation(jnp.ones((3, 4, 4, 1))).tolist() == [0, 0, 0]


def test_concentrations_are_those_of_the_paper():
    """Equation 2 of Nayak et al. 2019, C[i,j] = w_i w_j / (|w_i| |w_j|); each row scaled to [0, 1], times
    beta."""
    kernel = RANDOM.randn(7, 4).astype(np.float32)
    cosines = np.array(
        [[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in kernel.T] for a in kernel.T]
    )
    np.testing.assert_allclose(synthesis.class_similarities(kernel), cosines, atol=1e-5)
    found = np.asarray(
        synthesis.dirichlet_concentrations(jnp.asarray(cosines, jnp.float32), jnp.float32(0.1))
    )
    for row, of_class in enumerate(cosines):
        scaled = 0.1 * (of_class - of_class.min()) / (of_class.max() - of_class.min())
        np.testing.assert_allclose(found[row], np.maximum(scaled, 1e-4), atol=1e-6)
        assert found[row].argmax() == row


def test_targets_are_probabilities_of_their_label():
    labels = np.tile(np.int32([0, 2]), 100)
    random, similarities = np.random.RandomState(0), np.array([[1, 0.9, 0], [0.9, 1, 0.9], [0, 0.9, 1]])
    targets = synthesis.draw_targets(random, similarities, (5.0, 0.1), labels)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-5)
    assert np.isfinite(targets).all() and (targets >= 0).all()
    np.testing.assert_array_equal(targets.argmax(-1), labels)
    # Of the larger scale, in the first half, targets are less extreme.
    assert np.median(targets[:100].max(-1)) < np.median(targets[100:].max(-1)) - 0.01


class Two(nn.Module):
    """Not a network of the library: two normalisations one after another, and a sum for each channel."""

    @nn.compact
    def __call__(self, images, train: bool):
        x = BatchNorm(name="first")(images, train)
        return jnp.sum(BatchNorm(name="second")(2 * x + 1, train), axis=(1, 2)), {}


def test_the_statistics_are_those_of_the_inputs():
    """In evaluation mode: the second normalisation sees 2 a + 1 of what the first gives by its running
    averages, here mean 0.5 and variance 4, scale 1 and bias 0."""
    running = {"mean": jnp.full(2, 0.5), "var": jnp.full(2, 4.0)}
    own = {"scale": jnp.ones(2), "bias": jnp.zeros(2)}
    variables = {
        "params": {"first": own, "second": own},
        "batch_stats": {"first": running, "second": {"mean": jnp.zeros(2), "var": jnp.ones(2)}},
    }
    _, found = quick(partial(forward_with_statistics, Two()))(variables, IMAGES)
    x = IMAGES.astype(np.float64)
    after = 2 * (x - 0.5) / np.sqrt(4 + 1e-5) + 1
    for one, values in zip(found, (x, after), strict=True):
        np.testing.assert_allclose(one.mean, values.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(one.variance, values.var((0, 1, 2)), rtol=1e-4)
    norm = np.linalg.norm
    parts = [
        norm(x.mean((0, 1, 2)) - 0.5) + norm(x.var((0, 1, 2)) - 4),
        norm(after.mean((0, 1, 2))) + norm(after.var((0, 1, 2)) - 1),
    ]
    distance = synthesis.statistics_distance(found, jnp.float32(10))
    np.testing.assert_allclose(distance, 10 * parts[0] + parts[1], rtol=1e-4)
    same = Statistics(found[0].mean, found[0].variance, found[0].mean, found[0].variance)
    assert synthesis.statistics_distance([same], jnp.float32(1)) < 1e-5


@pytest.fixture(scope="module")
def teachers():
    """Two small networks, leading axis 2."""
    model = models.build("mlp-8", 3)
    init = partial(models.init_variables, model, image_shape=(4, 5, 2))
    return model, quick(jax.vmap(init))(jax.random.split(jax.random.key(3), 2))


NUMBERS = (0.05, 20.0, 0.1, 0.2, 0.0, 0.0, 1.0)


def test_the_objective_is_the_sum_of_its_parts(teachers):
    model, variables = teachers
    one = jax.tree.map(lambda leaf: leaf[0], variables)
    weights = synthesis.Weights(*map(jnp.float32, NUMBERS))
    targets = RANDOM.dirichlet(np.ones(3), 6).astype(np.float32)
    what = synthesis.Synthesis(model, (4, 5, 2), 1)
    loss, entropies = quick(partial(synthesis.objective, what))(one, weights, IMAGES, targets)
    logits = np.asarray(models.forward(model, one, IMAGES)[0], np.float64) / 20
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(entropies, -(targets * log).sum(-1), rtol=1e-5)
    priors = 0.1 * np.asarray(synthesis.total_variation(IMAGES)) + 0.2 * (IMAGES**2).mean((1, 2, 3))
    np.testing.assert_allclose(loss, np.mean(-(targets * log).sum(-1) + priors), rtol=1e-5)


def test_batches_of_several_classes_and_teachers_are_one_program(teachers):
    """Each as alone; the images of each are those that its teacher calls by the target, more so than
    noise."""
    model, variables = teachers
    weights = synthesis.Weights(*map(np.float32, NUMBERS)).replace(
        temperature=np.float32(1), translate=np.float32(0)
    )
    what = synthesis.Synthesis(model, (4, 5, 2), 60)
    variables = jax.tree.map(np.asarray, variables)
    keys, labels = (
        jax.random.split(jax.random.key(5), 3),
        np.int32([[0, 1, 2, 0], [2, 2, 2, 2], [1, 1, 0, 0]]),
    )
    targets = np.eye(3, dtype=np.float32)[labels]
    run = partial(synthesis.synthesize, what, variables, weights)
    with jax.numpy_dtype_promotion("standard"):  # optax promotes
        images, entropies = run(keys, targets, np.int32([0, 1, 1]))
        alone, _ = run(keys[1:2], targets[1:2], np.int32([1]))
    assert images.shape == (3, 4, 4, 5, 2) and images.dtype == np.uint8
    assert np.abs(alone[0].astype(int) - images[1]).max() <= 1  # rounding to bytes
    noise = np.random.RandomState(1).rand(4, 4, 5, 2).astype(np.float32)
    own = jax.tree.map(lambda leaf: leaf[1], variables)
    before = -np.asarray(jax.nn.log_softmax(models.forward(model, own, noise)[0]))[:, 2]
    assert entropies[1].mean() < before.mean() / 2
