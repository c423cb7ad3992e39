"""Layers that the families share, where Flax has none or only a slow one.

Left out: what Flax has as it is wanted (Dense, the initialisers).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from kd_jax.models.conv import Conv
from kd_jax.models.split_batch import num_parts, of_whole_batch, sum_over_parts

EPSILON = 1e-5  # of batch normalisation, as in PyTorch, whose weights may be loaded

HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Normal of variance 2 / (k k c_out): He et al. 2015 for the backward pass, as the ResNet code has it."""


def dropout_units(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Inverted dropout: zero with probability `rate`, else x / (1 - rate) (Srivastava et al. 2014).

    Random bits are a visible share of a dense network's step on a CPU, so none is wasted: each threefry block
    gives 64 bits (jax.random keeps 32 of them) and decides four units; the rate is rounded to 1/65536.

    key: consumed; x: of any shape and float type, and so is what returns; rate: in [0, 1).
    """

    def draw(shape):
        size = math.prod(shape)
        words = threefry_2x32(jax.random.key_data(key), jnp.arange(-(-size // 4) * 2, dtype=jnp.uint32))
        return jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size].reshape(shape)

    bits = of_whole_batch(draw, x)
    keep = bits >= jnp.uint16(min(round(rate * 65536), 65535))
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def drop(module: Any, x: jax.Array, train: bool) -> jax.Array:
    """Dropout in training, of a module that says how much."""
    return dropout_units(module.make_rng("dropout"), x, module.dropout) if train and module.dropout else x


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, then scale and bias (Ioffe & Szegedy 2015).

    In training mode by the batch's mean and (biased) variance, which the running averages follow, keeping 0.9
    of what they were; else by the running averages. Parameters and statistics are float32 whatever the dtype,
    and named as Flax names them. Flax's own layer takes twice as many passes over memory on a CPU.
    The variance is the mean of squares less the square of the mean, as Flax's is: of activations whose mean
    is a thousand times their deviation nothing would be left in float32.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        """[B,...,c] -> [B,...,c]."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not train:
            return _affine(x, *_coefficients(mean.value, variance.value, scale, bias)).astype(self.dtype)
        y, batch_mean, batch_variance = normalize(x, scale, bias)
        if not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * batch_mean
            variance.value = 0.9 * variance.value + 0.1 * batch_variance
        return y.astype(self.dtype)


def _coefficients(mean, variance, scale, bias):
    """(a, b) such that a x + b is x normalised, scaled and shifted; each [c]."""
    factor = scale * jax.lax.rsqrt(variance + EPSILON)
    return factor, bias - mean * factor


def _affine(x, factor, offset):
    shape = (1,) * (x.ndim - 1) + (-1,)
    return x.astype(jnp.float32) * factor.reshape(shape) + offset.reshape(shape)


@jax.custom_vjp
def normalize(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(y f32 like x, mean f32[c], variance f32[c]) of a batch x [B,...,c]. No gradient flows into the
    statistics that are returned: they are for the running averages. Of a batch that is split over devices
    they are those of the whole batch."""
    axes = tuple(range(x.ndim - 1))
    num = num_parts() * x.size // x.shape[-1]
    single = x.astype(jnp.float32)
    total, squares = sum_over_parts((jnp.sum(single, axes), jnp.sum(single * single, axes)))
    mean = total / num
    variance = jnp.maximum(squares / num - mean * mean, 0)
    return _affine(x, *_coefficients(mean, variance, scale, bias)), mean, variance


def _normalize_forward(x, scale, bias):
    y, mean, variance = normalize(x, scale, bias)
    return (y, mean, variance), (x, scale, mean, variance)


def _normalize_backward(saved, gradients):
    """With z = (x - mean) / s, y = scale z + bias and n values a channel:
    dx = scale/s (dy - sum(dy)/n - z sum(dy z)/n), a sum of multiples of dy, x and 1: one pass over memory,
    after another for the two sums. Of a split batch the sums in dx are over all parts; the gradients of scale
    and bias are of this part, as those of all other parameters."""
    x, scale, mean, variance = saved
    dy = gradients[0]
    axes, num = tuple(range(x.ndim - 1)), num_parts() * x.size // x.shape[-1]
    single = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    of_bias = jnp.sum(dy, axes)
    of_scale = inverse * (jnp.sum(dy * single, axes) - mean * of_bias)
    factor = scale * inverse
    total_of_scale, total_of_bias = sum_over_parts((of_scale, of_bias))
    of_x = -factor * inverse * total_of_scale / num
    offset = -factor * total_of_bias / num - of_x * mean
    dx = _affine(dy, factor, offset) + single * of_x.reshape((1,) * (x.ndim - 1) + (-1,))
    return dx.astype(x.dtype), of_scale, of_bias


normalize.defvjp(_normalize_forward, _normalize_backward)


def batch_norm(train: bool, dtype: Any, name: str):
    """x -> `BatchNorm` of x, in training mode or not."""
    return lambda x: BatchNorm(dtype, name=name)(x, train)


def conv_norm(
    x: jax.Array, features: int, train: bool, name: str, activate: bool = True, init=HE_FAN_OUT, **options
) -> jax.Array:
    """Convolution without bias ("<name>_conv"), batch normalisation ("<name>_norm"), ReLU unless told.

    options: of Conv, dtype among them.  [B,h,w,c_in] -> [B,h',w',features].
    """
    x = Conv(features, kernel_init=init, name=f"{name}_conv", **options)(x)
    x = batch_norm(train, x.dtype, f"{name}_norm")(x)
    return nn.relu(x) if activate else x


def classifier(module: Any, x: jax.Array, train: bool, **options) -> jax.Array:
    """The dense layer "logits" of a module that says num_classes, dropout and dtype; its input is dropped
    out in training.  [B,D] -> f32[B,K]."""
    dense = nn.Dense(module.num_classes, dtype=module.dtype, name="logits", **options)
    return dense(drop(module, x, train)).astype(jnp.float32)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """2x2 max pooling with stride 2; an odd last row or column is left out.  [B,h,w,c] -> [B,h//2,w//2,c].

    By maxima of two: the gradient of a maximum over axes compares `x` with the maximum for equality. Where
    XLA computes `x` a second time, to another rounding, nothing is equal and the gradient is 0/0.
    The gradient of XLA's window reduction is far slower on a CPU.
    """
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    rows = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, 0::2], rows[:, :, 1::2])


def max_pool_3(x: jax.Array) -> jax.Array:
    """3x3 max pooling with stride 2, nothing (-inf) around the image.

    [B,h,w,c] -> [B,ceil(h/2),ceil(w/2),c].
    One axis after the other, as maxima of shifted slices: the same numbers as XLA's window reduction, whose
    gradient takes three times as long on a CPU.
    """
    for axis in (1, 2):
        padding = [(0, 0)] * x.ndim
        padding[axis] = (1, 1)
        padded = jnp.pad(x, padding, constant_values=-jnp.inf)
        last = 2 * (-(-x.shape[axis] // 2)) - 1
        left, middle, right = (
            jax.lax.slice_in_dim(padded, i, i + last, stride=2, axis=axis) for i in range(3)
        )
        x = jnp.maximum(jnp.maximum(left, middle), right)
    return x
