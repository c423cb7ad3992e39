"""Jitter against NumPy's own shift."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from kd_jax.augment import jitter

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
