"""Layers that the families share, where Flax has none or only a slow one.

Left out: what Flax has as it is wanted (Dense, the initialisers).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32


def drop(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Inverted dropout: zero with probability `rate`, else x / (1 - rate) (Srivastava et al. 2014).

    Random bits are a visible share of a dense network's step on a CPU, so none is wasted: each threefry block
    gives 64 bits (jax.random keeps 32 of them) and decides four units; the rate is rounded to 1/65536.
    """
    words = threefry_2x32(jax.random.key_data(key), jnp.arange(-(-x.size // 4) * 2, dtype=jnp.uint32))
    bits = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size].reshape(x.shape)
    keep = bits >= jnp.uint16(min(round(rate * 65536), 65535))
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def batch_norm(train: bool, dtype: Any, name: str, **options) -> nn.BatchNorm:
    """Batch normalisation as PyTorch has it: epsilon 1e-5, running averages that keep 0.9 (Ioffe & Szegedy
    2015). The statistics are float32 whatever the dtype; each run has its own."""
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name, **options
    )


def halve(x: jax.Array) -> jax.Array:
    """2x2 max pooling with stride 2; an odd last row or column is left out.  [B,h,w,c] -> [B,h//2,w//2,c].

    By a reshape: the gradient of XLA's window reduction is far slower on a CPU.
    """
    height, width = x.shape[1] // 2, x.shape[2] // 2
    return _blocks(x[:, : 2 * height, : 2 * width], 2).max((2, 4))


def average(x: jax.Array, size: int) -> jax.Array:
    """size x size average pooling with that stride.  [B,h,w,c] -> [B,h//size,w//size,c]."""
    height, width = x.shape[1] // size, x.shape[2] // size
    return _blocks(x[:, : size * height, : size * width], size).mean((2, 4))


def _blocks(x: jax.Array, size: int) -> jax.Array:
    num, height, width, channels = x.shape
    return x.reshape(num, height // size, size, width // size, size, channels)
