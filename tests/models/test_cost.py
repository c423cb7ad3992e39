"""Costs against numbers derived by hand and against XLA's own count."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from kd_jax import models
from kd_jax.models import conv, cost

IMAGE = (8, 6, 3)


class Convolutions(nn.Module):
    """3 x 3, stride 1, padded, 4 channels; 3 x 3, stride 2, in two groups, 6 channels; 1 x 1, 5 channels; the
    mean; 7 logits."""

    @nn.compact
    def __call__(self, images, train: bool):
        x = nn.relu(nn.Conv(4, (3, 3))(images))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Conv(6, (3, 3), 2, feature_group_count=2, use_bias=False)(x)
        x = nn.Conv(5, (1, 1))(x)
        return nn.Dense(7)(jnp.mean(x, axis=(1, 2))), {}


def shapes_of(model):
    return jax.eval_shape(lambda key: models.init_variables(model, key, IMAGE), jax.random.key(0))


def flops_of(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return cost.count_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_a_dense_network_by_hand():
    """mlp-5-4 on 8 x 6 x 3 = 144 numbers: products of 144 x 5, 5 x 4 and 4 x 10, which are 720 + 20 + 40 =
    780 multiply-adds and as many weights; with 5 + 4 + 10 biases 799 parameters of 4 bytes."""
    model = models.build("mlp-5-4", 10)
    variables = shapes_of(model)
    assert cost.forward_flops(model, variables, IMAGE) == 2 * 780
    assert cost.num_parameters(variables) == 799
    assert cost.num_bytes(variables) == 4 * 799


def test_the_paper_pair_by_hand():
    """784-1200-1200-10: 784 x 1200 + 1200 x 1200 + 1200 x 10 = 2,392,800 multiply-adds."""
    model = models.build("mlp-1200-1200", 10)
    init = lambda key: models.init_variables(model, key, (28, 28, 1))  # noqa: E731
    variables = jax.eval_shape(init, jax.random.key(0))
    assert cost.forward_flops(model, variables, (28, 28, 1)) == 2 * 2_392_800
    assert cost.num_parameters(variables) == 2_392_800 + 2410


def test_a_convolutional_network_by_hand():
    """Outputs x window x channels of the group: 8 x 6 x 4 outputs x 9 x 3 = 5184; stride 2 leaves 4 x 3 x 6
    outputs, each of 9 x 2: 1296; 4 x 3 x 5 outputs of 6: 360; and 5 x 7 = 35.
    Parameters: 9 x 3 x 4 + 4, scale and offset of 4 channels, 9 x 2 x 6, 6 x 5 + 5, 5 x 7 + 7; besides them,
    means and variances of 4 channels."""
    model = Convolutions()
    variables = shapes_of(model)
    assert cost.forward_flops(model, variables, IMAGE) == 2 * (5184 + 1296 + 360 + 35)
    assert cost.num_parameters(variables) == 112 + 8 + 108 + 35 + 42
    assert cost.num_bytes(variables) == 4 * (305 + 8)


@pytest.mark.parametrize("model", [models.build("mlp-64-32", 10), nn.Conv(16, (5, 5), padding="VALID")])
def test_xla_counts_the_same_and_a_few_more(model):
    """It also counts what is done to each number: an addition of a bias, a comparison with 0."""
    if isinstance(model, nn.Conv):
        function, shape = lambda x: model.apply(variables, x), (1, *IMAGE)
        variables = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), jnp.zeros(shape)))
    else:
        function, shape = lambda x: models.forward(model, variables, x)[0], (1, *IMAGE)
        variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes_of(model))
    ours = flops_of(function, shape)
    xla = jax.jit(function).lower(jax.ShapeDtypeStruct(shape, jnp.float32)).cost_analysis()["flops"]
    assert ours <= xla <= 1.05 * ours


def test_a_convolution_by_matrix_products_counts_the_same():
    """Nine shifted slices, each times its own 3 x 4 matrix: as much as the 3 x 3 convolution."""

    def shifted(images, kernel):
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        slices = [padded[:, i : i + 8, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3)]
        return sum(slices)

    def library(images, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    shapes = ((1, *IMAGE), (3, 3, 3, 4))
    assert flops_of(shifted, *shapes) == flops_of(library, *shapes) == 2 * 8 * 6 * 9 * 3 * 4


@pytest.mark.parametrize("way", ["library", "canonical"])
@pytest.mark.parametrize("groups, stride, expected", [(1, 1, 192), (4, 1, 48), (1, 2, 48)])
def test_a_convolution_counts_its_definition_however_it_is_computed(
    monkeypatch, way, groups, stride, expected
):
    """8 x 6 outputs (4 x 3 at stride 2) of 4 channels, 192 (48) each of a window of 3 x 3 x 4, or of
    3 x 3 x 1 where depthwise: in `expected`, divided by 9 x 4."""
    monkeypatch.setattr(conv, "preferred_way", lambda *_: way)
    conv.convolve.clear_cache()  # or the way of another test would be found
    layer = conv.Conv(4, stride=stride, groups=groups)
    image = jnp.zeros((1, 8, 6, 4))
    variables = layer.init(jax.random.key(0), image)
    jaxpr = jax.make_jaxpr(lambda x: layer.apply(variables, x))(image).jaxpr
    assert cost.count_flops(jaxpr) == 2 * expected * 9 * 4
    several = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), variables)
    jaxpr = jax.make_jaxpr(jax.vmap(lambda one: layer.apply(one, image)))(several).jaxpr
    assert cost.count_flops(jaxpr) == 5 * 2 * expected * 9 * 4
    conv.convolve.clear_cache()


@jax.custom_vjp
def own_gradient(x, y):
    return x @ y


own_gradient.defvjp(lambda x, y: (x @ y, (x, y)), lambda seen, g: (g @ seen[1].T, seen[0].T @ g))


def test_what_is_inside_calls_loops_and_branches():
    """x @ x of 2 x 2 is 8 multiply-adds, 16 operations."""
    square = lambda x: x @ x  # noqa: E731
    one = (2, 2)
    assert flops_of(jax.jit(square), one) == 16
    assert flops_of(jax.checkpoint(square), one) == 16
    assert flops_of(jax.vmap(square), (5, *one)) == 5 * 16
    assert flops_of(lambda xs: jax.lax.map(jax.jit(square), xs), (5, *one)) == 5 * 16
    assert flops_of(lambda x: own_gradient(x, x), one) == 16
    both = lambda x: jax.lax.cond(x[0, 0] > 0, square, lambda x: square(square(x)), x)  # noqa: E731
    assert flops_of(both, one) == 32
    assert flops_of(lambda x: jax.lax.fori_loop(0, 3, lambda _, x: square(x), x), one) == 48


def test_a_loop_of_unknown_length():
    until = lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x)  # noqa: E731
    with pytest.raises(ValueError, match="unknown length"):
        flops_of(until, (2, 2))
    assert flops_of(lambda x: jax.lax.while_loop(lambda x: x[0] < 9, lambda x: 2 * x, x), (2,)) == 0
