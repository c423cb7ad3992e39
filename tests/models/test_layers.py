import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import layers


def images(*shape, dtype=np.float32):
    return jnp.asarray(3 + 2 * np.random.RandomState(0).standard_normal(shape), dtype)


def variables(channels):
    random = np.random.RandomState(1)
    params = {"scale": random.uniform(0.5, 2, channels), "bias": random.standard_normal(channels)}
    stats = {"mean": random.standard_normal(channels), "var": random.uniform(0.5, 2, channels)}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), {"params": params, "batch_stats": stats})


@pytest.mark.parametrize("shape", [(8, 5, 6, 3), (16, 4)])
def test_batch_norm_is_flax_s(shape):
    x, held = images(*shape), variables(shape[-1])
    weights = jnp.asarray(np.random.RandomState(2).standard_normal(shape), jnp.float32)
    reference = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)

    def theirs(params, x):
        y, state = reference.apply(held | {"params": params}, x, mutable=["batch_stats"])
        return jnp.sum(weights * y), (y, state["batch_stats"])

    def ours(params, x):
        y, state = layers.BatchNorm().apply(held | {"params": params}, x, True, mutable=["batch_stats"])
        return jnp.sum(weights * y), (y, state["batch_stats"])

    found, expected = (jax.jit(jax.grad(f, (0, 1), has_aux=True))(held["params"], x) for f in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, expected)


def test_batch_norm_evaluates_by_the_running_averages():
    x, held = images(8, 5, 6, 3), variables(3)
    found = layers.BatchNorm().apply(held, x, False)
    expected = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(held, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_batch_norm_starts_as_flax_s():
    x = images(8, 5, 6, 3)
    found = layers.BatchNorm().init(jax.random.key(0), x, False)
    expected = nn.BatchNorm(use_running_average=True).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_batch_norm_in_half_precision_keeps_its_statistics_in_single():
    x = images(64, 8, 8, 3, dtype=jnp.bfloat16)
    held = layers.BatchNorm().init(jax.random.key(0), x, False)
    y, state = layers.BatchNorm(jnp.bfloat16).apply(held, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16 and state["batch_stats"]["mean"].dtype == jnp.float32
    mean = np.asarray(x, np.float32).mean((0, 1, 2))
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * mean, rtol=1e-4)


@pytest.mark.parametrize("side", [2, 5])
def test_halve_is_max_pooling(side):
    x = images(3, side, side + 1, 2)
    expected = nn.max_pool(x, (2, 2), (2, 2))
    np.testing.assert_array_equal(layers.max_pool_2x2(x), expected)
    found, wanted = (
        jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2)))(x)
        for f in (layers.max_pool_2x2, lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("pool", [layers.max_pool_2x2, layers.max_pool_3])
def test_the_gradient_of_pooling_does_not_depend_on_how_its_input_is_rounded(pool):
    """Without optimisation XLA computes the normalised input a second time for the gradient, and rounds it
    otherwise than for the maximum."""
    x, weights = (
        images(8, 4, 4, 2),
        jnp.asarray(np.random.RandomState(2).standard_normal((8, 2, 2, 2)), np.float32),
    )

    def loss(x):
        y, _, _ = layers.normalize(x, jnp.array([1.3, 0.7]), jnp.array([0.1, 0.2]))
        return jnp.sum(weights * pool(y))

    plain, optimised = (
        jax.jit(jax.grad(loss), compiler_options={"xla_backend_optimization_level": level})(x)
        for level in (0, 3)
    )
    np.testing.assert_allclose(plain, optimised, rtol=1e-4, atol=1e-5)
