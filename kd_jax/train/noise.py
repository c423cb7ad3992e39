"""Images drawn from a key instead of read from a dataset: what students can be taught on without any data.

Each is (key, shape (B,h,w,c)) -> u8[B,h,w,c], drawn anew at every step, so nothing is stored; the key is
consumed. Bytes, as all images here are: 256 levels look uniform enough, and one word of threefry gives four.

Generators that are trained are in generator.py.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

Noise = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Every grey level alike (Cloud et al. 2025, section 6.2: uniform on [-1, 1] once scaled)."""
    size = math.prod(shape)
    # jax.random.bits would spend a whole block of 64 bits on each byte.
    words = threefry_2x32(jax.random.key_data(key), jnp.arange(-(-size // 8) * 2, dtype=jnp.uint32))
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(shape)


def gaussian(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal around mid-grey, deviation 1/4 of the range; the 5 % beyond black and white are clipped."""
    return _to_bytes(0.5 + 0.25 * jax.random.normal(key, shape, jnp.float32))


def dark(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal, with the mean 0.1307 and the deviation 0.3081 of MNIST's pixels: what N(0, 1) is where images
    are normalised by these numbers. A third of it is clipped to black."""
    return _to_bytes(0.1307 + 0.3081 * jax.random.normal(key, shape, jnp.float32))


def blurred(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Smooth noise around mid-grey, deviation 1/2 of the range: clipped, a third of it is black or white."""
    return _to_bytes(0.5 + 0.5 * _smooth(key, shape))


def blobs(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Bright blobs as large as strokes on black: smooth noise, black up to 0.8 deviations (four fifths of it)
    and white from 1.47 on. Written digits are about as dark."""
    return _to_bytes(1.5 * (_smooth(key, shape) - 0.8))


def _smooth(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """f32[B,h,w,c], nearly normal, mean 0, deviation 1: uniform noise averaged over windows of 5 x 5 pixels
    (the border wraps around)."""
    x = uniform(key, shape).astype(jnp.float32) / 255 - 0.5
    for axis in (1, 2):
        x = sum((jnp.roll(x, shift, axis) for shift in (-2, -1, 1, 2)), x)
    # The sum of 25 independent uniform numbers has the variance 25/12.
    return x * (12 / 25) ** 0.5


def _to_bytes(x: jax.Array) -> jax.Array:
    return jnp.round(255 * jnp.clip(x, 0, 1)).astype(jnp.uint8)


NOISES: dict[str, Noise] = {
    "uniform_noise": uniform,
    "gaussian_noise": gaussian,
    "dark_noise": dark,
    "blurred_noise": blurred,
    "blob_noise": blobs,
}
