"""Every family of MODELS: size by formula, features, modes, precision; dropout's rate is of dropping."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.models.layers import dropout_units
from kd_jax.models.normalization import IMAGENET, channel_statistics
from kd_jax.train.sweep import QUICK_COMPILE

SHAPE, K, B = (4, 4, 2), 3, 6
KEY = jax.random.key(0)


def dense(*widths: int) -> int:
    """Parameters of dense layers with biases: (fan in + 1) x fan out each."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(widths))


# family -> (spec, its number of parameters for SHAPE and K, {feature: shape after the batch axis})
EXAMPLES = {
    "mlp": ("mlp-7-5", dense(32, 7, 5, K), {"hidden_0": (7,), "hidden_1": (5,)}),
}
FAMILIES = pytest.mark.parametrize("family", EXAMPLES)  # the convolutional ones have files of their own
IMAGES = np.random.RandomState(0).rand(B, *SHAPE).astype(np.float32)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@functools.cache
def initialised(family: str, seed: int):
    init = functools.partial(models.init_variables, models.build(EXAMPLES[family][0], K), image_shape=SHAPE)
    return jax.jit(init, compiler_options=QUICK_COMPILE)(jax.random.key(seed))


def built(family: str, **options):
    return models.build(EXAMPLES[family][0], K, **options), initialised(family, 0)


@functools.partial(jax.jit, static_argnums=0)
def forward(model, variables, images, dropout_key=None):
    return models.forward(model, variables, images, dropout_key)


@FAMILIES
def test_size_logits_and_features(family):
    _, num_params, shapes = EXAMPLES[family]
    model, variables = built(family)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == num_params
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    logits, features, model_state = forward(model, variables, IMAGES)
    assert logits.shape == (B, K) and logits.dtype == jnp.float32
    assert {name: value.shape for name, value in features.items()} == {n: (B, *s) for n, s in shapes.items()}
    assert set(model_state) == set(variables) - {"params"}


@FAMILIES
def test_evaluation_is_deterministic_and_training_is_not(family):
    model, variables = built(family, dropout=0.5, input_dropout=0.2)
    plain, _ = built(family)
    logits = forward(model, variables, IMAGES)[0]
    np.testing.assert_array_equal(logits, forward(model, variables, IMAGES)[0])
    np.testing.assert_array_equal(logits, forward(plain, variables, IMAGES)[0])  # no dropout at all
    one, again, other = (forward(model, variables, IMAGES, jax.random.key(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.all(np.abs(one - logits).max(axis=-1) > 1e-3) and np.all(
        np.abs(one - other).max(axis=-1) > 1e-3
    )


@FAMILIES
def test_bfloat16_changes_the_products_only(family):
    """Eight bits of mantissa: logits within about 2 % of float32's; they and the parameters are float32."""
    model, variables = built(family, precision="bfloat16")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    logits = forward(model, variables, IMAGES)[0]
    assert logits.dtype == jnp.float32
    exact = np.asarray(forward(built(family)[0], variables, IMAGES)[0])
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.02


@FAMILIES
def test_normalisation_is_inside_the_model(family):
    """It maps raw images as the network alone maps normalised ones; from the same variables, by the same
    names, and an initialisation of the same bits; numbers that come from JSON are lists."""
    plain, variables = built(family)
    normalised = models.build(EXAMPLES[family][0], K, normalize=[[0.5, 0.25], [0.2, 2.0]])
    shifted = (IMAGES - np.float32([0.5, 0.25])) / np.float32([0.2, 2.0])
    for dropout_key in (None, jax.random.key(1)):
        ours = forward(normalised, variables, IMAGES, dropout_key)
        theirs = forward(plain, variables, shifted, dropout_key)
        jax.tree.map(close, ours, theirs)
    assert np.abs(ours[0] - forward(plain, variables, IMAGES)[0]).max() > 0.1
    init = functools.partial(models.init_variables, normalised, image_shape=SHAPE)
    again = jax.jit(init, compiler_options=QUICK_COMPILE)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_one_channel_does_not_become_three():
    model = models.build("mlp-3", K, normalize=IMAGENET)
    with pytest.raises(AssertionError):
        jax.eval_shape(
            functools.partial(models.init_variables, model, image_shape=(4, 4, 1)), jax.random.key(0)
        )


def test_channel_statistics_by_numpy():
    """Of the pixels in [0, 1]; a channel that is the same everywhere is only shifted."""
    images = np.random.RandomState(0).randint(0, 256, (50, 4, 5, 3)).astype(np.uint8)
    images[..., 1] = 77
    mean, std = channel_statistics(images)
    pixels = np.float64(images) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose([std[0], std[2]], pixels.std(axis=(0, 1, 2))[[0, 2]], rtol=1e-12)
    assert std[1] == 1 and all(type(number) is float for number in (*mean, *std))


@FAMILIES
def test_another_key_another_initialisation(family):
    variables, other = initialised(family, 0), initialised(family, 1)
    kernels = lambda tree: [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]  # noqa: E731
    assert kernels(variables)
    for one, two in zip(kernels(variables), kernels(other), strict=True):
        assert not np.any(np.asarray(one) == np.asarray(two))


def test_mlp_by_numpy():
    model, variables = built("mlp")
    x, layers = np.float64(IMAGES).reshape(B, -1), jax.tree.map(np.float64, variables["params"])
    for i in range(2):
        x = np.maximum(x @ layers[f"hidden_{i}"]["kernel"] + layers[f"hidden_{i}"]["bias"], 0)
        np.testing.assert_allclose(forward(model, variables, IMAGES)[1][f"hidden_{i}"], x, atol=1e-5)
    logits = x @ layers["logits"]["kernel"] + layers["logits"]["bias"]
    np.testing.assert_allclose(forward(model, variables, IMAGES)[0], logits, atol=1e-5)


def test_no_hidden_layer_is_a_linear_model():
    init = functools.partial(models.init_variables, models.build("mlp", K), image_shape=SHAPE)
    variables = jax.eval_shape(init, jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in variables["params"]["logits"].items()}
    assert shapes == {"kernel": (32, K), "bias": (K,)}


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.8])
def test_dropout_rate_is_the_probability_of_dropping(rate):
    """Of n = 100,000 ones, rate n become 0 (to five standard deviations), the rest exactly 1 / (1 - rate).

    Neighbours are independent: both are kept with probability (1 - rate)^2, of one random block or not.
    """
    n = 100_000
    out = np.asarray(dropout_units(jax.random.key(0), jnp.ones((100, 1000)), rate)).ravel()
    seen = out != 0
    assert abs((~seen).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_array_equal(out[seen], np.float32(1 / (1 - rate)))
    pair = (1 - rate) ** 2
    for lag in (1, 2, 3, 4, n // 2):
        both = (seen & np.roll(seen, lag)).mean()
        assert abs(both - pair) < 6 * np.sqrt(pair * (1 - pair) / n)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_dropout_of_any_size(size):
    """Whatever is left of the last block of random bits."""
    keys = jax.random.split(jax.random.key(0), 64)
    out = np.asarray(jax.vmap(lambda key: dropout_units(key, jnp.ones(size), 0.5))(keys))
    assert out.shape == (64, size) and set(np.unique(out)) == {0.0, 2.0}
    assert np.all((out == 0).mean(axis=0) > 0.2) and np.all((out == 0).mean(axis=0) < 0.8)


def test_dropout_rate_next_to_one():
    """--dropout takes any number >= 0 and < 1."""
    assert np.mean(np.asarray(dropout_units(jax.random.key(0), jnp.ones(1000), 0.999999)) == 0) > 0.99


def test_each_layer_drops_its_own_units():
    """All kernels the identity, all inputs 1: logits / 4 are products of two independent masks of rate 1/2,
    so a quarter of them is not 0; with one mask for both layers it would be a half. No input is dropped."""
    n = 2000
    model = models.MODELS["mlp"]("", ["16", "16"], 16, dropout=0.5)
    layer = {"kernel": jnp.eye(16), "bias": jnp.zeros(16)}
    variables = {"params": {"hidden_0": layer, "hidden_1": layer, "logits": layer}}
    logits, features, _ = forward(model, variables, jnp.ones((n, 4, 4, 1)), jax.random.key(0))
    assert np.all(np.asarray(features["hidden_0"]) == 1)
    share = np.mean(np.asarray(features["hidden_1"]) != 0)
    assert abs(share - 0.5) < 0.02
    assert set(np.unique(logits)) == {0.0, 4.0}
    assert abs(np.mean(np.asarray(logits) != 0) - 0.25) < 0.02


def test_input_dropout_drops_inputs_alone():
    model = models.MODELS["mlp"]("", ["16"], 16, input_dropout=0.25)
    layer = {"kernel": jnp.eye(16), "bias": jnp.zeros(16)}
    variables = {"params": {"hidden_0": layer, "logits": layer}}
    logits, features, _ = forward(model, variables, jnp.ones((2000, 4, 4, 1)), jax.random.key(0))
    assert abs(np.mean(np.asarray(features["hidden_0"]) == 0) - 0.25) < 0.02
    np.testing.assert_array_equal(logits, features["hidden_0"])


def test_pixels_become_0_to_1():
    scaled = models.scale_pixels(jnp.asarray([0, 51, 255], jnp.uint8))
    assert scaled.dtype == jnp.float32 and scaled[0] == 0 and scaled[2] == 1
    np.testing.assert_allclose(scaled, [0, 0.2, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "mpl-5",
        "MLP-5",
        "mlp-",
        "mlp-0",
        "mlp--5",
        "mlp-5-",
        "mlp-5.0",
        "mlp-1e3",
        "mlp- 5",
        "mlp-²",
        "800-800",
    ],
)
def test_a_bad_spec_is_refused_in_one_line(spec):
    with pytest.raises(InputError) as caught:
        models.build(spec, K)
    message = str(caught.value)
    assert "\n" not in message and "expected" in message and "mlp" in message and f"given {spec}" in message


def test_a_misspelt_family_gets_a_hint():
    with pytest.raises(InputError, match="did you mean mlp"):
        models.build("mpl-800", K)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("mlp", ()),
        ("mlp" + 11 * "-3", tuple(f"hidden_{i}" for i in range(11))),
        ("cnn-4-6", ("block_0", "block_1")),
        ("resnet-8", ("stage_0", "stage_1", "stage_2", "pooled")),
    ],
)
def test_hidden_layers_are_named_by_depth(spec, names):
    """Sorted, "pooled" would come first and "hidden_10" before "hidden_2"."""
    assert models.hidden_layers(models.build(spec, K), (8, 8, 3)) == names
    assert models.hidden_layers(models.build(spec, K, normalize=IMAGENET), (8, 8, 3)) == names


def test_what_reads_the_last_hidden_layer_refuses_a_network_without_one():
    model = models.build("mlp", K)
    variables = jax.eval_shape(functools.partial(models.init_variables, model, image_shape=SHAPE), KEY)
    for function, *arguments in (
        (models.predict_features, jax.ShapeDtypeStruct((B, *SHAPE), jnp.uint8)),
        (models.forward_head, jax.ShapeDtypeStruct((B, *SHAPE), jnp.float32), KEY),
    ):
        with pytest.raises(InputError, match=r"a hidden layer is needed: expected .*mlp-64; given MLP"):
            jax.eval_shape(functools.partial(function, model), variables, *arguments)
