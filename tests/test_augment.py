"""Jitter against NumPy's own shift, warp against SciPy's interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.stats import chi2

from kd_jax.augment import jitter, warp

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
    out = np.asarray(jitter(jax.random.key(pixels), jnp.asarray(IMAGES), pixels))
    assert out.shape == IMAGES.shape and out.dtype == np.uint8
    span = range(-pixels, pixels + 1)
    hits = np.array(
        [np.all(out == shifted(IMAGES, down, right), axis=(1, 2, 3)) for down in span for right in span]
    )
    assert np.all(hits.sum(axis=0) == 1)
    expected = 500 / len(hits)
    assert np.sum((hits.sum(axis=1) - expected) ** 2 / expected) < chi2.ppf(0.999, len(hits) - 1)


def test_no_pixels_no_change():
    np.testing.assert_array_equal(jitter(jax.random.key(0), jnp.asarray(IMAGES), 0), IMAGES)


def test_another_key_moves_otherwise():
    one, other = (np.asarray(jitter(jax.random.key(seed), jnp.asarray(IMAGES), 2)) for seed in (0, 1))
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
    out = np.asarray(jax.jit(lambda key, images: warp(key, images, *options))(jax.random.key(0), images))
    assert out.shape == images.shape and out.dtype == np.uint8
    draws = np.asarray(jax.random.uniform(jax.random.key(0), (5, 30), jnp.float32, -1, 1), np.float64)
    for i, image in enumerate(np.float64(images)):
        exact = np.stack([warped(image[:, :, c], draws[:, i], *options) for c in range(2)], axis=-1)
        np.testing.assert_allclose(out[i], exact, atol=0.51)
    if not any(options):
        np.testing.assert_array_equal(out, images)
