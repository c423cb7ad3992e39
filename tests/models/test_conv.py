from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import conv

SHAPES = [  # side, k, stride, padding, channels, features, groups
    (8, 3, 1, 1, 5, 7, 1),
    (8, 3, 2, 1, 5, 7, 1),
    (9, 3, 2, 1, 4, 6, 1),
    (7, 1, 1, 0, 5, 3, 1),
    (7, 1, 2, 0, 5, 3, 1),
    (8, 1, 2, 0, 5, 3, 1),
    (15, 7, 2, 3, 3, 4, 1),
    (16, 7, 2, 3, 3, 4, 1),
    (6, 5, 3, 2, 2, 3, 1),
    (5, 3, 1, 0, 2, 3, 1),
    (3, 3, 1, 1, 2, 3, 1),
    (2, 3, 1, 1, 24, 20, 1),  # a kernel large beside the image: the whole batch at once
    (4, 3, 2, 1, 40, 36, 1),
    (1, 3, 1, 1, 2, 3, 1),
    (8, 3, 1, 1, 6, 6, 6),
    (8, 3, 2, 1, 6, 6, 6),
    (9, 3, 2, 1, 6, 12, 6),
]


def case(side, size, stride, padding, channels, features, groups, num=6):
    random = np.random.RandomState(0)
    x = random.standard_normal((num, side, side + 1, channels)).astype(np.float32)
    kernel = random.standard_normal((size, size, channels // groups, features)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(kernel), (stride, padding, groups)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_give_what_the_library_gives(shape):
    x, kernel, static = case(*shape)
    expected = conv.by_library(x, kernel, *static)
    found = conv.by_products(x, kernel, *static)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_products_are_those_of_the_library(shape):
    x, kernel, static = case(*shape)
    weights = jnp.asarray(np.random.RandomState(1).standard_normal(conv.by_library(x, kernel, *static).shape))

    def gradients(way):
        loss = lambda x, kernel: jnp.sum(weights.astype(jnp.float32) * way(x, kernel, *static))  # noqa: E731
        return jax.grad(loss, (0, 1))(x, kernel)

    for found, expected in zip(gradients(conv.by_products), gradients(conv.by_library), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num", [6, 7])
@pytest.mark.parametrize("block_bytes", [1, 30_000, 10**9])  # at most 1, 4 and all images at a time
def test_the_size_of_the_blocks_does_not_matter(monkeypatch, block_bytes, num):
    x, kernel, static = case(8, 3, 1, 1, 5, 7, 1, num)
    value = lambda way: lambda x, kernel: jnp.sum(way(x, kernel, *static) ** 2)  # noqa: E731
    expected = jax.value_and_grad(value(conv.by_library), (0, 1))(x, kernel)
    monkeypatch.setattr(conv, "BLOCK_BYTES", block_bytes)
    found = jax.value_and_grad(value(conv.by_products), (0, 1))(x, kernel)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3), found, expected)


def test_a_convolution_against_one_counted_by_hand():
    # ones, 3 x 3 of ones: the number of pixels under the kernel, 4 in the corners, 6 at the edges, 9 inside
    found = conv.by_products(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)), 1, 1)
    np.testing.assert_array_equal(found[0, :, :, 0], [[4, 6, 4], [6, 9, 6], [4, 6, 4]])


def test_mapped_over_runs():
    x, kernel, static = case(8, 3, 2, 1, 5, 7, 1)
    kernels = jnp.stack([kernel, 2 * kernel])
    both = jax.vmap(lambda one: conv.by_products(x, one, *static))(kernels)
    np.testing.assert_allclose(both[1], 2 * both[0], rtol=1e-5, atol=2e-5)


def test_the_way_is_chosen_by_the_platform_and_the_groups():
    assert conv.prefers_products("cpu", 1, 16) and conv.prefers_products("cpu", 16, 16)
    assert not conv.prefers_products("cpu", 4, 16)  # grouped, not depthwise: only the library has it
    assert not conv.prefers_products("gpu", 1, 16)
    x, kernel, static = case(8, 3, 1, 1, 8, 8, 2)
    expected = jnp.concatenate(
        [conv.by_library(x[..., c : c + 4], kernel[..., c : c + 4], 1, 1) for c in (0, 4)], -1
    )
    np.testing.assert_allclose(conv.convolve(x, kernel, *static), expected, rtol=1e-5, atol=2e-5)


def test_parameters_look_the_same_whichever_way(monkeypatch):
    layer, x = conv.Conv(7, stride=2, use_bias=True), jnp.ones((2, 8, 8, 5))
    found = layer.init(jax.random.key(0), x)
    monkeypatch.setattr(conv, "prefers_products", lambda *_: False)
    expected = layer.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, found) == {"params": {"kernel": (3, 3, 5, 7), "bias": (7,)}}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_gradients_in_half_precision_are_summed_in_single():
    """Of 128 images, one a block: sums of 128 numbers in bfloat16 (8 bits) would be off by a percent."""
    x, kernel, static = case(32, 3, 1, 1, 32, 16, 1, num=128)
    x, kernel = abs(x), abs(kernel)
    loss = lambda kernel, way, dtype: jnp.sum(  # noqa: E731
        way(x.astype(dtype), kernel.astype(dtype), *static).astype(jnp.float32)
    )
    exact = jax.grad(loss)(kernel, conv.by_products, jnp.float32)
    found = jax.grad(loss)(kernel, conv.by_products, jnp.bfloat16)
    np.testing.assert_allclose(found, exact, rtol=5e-3)
