"""Images drawn from a key: their bytes, moments, and that a batch's draws are its key's alone."""

import jax
import numpy as np
import pytest

from kd_jax.train.noise import NOISES, blobs, blurred, dark, gaussian, uniform

SHAPE = (64, 28, 28, 3)


def draw(noise, key=0, shape=SHAPE):
    return np.asarray(jax.jit(noise, static_argnums=1)(jax.random.key(key), shape))


@pytest.mark.parametrize("name", NOISES)
def test_bytes_that_the_key_alone_decides(name):
    noise = NOISES[name]
    first = draw(noise)
    assert first.dtype == np.uint8 and first.shape == SHAPE
    np.testing.assert_array_equal(first, draw(noise))
    assert abs(np.corrcoef(first.ravel(), draw(noise, key=1).ravel())[0, 1]) < 0.05
    assert draw(noise, shape=(1, 3, 3, 1)).shape == (1, 3, 3, 1)
    assert len(np.unique(first.reshape(64, -1), axis=0)) == 64


def test_uniform_noise_is_uniform_and_independent():
    x = draw(uniform).ravel()
    counts = np.bincount(x, minlength=256)
    # Pearson's chi squared of 255 degrees of freedom: mean 255, deviation sqrt(510).
    statistic = np.sum((counts - x.size / 256) ** 2) / (x.size / 256)
    assert abs(statistic - 255) < 5 * np.sqrt(510)
    for lag in (1, 2, 3, 4, 8, 28 * 3):
        assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 5 / np.sqrt(x.size)


def test_gaussian_noise_has_the_moments_of_its_clipped_normal():
    x = draw(gaussian) / 255
    # A normal of deviation 1/4 around 1/2, clipped two deviations away: variance s^2 (1 - 2 (phi(2) * 2 -
    # (4 - 1) Q(2))) = 0.0625 * (1 - 2 (0.10798 - 3 * 0.02275)) = 0.0575.
    assert x.mean() == pytest.approx(0.5, abs=0.002) and x.var() == pytest.approx(0.0575, abs=0.001)
    assert np.mean(x == 0) == pytest.approx(0.0228, abs=0.002)


def test_dark_noise_has_the_mean_and_the_black_of_its_clipped_normal():
    """With r = 0.1307 / 0.3081 = 0.4242: mean 0.1307 Phi(r) + 0.3081 phi(r) = 0.1991, less 0.0002 for what is
    clipped at white; black is Phi(-r + 0.5 / 255 / 0.3081) = 0.338 of it."""
    x = draw(dark) / 255
    assert x.mean() == pytest.approx(0.1989, abs=0.002)
    assert np.mean(x == 0) == pytest.approx(0.338, abs=0.005)


def test_blurred_noise_is_smooth():
    x = draw(blurred).astype(float)
    neighbours = np.corrcoef(x[:, :, :-1].ravel(), x[:, :, 1:].ravel())[0, 1]
    far = np.corrcoef(x[:, :, :-7].ravel(), x[:, :, 7:].ravel())[0, 1]
    # Before clipping, windows of 5 pixels one apart share 4/5 of their numbers, windows 7 apart none.
    assert 0.7 < neighbours < 0.85 and abs(far) < 0.05
    assert 0.25 < (x == 0).mean() + (x == 255).mean() < 0.4  # beyond one deviation: 0.317


def test_blobs_are_the_tail_of_a_smooth_normal():
    x = draw(blobs)
    # Phi(0.8) = 0.788 and 1 - Phi(0.8 + 1 / 1.5) = 0.071; rounding moves each by 1/2 of 255.
    assert np.mean(x == 0) == pytest.approx(0.788, abs=0.01) and np.mean(x == 255) == pytest.approx(
        0.071, abs=0.01
    )
    lit = draw(blobs) > 0
    assert np.mean(lit[:, :, :-1] & lit[:, :, 1:]) > 0.6 * lit.mean()  # alone, a neighbour is lit in a fifth
