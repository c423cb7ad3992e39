"""The convolutional families: published sizes, features by name, forms, layers by independent reference."""

import contextlib
import functools
import importlib
import re
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.models.layers import max_pool_3
from kd_jax.models.shufflenet import shuffle
from kd_jax.models.vgg import average_to
from kd_jax.train.sweep import QUICK_COMPILE


def shapes_of(spec: str, num_classes: int, image_shape=(32, 32, 3)):
    init = functools.partial(models.init_variables, models.build(spec, num_classes), image_shape=image_shape)
    return jax.eval_shape(init, jax.random.key(0))


def size_of(spec: str, num_classes: int, image_shape=(32, 32, 3)) -> int:
    """Number of parameters, running statistics excluded; nothing is computed."""
    leaves = jax.tree.leaves(shapes_of(spec, num_classes, image_shape)["params"])
    return sum(leaf.size for leaf in leaves)


def conv(fan_in: int, fan_out: int, size: int = 3) -> int:
    """A convolution without bias and its batch normalisation."""
    return size * size * fan_in * fan_out + 2 * fan_out


def cifar_resnet(depth: int, stem: int, widths: tuple[int, ...], num_classes: int, channels: int = 3) -> int:
    """A stem; in each stage n blocks of two 3x3 convolutions, a 1x1 projection where the width changes or
    the image halves; the classifier."""
    total, before = conv(channels, stem), stem
    for i, width in enumerate(widths):
        total += conv(before, width) + (2 * ((depth - 2) // 6) - 1) * conv(width, width)
        total += conv(before, width, 1) if i > 0 or before != width else 0
        before = width
    return total + (before + 1) * num_classes


def wide_resnet(depth: int, factor: int, num_classes: int) -> int:
    """Normalisation before each convolution (so 2 x its inputs), bare 1x1 projections, one at the end."""
    total, before = 9 * 3 * 16, 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        total += 2 * before + 9 * before * width + (before * width if before != width else 0)
        total += (2 * ((depth - 4) // 6) - 1) * (2 * width + 9 * width * width)
        before = width
    return total + 2 * before + (before + 1) * num_classes


def resnet_164(num_classes: int) -> int:
    """18 bottlenecks a stage, a quarter of the width inside."""
    total, before = 9 * 3 * 16, 16
    for width in (64, 128, 256):
        inside = width // 4
        for _ in range(18):
            total += 2 * before + before * inside + 2 * inside + 9 * inside**2 + 2 * inside + inside * width
            total += before * width if before != width else 0
            before = width
    return total + 2 * before + (before + 1) * num_classes


def vgg(convolutions: tuple[int, ...], num_classes: int, normalized: bool) -> int:
    """3x3 convolutions with biases, and one dense layer."""
    total, before = 0, 3
    for width, num in zip((64, 128, 256, 512, 512), convolutions, strict=True):
        for _ in range(num):
            total += 9 * before * width + width + 2 * width * normalized
            before = width
    return total + 513 * num_classes


X4, PLAIN = (32, (64, 128, 256)), (16, (16, 32, 64))


@pytest.mark.parametrize(
    "spec, num_classes, derived, published",
    [
        ("resnet-8", 100, cifar_resnet(8, *PLAIN, 100), 0.08),
        ("resnet-14", 100, cifar_resnet(14, *PLAIN, 100), 0.18),
        ("resnet-20", 10, cifar_resnet(20, *PLAIN, 10), 0.27),
        ("resnet-32", 100, cifar_resnet(32, *PLAIN, 100), 0.47),
        ("resnet-44", 10, cifar_resnet(44, *PLAIN, 10), 0.66),
        ("resnet-56", 100, cifar_resnet(56, *PLAIN, 100), 0.86),
        ("resnet-110", 100, cifar_resnet(110, *PLAIN, 100), 1.74),
        ("resnet-110", 10, cifar_resnet(110, *PLAIN, 10), 1.73),
        ("resnet-8x4", 100, cifar_resnet(8, *X4, 100), 1.23),
        ("resnet-32x4", 100, cifar_resnet(32, *X4, 100), 7.43),
        ("resnet-164", 10, resnet_164(10), 1.70),
        ("wrn-40-2", 100, wide_resnet(40, 2, 100), 2.26),
        ("wrn-16-2", 100, wide_resnet(16, 2, 100), 0.70),
        ("wrn-16-1", 100, wide_resnet(16, 1, 100), 0.18),
        ("wrn-28-10", 10, wide_resnet(28, 10, 10), 36.48),
        ("wrn-28-10", 100, wide_resnet(28, 10, 100), 36.54),
        ("vgg-8-bn", 100, vgg((1, 1, 1, 1, 1), 100, True), 3.97),
        ("vgg-13-bn", 100, vgg((2, 2, 2, 2, 2), 100, True), 9.46),
        ("vgg-16-bn", 100, vgg((2, 2, 3, 3, 3), 100, True), 14.77),
        ("vgg-8", 100, vgg((1, 1, 1, 1, 1), 100, False), 3.96),
    ],
)
def test_sizes_for_cifar(spec, num_classes, derived, published):
    """Published: millions of parameters, in the papers or in the distillation literature's tables."""
    assert size_of(spec, num_classes) == derived
    assert round(derived / 1e6, 2) == published


@pytest.mark.parametrize(
    "spec, published",
    [
        ("resnet-18", 11_689_512),
        ("resnet-34", 21_797_672),
        ("resnet-50", 25_557_032),
        ("vgg-13-imagenet", 133_047_848),
        ("vgg-16-imagenet", 138_357_544),
        ("vgg-16-bn-imagenet", 138_365_992),
        ("shufflenet-x0.5", 1_366_792),
        ("shufflenet-x1.0", 2_278_604),
    ],
)
def test_sizes_for_imagenet(spec, published):
    """As torchvision's documentation says; test_pretrained.py counts its modules where it is installed."""
    assert size_of(spec, 1000, (224, 224, 3)) == published


def test_another_stem_another_classifier_another_image():
    """A 3x3 stem has (49 - 9) x 3 x 64 fewer than a 7x7 one; of a gray image the stem has a third."""
    assert size_of("resnet-18", 1000) - size_of("resnet-18-cifar", 1000) == 40 * 3 * 64
    assert size_of("resnet-50", 1000) - size_of("resnet-50", 10) == 990 * (2048 + 1)
    assert size_of("resnet-20", 10) - size_of("resnet-20", 10, (28, 28, 1)) == 9 * 2 * 16
    assert size_of("shufflenet-x0.5-cifar", 7) == size_of("shufflenet-x0.5", 7)
    for spec in ("vgg-16-bn", "wrn-16-2", "resnet-8x4"):
        assert size_of(spec, 3) == size_of(spec, 3, (64, 64, 3))


# What distinguishes the forms, on small images: spec -> (image shape, {feature: shape after the batch axis})
FORMS = {
    "resnet-18": ((33, 33, 3), [(9, 9, 64), (5, 5, 128), (3, 3, 256), (2, 2, 512), (512,)]),
    "resnet-18-cifar": ((8, 8, 1), [(8, 8, 64), (4, 4, 128), (2, 2, 256), (1, 1, 512), (512,)]),
    "resnet-50": ((32, 32, 3), [(8, 8, 256), (4, 4, 512), (2, 2, 1024), (1, 1, 2048), (2048,)]),
    "resnet-8x4": ((9, 9, 3), [(9, 9, 64), (5, 5, 128), (3, 3, 256), (256,)]),
    "resnet-164": ((4, 4, 1), [(4, 4, 64), (2, 2, 128), (1, 1, 256), (256,)]),
    "wrn-10-1": ((4, 4, 3), [(4, 4, 16), (2, 2, 32), (1, 1, 64), (64,)]),
    "vgg-8": ((28, 28, 1), [(28, 28, 64), (14, 14, 128), (7, 7, 256), (3, 3, 512), (3, 3, 512), (512,)]),
    "vgg-8-bn": ((4, 4, 3), [(4, 4, 64), (2, 2, 128), (1, 1, 256), (1, 1, 512), (1, 1, 512), (512,)]),
    "vgg-13": ((64, 64, 3), [(64, 64, 64), (32, 32, 128), (16, 16, 256), (8, 8, 512), (4, 4, 512), (512,)]),
    "vgg-16-imagenet": (
        (32, 32, 3),
        [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512), (2, 2, 512), (25088,), (4096,), (4096,)],
    ),
    "shufflenet-x0.5": ((32, 32, 3), [(4, 4, 48), (2, 2, 96), (1, 1, 192), (1024,)]),
    "shufflenet-x1.0-cifar": ((8, 8, 1), [(4, 4, 116), (2, 2, 232), (1, 1, 464), (1024,)]),
}


@pytest.mark.parametrize("spec", FORMS)
def test_features_of_each_form(spec):
    """In the order in which they are computed; the last one is what the classifier sees."""
    image_shape, shapes = FORMS[spec]
    model, variables, names = models.build(spec, 5), shapes_of(spec, 5, image_shape), []

    def apply(variables):
        logits, features, model_state = models.forward(model, variables, jnp.zeros((2, *image_shape)))
        names.extend(features)
        return logits, features, model_state

    logits, features, model_state = jax.eval_shape(apply, variables)
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    assert [features[name].shape for name in names] == [(2, *shape) for shape in shapes]
    num_dense = sum(name.startswith("dense") for name in names)
    stages = [f"stage_{i}" for i in range(len(names) - 1 - num_dense)]
    assert names == [*stages, "pooled", *(f"dense_{i}" for i in range(num_dense))]
    assert set(model_state) == set(variables) - {"params"}
    assert ("batch_stats" in variables) == (not spec.startswith("vgg") or "bn" in spec)
    assert variables["params"]["logits"]["kernel"].shape == (*shapes[-1], 5)


# Small enough to run, one of each class.
RUN = ["resnet-8", "wrn-10-1", "vgg-8-bn", "shufflenet-x0.5-cifar"]
IMAGES = np.random.RandomState(0).rand(6, 8, 8, 1).astype(np.float32)


def few_units(spec: str):
    """ShuffleNet with four units instead of sixteen."""
    module = importlib.import_module("kd_jax.models.shufflenet")
    shortened = mock.patch.object(module, "BLOCKS", (1, 2, 1))
    return shortened if spec.startswith("shufflenet") else contextlib.nullcontext()


@functools.cache
def initialised(spec: str, seed: int = 0):
    init = functools.partial(models.init_variables, models.build(spec, 3), image_shape=IMAGES.shape[1:])
    with few_units(spec):
        return jax.jit(init, compiler_options=QUICK_COMPILE)(jax.random.key(seed))


@functools.cache
def outcomes(spec: str):
    """Evaluation, with unused dropout, training, head alone without and with dropout, bfloat16."""

    def run(variables):
        plain = models.build(spec, 3)
        dropping = models.build(spec, 3, dropout=0.5)
        key = jax.random.key(1)
        return (
            models.forward(plain, variables, IMAGES),
            models.forward(dropping, variables, IMAGES),
            models.forward(dropping, variables, IMAGES, jax.random.clone(key)),
            models.forward_head(plain, variables, IMAGES, jax.random.clone(key)),
            models.forward_head(dropping, variables, IMAGES, jax.random.clone(key)),
            models.forward(models.build(spec, 3, precision="bfloat16"), variables, IMAGES),
        )

    with few_units(spec):
        return jax.jit(run, compiler_options=QUICK_COMPILE)(initialised(spec))


@pytest.mark.parametrize("spec", RUN)
def test_modes(spec):
    variables = initialised(spec)
    evaluation, silent, training, head, dropping_head, half = outcomes(spec)
    np.testing.assert_array_equal(evaluation[0], silent[0])  # evaluation drops nothing
    # Training normalises by the batch and drops: other logits, other running statistics.
    assert np.all(np.abs(training[0] - evaluation[0]).max(axis=-1) > 1e-4)
    changed = jax.tree.map(lambda new, old: bool(np.any(new != old)), training[2], evaluation[2])
    assert all(jax.tree.leaves(changed)) and jax.tree.leaves(changed)
    # The head alone in training: but for dropout nothing differs from evaluation; statistics stay.
    np.testing.assert_allclose(head[0], evaluation[0], rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(dropping_head[0] - evaluation[0]).max(axis=-1) > 1e-4)
    for state in (evaluation[2], head[2], dropping_head[2]):
        jax.tree.map(np.testing.assert_array_equal, state, {"batch_stats": variables["batch_stats"]})
    # Eight bits of mantissa.
    exact = np.asarray(evaluation[0])
    assert half[0].dtype == jnp.float32
    assert 0 < np.abs(half[0] - exact).max() / np.abs(exact).max() < 0.05


def test_dropout_of_the_dense_head():
    """Of VGG's ImageNet form: after each dense ReLU, not on the image's features. Kernels of the dense layers
    are 0 and their biases 1, so that the logits are the mean of what two masks of rate 1/2 leave of 1s."""
    model = models.vgg("", ["13", "imagenet"], 1, dropout=0.5)
    model = model.copy(convolutions=(1, 1, 1, 1, 1), dense=(16, 256))
    variables = shapes_of_module(model)
    variables["params"]["dense_0"] = {"kernel": jnp.zeros((25088, 16)), "bias": jnp.ones(16)}
    variables["params"]["dense_1"] = {"kernel": jnp.eye(16, 256), "bias": jnp.zeros(256)}
    variables["params"]["logits"] = {"kernel": jnp.ones((256, 1)), "bias": jnp.zeros(1)}
    run = jax.jit(lambda key: models.forward(model, variables, jnp.zeros((300, 2, 2, 1)), key)[:2])
    logits, features = run(jax.random.key(0))
    assert set(np.unique(features["dense_0"])) == {1.0}
    assert set(np.unique(features["dense_1"])) == {0.0, 2.0}
    assert set(np.unique(logits)) <= {4.0 * k for k in range(17)}
    assert abs(np.mean(logits) / 4 - 16 / 4) < 0.5  # 16 units, each kept by both masks with probability 1/4


def shapes_of_module(model):
    """Its variables, all 0, for 2x2 gray images."""
    shapes = jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0), (2, 2, 1)))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)


def test_wide_residual_networks_drop_between_the_convolutions():
    """With the last convolution of every block 0, a block is its shortcut: dropout then changes nothing."""
    variables = initialised("wrn-10-1")
    blocked = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0 if path[-2].key == "layer_1_conv" else leaf, variables
    )
    model = models.build("wrn-10-1", 3, dropout=0.5)
    run = jax.jit(lambda variables, key: models.forward(model, variables, IMAGES, key)[0])
    one, other = (run(blocked, jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    one, other = (run(variables, jax.random.key(seed)) for seed in (0, 1))
    assert np.any(one != other)


@pytest.mark.parametrize("spec", RUN)
def test_initialisation(spec):
    """Convolutions are He normal by fan out, 2 / (k k c_out) (ShuffleNet: by fan in); normalisation starts as
    the identity, in the last of a block too."""
    for (*modules, name), leaf in leaves_of(initialised(spec)["params"]):
        if modules[-1].endswith("conv") and name == "kernel":
            size, _, fan_in, fan_out = leaf.shape
            variance = 2 / (size * size * (fan_in if spec.startswith("shufflenet") else fan_out))
            # The sample variance of n normals has a relative standard deviation of sqrt(2 / n).
            assert abs(leaf.var() / variance - 1) < 5 * np.sqrt(2 / leaf.size), modules
        elif modules[-1].endswith(("conv", "norm")):
            np.testing.assert_array_equal(leaf, float(name == "scale"))


def leaves_of(tree):
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [([entry.key for entry in path], np.asarray(leaf)) for path, leaf in flat]


@pytest.mark.parametrize("size", [(1, 2), (7, 16)])
def test_max_pooling_by_the_library(size):
    """Flax's, the same window and padding; the gradient too, where no two pixels are equal."""
    x = np.random.RandomState(0).randn(2, *size, 3).astype(np.float32) - 9

    def library(x):
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    @jax.jit
    def both(x):
        squares = lambda pool: lambda x: jnp.sum(pool(x) ** 2)  # noqa: E731
        return [(pool(x), jax.grad(squares(pool))(x)) for pool in (max_pool_3, library)]

    (ours, our_gradient), (theirs, their_gradient) = both(x)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(our_gradient, their_gradient, rtol=1e-6)


def test_adaptive_averages():
    """3 -> 2: rows 0-1 and 1-2; 2 -> 3: rows 0, 0-1, 1; by hand. Equal sizes: as it is."""
    x = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(average_to(x, 2)[0, :, 0, 0], [0.5, 1.5])
    np.testing.assert_allclose(average_to(x[:, :2], 3)[0, :, 0, 0], [0, 0.5, 1])
    x = np.random.RandomState(0).rand(2, 14, 7, 3).astype(np.float32)
    np.testing.assert_allclose(average_to(x, 7), x.reshape(2, 7, 2, 7, 3).mean(2), rtol=1e-6)
    np.testing.assert_array_equal(average_to(x[:, :7], 7), x[:, :7])


def test_shuffle_takes_from_the_halves_in_turn():
    x = jnp.arange(6).reshape(1, 1, 1, 6)
    assert shuffle(x).ravel().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    "spec",
    [
        "resnet",
        "resnet-19",
        "resnet-18-imagenet",
        "resnet-20-cifar",
        "resnet-8x2",
        "resnet-164-cifar",
        "wrn",
        "wrn-40",
        "wrn-40-0",
        "wrn-4-2",
        "wrn-41-2",
        "wrn-40-2-1",
        "vgg",
        "vgg-11",
        "vgg-8-imagenet",
        "vgg-16-imagenet-bn",
        "shufflenet",
        "shufflenet-x2.0",
        "shufflenet-x0.5-bn",
    ],
)
def test_a_bad_spec_is_refused_in_one_line(spec):
    with pytest.raises(InputError) as caught:
        models.build(spec, 3)
    message = str(caught.value)
    assert "\n" not in message and "expected" in message
    assert re.search(rf"; given {re.escape(spec)}( \(did you mean .+\?\))?\Z", message)
    assert spec.split("-")[0] + "-" in message.split("given")[0]


def test_no_dropout_of_inputs():
    with pytest.raises(InputError, match="dropout of inputs"):
        models.build("resnet-20", 3, input_dropout=0.2)
