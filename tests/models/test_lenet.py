"""LeNet-5 and its half: sizes by formula and as published, features, small images."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from kd_jax import models
from kd_jax.errors import InputError


def shapes_of(spec, image_shape, **options):
    model = models.build(spec, 10, **options)

    def run(key):
        variables = models.init_variables(model, key, image_shape)
        return variables["params"], models.forward(model, variables, jnp.zeros((2, *image_shape)), key)[:2]

    return jax.eval_shape(run, jax.random.key(0))


def size(channels, side, depth):
    """Convolutions with biases, then dense layers on side x side places of the second one's channels."""
    total, before = 0, depth
    for width in channels:
        total += 25 * before * width + width
        before = width
    dense = [side * side * before, 120, 84, 10]
    return total + sum((a + 1) * b for a, b in itertools.pairwise(dense))


@pytest.mark.parametrize(
    "spec, channels, shape, side, published",
    [
        ("lenet-5", (6, 16), (28, 28, 1), 5, 61_706),
        ("lenet-5-half", (3, 8), (28, 28, 1), 5, 35_820),
        ("lenet-5", (6, 16), (32, 32, 3), 6, None),
        ("lenet-5-half", (3, 8), (8, 8, 1), 2, None),
    ],
)
def test_sizes_and_features(spec, channels, shape, side, published):
    params, (logits, features) = shapes_of(spec, shape)
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert number == size(channels, side, shape[-1]) and published in (None, number)
    assert logits.shape == (2, 10) and features["conv_1"].shape == (2, side, side, channels[1])
    hidden = models.hidden_layers(models.build(spec, 10), shape)
    assert hidden == ("conv_0", "conv_1", "dense_0", "dense_1")
    assert models.MODELS["lenet"](spec, [], 3).num_classes == 3


def test_dropout_is_traced_in_training():
    assert shapes_of("lenet-5", (8, 8, 1), dropout=0.5)[1][0].shape == (2, 10)


@pytest.mark.parametrize("spec", ["lenet", "lenet-4", "lenet-5-bn", "lenet-half"])
def test_malformed(spec):
    with pytest.raises(InputError, match="lenet-5 or lenet-5-half"):
        models.build(spec, 10)
