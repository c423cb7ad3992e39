"""Convolution, and the one place that decides how it is computed: by XLA's own or as matrix products.

Both give the same numbers (to rounding), and the parameters look the same: kernel f32[k,k,c_in/groups,c_out].
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def library(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    """XLA's convolution.  x [B,h,w,c_in], kernel [k,k,c_in/groups,c_out] -> [B,h',w',c_out]."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    """Cross-correlation, zeros around the image, as neural networks mean it."""
    return library(x, kernel, stride, padding, groups)


class Conv(nn.Module):
    """A k x k convolution.

    features: c_out. size: k, or padding that keeps h and w where None at stride 1: k // 2 on every side.
    groups: c_in and c_out are split into as many parts that do not see each other (c_in: depthwise).
    dtype: of the products; parameters are float32.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x):
        """x [B,h,w,c_in] -> [B,h',w',c_out]."""
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        padding = self.size // 2 if self.padding is None else self.padding
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding, self.groups)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y
