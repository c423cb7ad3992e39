"""Jitter against NumPy's own shift, warp against SciPy's interpolation, mixup's shares against its Beta."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.stats import beta, chi2, kstest

from kd_jax.train.augment import (
    Chain,
    Cutout,
    RandomAffine,
    RandomFlip,
    RandomTranslate,
    mix,
    mixup_lambdas,
    mixup_partner,
)
from kd_jax.train.sweep import QUICK_COMPILE

IMAGES = np.random.RandomState(0).randint(1, 256, size=(500, 5, 6, 2)).astype(np.uint8)  # no zero anywhere


def shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """images u8[B,h,w,c] moved by whole pixels; zeros come in."""
    _, h, w, _ = images.shape
    out = np.zeros_like(images)
    out[:, max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = images[
        :, max(-down, 0) : h + min(-down, 0), max(-right, 0) : w + min(-right, 0)
    ]
    return out


@pytest.mark.parametrize("pixels", [1, 2])
def test_each_image_moves_by_its_own_shift(pixels):
    """Each result is the image under exactly one of the (2p+1)^2 shifts; all of them occur, equally often."""
    out = np.asarray(RandomTranslate(pixels)(jax.random.key(pixels), jnp.asarray(IMAGES)))
    assert out.shape == IMAGES.shape and out.dtype == np.uint8
    span = range(-pixels, pixels + 1)
    hits = np.array(
        [np.all(out == shifted(IMAGES, down, right), axis=(1, 2, 3)) for down in span for right in span]
    )
    assert np.all(hits.sum(axis=0) == 1)
    expected = 500 / len(hits)
    assert np.sum((hits.sum(axis=1) - expected) ** 2 / expected) < chi2.ppf(0.999, len(hits) - 1)


def test_no_pixels_no_change():
    np.testing.assert_array_equal(RandomTranslate(0)(jax.random.key(0), jnp.asarray(IMAGES)), IMAGES)


def test_another_key_moves_otherwise():
    one, other = (
        np.asarray(RandomTranslate(2)(jax.random.key(seed), jnp.asarray(IMAGES))) for seed in (0, 1)
    )
    same = np.all(one == other, axis=(1, 2, 3)).mean()
    assert 0 < same < 0.1  # 1/25 by chance


def warped(image: np.ndarray, draws: np.ndarray, pixels: float, degrees: float, stretch: float) -> np.ndarray:
    """One image f64[h,w] by SciPy: bilinear, zeros outside. Pixel p comes from the centre + shift + scale *
    R(p - centre); draws are angle, down, right and the two scales, each in -1..1."""
    angle, shift = np.deg2rad(degrees * draws[0]), pixels * draws[1:3]
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (np.array(image.shape) - 1) / 2
    offsets = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), axis=-1) - centre
    source = (offsets @ rotation.T) * (1 + stretch * draws[3:5]) + shift + centre
    return map_coordinates(image, np.moveaxis(source, -1, 0), order=1, mode="grid-constant", cval=0)


# pixels, degrees, stretch
WARPS = {
    "none": (0, 0, 0),
    "shift": (1.7, 0, 0),
    "turn": (0, 40, 0),
    "stretch": (0, 0, 0.3),
    "all": (9, 180, 0.5),
}


@pytest.mark.parametrize("options", WARPS.values(), ids=WARPS)
def test_warp_is_scipys(options):
    """With the draws that the key gives; right to the rounding to whole grey levels."""
    images = IMAGES[:30]
    out = np.asarray(jax.jit(RandomAffine(*options))(jax.random.key(0), images))
    assert out.shape == images.shape and out.dtype == np.uint8
    draws = np.asarray(jax.random.uniform(jax.random.key(0), (5, 30), jnp.float32, -1, 1), np.float64)
    for i, image in enumerate(np.float64(images)):
        exact = np.stack([warped(image[:, :, c], draws[:, i], *options) for c in range(2)], axis=-1)
        np.testing.assert_allclose(out[i], exact, atol=0.51)
    if not any(options):
        np.testing.assert_array_equal(out, images)


def test_half_of_the_images_are_mirrored():
    """Each is itself or its mirror image; of 500, 250 to within four standard deviations, 4 sqrt(500) / 2."""
    out = np.asarray(RandomFlip()(jax.random.key(0), jnp.asarray(IMAGES)))
    assert out.dtype == np.uint8
    mirrored = np.all(out == IMAGES[:, :, ::-1], axis=(1, 2, 3))
    np.testing.assert_array_equal(out[~mirrored], IMAGES[~mirrored])
    assert abs(mirrored.sum() - 250) < 45


def covered(height: int, width: int, centre: tuple[int, int], side: int) -> np.ndarray:
    """bool[h,w]: pixels of the square that starts side // 2 above and left of the centre, clipped."""
    mask = np.zeros((height, width), bool)
    top, num_shots = (c - side // 2 for c in centre)
    mask[max(top, 0) : max(top + side, 0), max(num_shots, 0) : max(num_shots + side, 0)] = True
    return mask


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_cutout_covers_one_square(side):
    """Of 5 x 6 images: each result is the image under one of the 30 squares, all of them as often. In the
    interior that is side^2 pixels; with its centre in the corner, ceil(side / 2)^2."""
    squares = np.array([covered(5, 6, (y, x), side) for y in range(5) for x in range(6)])
    assert squares[0].sum() == ((side + 1) // 2) ** 2
    assert squares.sum(axis=(1, 2)).max() == side**2
    out = np.asarray(Cutout(side, (0, 0))(jax.random.key(side), jnp.asarray(IMAGES)))
    assert out.dtype == np.uint8
    gone = np.all(out == 0, axis=-1)  # no pixel was 0
    np.testing.assert_array_equal(out[~gone], IMAGES[~gone])
    hits = np.array([np.all(gone == square, axis=(1, 2)) for square in squares])
    assert np.all(hits.any(axis=0))
    if side < 5:  # else several centres cover the same pixels
        expected = 500 / 30
        assert np.sum((hits.sum(axis=1) - expected) ** 2 / expected) < chi2.ppf(0.999, 29)


def test_cutout_fills_each_channel_with_its_own_level():
    out = np.asarray(Cutout(2, (7, 250))(jax.random.key(0), jnp.asarray(IMAGES)))
    gone = np.any(out != IMAGES, axis=-1)
    assert gone.any() and np.all(out[gone] == [7, 250])


STAGES = RandomTranslate(2), RandomFlip(), Cutout(2, (9, 9))


@pytest.mark.parametrize("function", [RandomFlip(), Cutout(2, (0, 0))])
@pytest.mark.parametrize("num", [1, 7])
def test_what_an_example_draws_does_not_depend_on_the_others(function, num):
    """The first `num` of 500 images alone, and beside other images."""
    key, images = jax.random.key(0), jnp.asarray(IMAGES)
    whole = np.asarray(function(key, images))
    np.testing.assert_array_equal(function(key, images[:num]), whole[:num])
    np.testing.assert_array_equal(function(key, images.at[num:].set(1))[:num], whole[:num])


SHARES = jax.jit(mixup_lambdas, static_argnums=1, compiler_options=QUICK_COMPILE)


def test_shares_of_examples_do_not_depend_on_the_batch():
    key = jax.random.key(0)
    few, many = (SHARES(key, num, jnp.float32(0.3)) for num in (7, 2000))
    np.testing.assert_array_equal(few, many[:7])


@pytest.mark.parametrize("concentration", [0.001, 0.2, 1.0, 4.0, 1000.0])
def test_shares_follow_the_beta_distribution(concentration):
    """Mean 1/2 and variance 1 / (4 (2 a + 1)), each to within five standard errors; and all quantiles."""
    num = 2000
    shares = np.float64(SHARES(jax.random.key(0), num, jnp.float32(concentration)))
    assert np.all((shares >= 0) & (shares <= 1))
    variance = 1 / (4 * (2 * concentration + 1))
    assert abs(shares.mean() - 0.5) < 5 * np.sqrt(variance / num)
    fourth = beta(concentration, concentration).stats(moments="k") + 3
    assert abs(shares.var() / variance - 1) < 5 * np.sqrt((fourth - 1) / num)
    if concentration >= 0.2:  # below, most shares round to 0 or 1
        assert kstest(shares, beta(concentration, concentration).cdf).pvalue > 1e-3


def test_mixtures_by_hand():
    """Example i and its partner i + 1, the last one's being the first."""
    x = np.float32(IMAGES[:4]) / 255
    shares = np.float32([0, 1, 0.25, 0.5])
    out = np.asarray(mix(jnp.asarray(shares), jnp.asarray(x)))
    np.testing.assert_array_equal(out[0], x[1])
    np.testing.assert_array_equal(out[1], x[1])
    np.testing.assert_allclose(out[2], 0.25 * x[2] + 0.75 * x[3], rtol=1e-6)
    np.testing.assert_allclose(out[3], (x[3] + x[0]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(mixup_partner(jnp.arange(4)), [1, 2, 3, 0])


@pytest.mark.parametrize("num", [1, 2, 7])
def test_a_chain_is_its_stages_in_turn(num):
    """In batches of any size, mapped over runs or not; each stage has a key of its own."""
    images = jnp.asarray(IMAGES[:num])

    def by_hand(key):
        out = images
        for i, stage in enumerate(STAGES):
            out = stage(jax.random.fold_in(key, i), out)
        return out

    keys = jax.random.split(jax.random.key(0), 2)
    quick = partial(jax.jit, compiler_options=QUICK_COMPILE)
    chained, by_hand = quick(jax.vmap(lambda key: Chain(STAGES)(key, images))), quick(by_hand)
    for out, key in zip(chained(keys), keys, strict=True):
        expected = by_hand(key)
        assert expected.dtype == jnp.uint8 and np.any(expected != images)
        np.testing.assert_array_equal(out, expected)
