from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from kd_jax.models import conv

SHAPES = [  # side, k, stride, padding, channels, features, groups
    (8, 3, 1, 1, 5, 7, 1),
    (8, 3, 2, 1, 5, 7, 1),
    (9, 3, 2, 1, 4, 6, 1),
    (7, 1, 1, 0, 5, 3, 1),
    (7, 1, 2, 0, 5, 3, 1),
    (15, 7, 2, 3, 3, 4, 1),
    (6, 5, 3, 2, 2, 3, 1),
    (5, 3, 1, 0, 2, 3, 1),
    (6, 4, 2, 1, 2, 3, 1),  # a kernel of even size
    (7, 1, 3, 1, 4, 6, 2),  # some rows of the image meet nothing
    (7, 2, 3, 0, 4, 3, 1),
    (4, 1, 1, 3, 2, 4, 2),  # padding wider than the kernel
    (8, 3, 1, 1, 6, 9, 3),
    (9, 3, 2, 1, 4, 6, 2),
    (2, 3, 1, 1, 24, 20, 1),
    (1, 3, 1, 1, 2, 3, 1),
    (8, 3, 1, 1, 6, 6, 6),
    (8, 3, 2, 1, 6, 6, 6),
    (9, 3, 2, 1, 6, 12, 6),
]


def ways(size, channels, groups):
    """The names of those that can compute it, but for the library's, which is the reference."""
    products = groups == channels or (size == 1 and groups == 1)
    return ("canonical", "products") if products else ("canonical",)


def of(way, static):
    return lambda x, kernel: conv.WAYS[way](x, kernel, *static)


def case(side, size, stride, padding, channels, features, groups, num=6):
    random = np.random.RandomState(0)
    x = random.standard_normal((num, side, side + 1, channels)).astype(np.float32)
    kernel = random.standard_normal((size, size, channels // groups, features)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(kernel), (stride, padding, groups)


def check(way, x, kernel, static):
    """Values and both gradients against those that JAX derives of XLA's own convolution."""

    @jax.jit  # one compilation, not one for each operation
    def both(x, kernel, weights):
        pulled = [jax.vjp(of(name, static), x, kernel) for name in (way, "library")]
        return [(out, backward(weights)) for out, backward in pulled]

    shapes = [jax.eval_shape(of(name, static), x, kernel) for name in (way, "library")]
    assert shapes[0] == shapes[1]
    weights = np.random.RandomState(1).standard_normal(shapes[0].shape).astype(np.float32)
    (found, found_gradients), (expected, gradients) = both(x, kernel, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found_gradients, gradients)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_and_its_gradients_are_those_of_the_library(shape):
    x, kernel, static = case(*shape)
    for way in ways(shape[1], shape[4], shape[6]):
        check(way, x, kernel, static)


def test_shapes_drawn_at_random():
    random = np.random.RandomState(5)
    for _ in range(8):
        size, stride, groups = random.randint(1, 6), random.randint(1, 4), random.randint(1, 4)
        channels, features = groups * random.randint(1, 4, 2)
        side, padding, num = random.randint(size, 12), random.randint(size + 1), random.choice([1, 3, 8, 17])
        x, kernel, static = case(side, size, stride, padding, channels, features, groups, num)
        check("canonical", x, kernel, static)


@pytest.mark.parametrize("num", [5, 8, 16, 21, 100])  # one block, the last one full or not
@pytest.mark.parametrize("block_pixels", [1, 1000])
def test_the_size_of_the_blocks_does_not_matter(monkeypatch, block_pixels, num):
    monkeypatch.setattr(conv, "BLOCK_PIXELS", block_pixels)
    x, kernel, static = case(5, 3, 2, 1, 4, 6, 2, num)
    check("canonical", x, kernel, static)


@pytest.mark.parametrize("shape", [SHAPES[i] for i in (2, 10, 13)])
def test_the_height_of_the_bands_does_not_matter(monkeypatch, shape):
    """Bands of one row, of strides that leave rows of the image unmet too."""
    monkeypatch.setattr(conv, "_band_rows", lambda gradient, channels: 1)
    check("canonical", *case(*shape))


def test_bands_are_of_many_channels_and_divide_the_rows():
    rows = lambda side, channels: conv._band_rows(jnp.zeros((1, side, side, 1)), channels)  # noqa: E731
    assert [rows(32, 16), rows(32, 32), rows(16, 64), rows(8, 128), rows(30, 32)] == [32, 4, 8, 8, 3]
    assert rows(31, 32) == rows(500, 32) == 1


@pytest.mark.parametrize("side, features, stride", [(5, 16, (1, 2)), (5, 17, (1, 1)), (4, 16, (1, 1))])
def test_two_columns_at_once_of_few_features_and_an_even_width(side, features, stride):
    """The width is side + 1; the values are those of the library in any case."""
    x, kernel, static = case(side, 3, 1, 1, 4, features, 1)
    check("canonical", x, kernel, static)
    (found,) = convolutions(jax.make_jaxpr(of("canonical", static))(x, kernel).jaxpr)
    assert found["window_strides"] == stride


@pytest.mark.parametrize("dimension", ["forward", "gradients"])
def test_convolutions_of_a_loop_have_canonical_dimension_numbers(dimension):
    """Others take XLA's slow way in a loop on a CPU: [B,h,w,c] x [k,k,c_in,c_out], no dilated image, one
    group, none of batches."""
    x, kernel, static = case(9, 3, 2, 1, 4, 6, 1, 20)
    function = of("canonical", static)
    if dimension == "gradients":
        function = jax.grad(lambda x, kernel: jnp.sum(of("canonical", static)(x, kernel) ** 2), (0, 1))
    found = list(convolutions(jax.make_jaxpr(function)(x, kernel).jaxpr))
    assert len(found) == {"forward": 1, "gradients": 1 + 4 + 1}[dimension]  # 4: of stride 2 x 2
    for parameters in found:
        numbers = parameters["dimension_numbers"]
        assert numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2) and numbers.rhs_spec == (3, 2, 0, 1)
        assert parameters["lhs_dilation"] == (1, 1) and parameters["batch_group_count"] == 1


def convolutions(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.params
        for inner in jaxprs_in_params(equation.params):
            yield from convolutions(inner)


def test_a_convolution_against_one_counted_by_hand():
    # ones, 3 x 3 of ones: the number of pixels under the kernel, 4 in the corners, 6 at the edges, 9 inside
    found = conv.convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)), 1, 1)
    np.testing.assert_array_equal(found[0, :, :, 0], [[4, 6, 4], [6, 9, 6], [4, 6, 4]])


@pytest.mark.parametrize("mapped", [(0, 0), (None, 0), (0, None)])
def test_mapped_over_runs(mapped):
    """As one run after another, whatever is the runs' own: no grouped convolution."""
    x, kernel, static = case(8, 3, 2, 1, 5, 7, 1)
    loss = lambda x, kernel: jnp.sum(of("canonical", static)(x, kernel) ** 2)  # noqa: E731
    gradients = jax.jit(jax.grad(loss, (0, 1)))
    stacked = [jnp.stack([a, 2 * a]) if axis == 0 else a for a, axis in zip((x, kernel), mapped, strict=True)]
    found = jax.jit(jax.vmap(gradients, mapped))(*stacked)
    for run in range(2):
        own = [a[run] if axis == 0 else a for a, axis in zip(stacked, mapped, strict=True)]
        jax.tree.map(
            lambda f, e, run=run: np.testing.assert_allclose(f[run], e, rtol=1e-4, atol=1e-3),
            found,
            gradients(*own),
        )
    jaxpr = jax.make_jaxpr(jax.vmap(gradients, mapped))(*stacked).jaxpr
    assert {parameters["feature_group_count"] for parameters in convolutions(jaxpr)} == {1}


def test_the_way_is_chosen_by_the_platform_the_size_and_the_groups():
    assert conv.preferred_way("cpu", 3, 16, 1) == conv.preferred_way("cpu", 3, 16, 4) == "canonical"
    assert conv.preferred_way("cpu", 3, 1, 1) == conv.preferred_way("cpu", 1, 16, 4) == "canonical"
    assert conv.preferred_way("cpu", 3, 16, 16) == conv.preferred_way("cpu", 1, 16, 1) == "products"
    assert conv.preferred_way("gpu", 3, 16, 1) == conv.preferred_way("tpu", 1, 16, 1) == "library"


def test_groups_do_not_see_each_other():
    x, kernel, static = case(8, 3, 1, 1, 8, 8, 2)
    expected = jnp.concatenate(
        [conv.by_library(x[..., c : c + 4], kernel[..., c : c + 4], 1, 1) for c in (0, 4)], -1
    )
    np.testing.assert_allclose(conv.convolve(x, kernel, *static), expected, rtol=1e-5, atol=2e-5)


def test_products_of_what_has_none():
    x, kernel, static = case(8, 3, 1, 1, 4, 4, 1)
    with pytest.raises(ValueError, match="no products"):
        conv.by_products(x, kernel, *static)


def test_parameters_look_the_same_whichever_way(monkeypatch):
    layer, x = conv.Conv(7, stride=2, use_bias=True), jnp.ones((2, 8, 8, 5))
    found = jax.jit(layer.init)(jax.random.key(0), x)
    monkeypatch.setattr(conv, "preferred_way", lambda *_: "library")
    conv.convolve.clear_cache()  # or the way of before would be found
    expected = jax.jit(layer.init)(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, found) == {"params": {"kernel": (3, 3, 5, 7), "bias": (7,)}}
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    conv.convolve.clear_cache()


def test_gradients_in_half_precision_are_summed_in_single(monkeypatch):
    """Of 512 images, 8 a block: sums of many numbers in bfloat16 (8 bits) would be off by a percent."""
    monkeypatch.setattr(conv, "BLOCK_PIXELS", 1)
    x, kernel, static = case(8, 3, 1, 1, 4, 4, 1, num=512)
    x, kernel = abs(x), abs(kernel)
    loss = lambda kernel, way, dtype: jnp.sum(  # noqa: E731
        way(x.astype(dtype), kernel.astype(dtype), *static).astype(jnp.float32)
    )
    gradient = jax.jit(jax.grad(loss), static_argnums=(1, 2))
    exact = gradient(kernel, conv.by_canonical, jnp.float32)
    found = gradient(kernel, conv.by_canonical, jnp.bfloat16)
    np.testing.assert_allclose(found, exact, rtol=5e-3)
