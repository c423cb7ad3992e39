"""Probabilities against NumPy; the exported program computes what the network does, of every family."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models
from kd_jax.evaluate import classifier
from kd_jax.train.sweep import QUICK_COMPILE

NORMALIZE = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def test_probabilities_are_the_mean_over_networks_each_corrected():
    """Logits ln 1, ln 2, ln 4 with ln 2 added to the last: 1 : 2 : 8; without: 1 : 2 : 4."""
    logits = jnp.log(jnp.array([[[1.0, 2, 4]], [[1, 2, 4]]]))
    found = classifier.class_probabilities(
        logits, jnp.array([False, False, True]), jnp.array([np.log(2), 0], np.float32)
    )
    expected = np.mean([np.array([1, 2, 8]) / 11, np.array([1, 2, 4]) / 7], axis=0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def exported_like_forward(spec, shape, tolerance, **options):
    """Random weights and statistics, two numbers of images, a bias on the second class."""
    model = models.build(spec, 3, **options)
    key, random = jax.random.key(0), np.random.RandomState(0)
    shapes = jax.eval_shape(lambda: models.init_variables(model, key, shape))
    variables = jax.tree.map(lambda x: np.abs(random.normal(0.1, 0.2, x.shape)).astype(np.float32), shapes)
    omitted, bias = np.array([False, True, False]), np.float32(1.5)
    content = classifier.to_stablehlo(model, variables, omitted, bias, shape)
    program = jax.export.deserialize(bytearray(content))
    assert program.platforms == classifier.PLATFORMS
    images = random.randint(0, 256, (3, *shape)).astype(np.uint8)
    forward = jax.jit(lambda images: models.forward(model, variables, images / np.float32(255))[0],
                      compiler_options=QUICK_COMPILE)  # fmt: skip
    logits = np.asarray(forward(images.astype(np.float32)), np.float64) + bias * omitted
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = shares / shares.sum(axis=1, keepdims=True)
    call = jax.jit(program.call, compiler_options=QUICK_COMPILE)
    np.testing.assert_allclose(call(images), expected, atol=tolerance)
    np.testing.assert_allclose(call(images[:1]), expected[:1], atol=tolerance)


def test_a_convolutional_network_is_exported():
    exported_like_forward("cnn-4-d5-bn", (6, 5, 3), 1e-5, normalize=NORMALIZE)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["resnet-8", "shufflenet-x0.5-cifar"])
def test_families_are_exported(spec):
    exported_like_forward(spec, (16, 16, 3), 1e-5, normalize=NORMALIZE)


@pytest.mark.slow
def test_bfloat16_is_exported():
    exported_like_forward("cnn-4-bn", (8, 8, 1), 0.05, precision="bfloat16")
