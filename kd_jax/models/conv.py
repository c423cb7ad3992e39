"""Convolution, and the one place that decides how it is computed.

All ways give the same numbers (to rounding), and the parameters look the same: kernel
f32[k,k,c_in/groups,c_out].

Training lives in compiled loops. In one, XLA's convolution on a CPU is a hundred times too slow, unless its
dimension numbers are the canonical ones, NHWC x HWIO -> NHWC: the pass that rewrites others for the fast
kernel sees the entry computation alone. What automatic differentiation makes of a convolution has others. So
the gradients are written here as canonical convolutions too. That kernel runs on all threads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

LANES = 8
"""Images of a block are a multiple of this: floats of a vector register of 256 bits."""

BLOCK_PIXELS = 64 * LANES
"""At least as many pixels of gradients are in a block: the kernel's gradient sums over them, and a sum that
is longer costs less for each of its terms."""

BAND_PIXELS = 128 * LANES
"""At most as many pixels of LANES images are summed over at once, where there are 32 channels or more."""

MOST_WIDENED = 16
"""At most as many features are computed two columns at once. Two runs on two cores of an AMD EPYC (AVX-512),
one column -> two: GFLOP/s of 3 x 3 kernels, 16 channels at 32 x 32 85 -> 114, 32 at 16 x 16 155 -> 116;
training of resnet-20 428 -> 475 images/s."""


def preferred_way(platform: str, size: int, channels: int, groups: int) -> str:
    """The fastest of WAYS for a kernel of size x size pixels.

    platform: as jax.default_backend() names it. On one core of an AMD EPYC (AVX-512), forward and both
    gradients, in GFLOP per CPU second, `canonical` against matrix products of shifted images, which are
    gone: 3 x 3 kernels of 32, 64, 128 and 256 channels 69 to 53, 82 to 62, 89 to 66, 92 to 67; of 16
    channels 39 to 43; of stride 2 61 to 67. Kernels of one pixel: `products` 19 to 12 and more. The part
    `convolutions` of the benchmark measures all ways of a device. Elsewhere than on CPUs nothing is
    measured yet, so XLA's own is taken.
    """
    if platform != "cpu":
        return "library"
    pointwise, depthwise = size == 1 and groups == 1, groups == channels > 1
    return "products" if pointwise or depthwise else "canonical"


@partial(
    jax.jit, static_argnums=(2, 3, 4)
)  # a call in the traced program, by which kd_jax/models/cost.py knows it
def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """Cross-correlation of images with zeros around them, as neural networks mean convolution.

    Args: x: [B,h,w,c_in]; kernel: [k,k,c_in/groups,c_out]; padding: zeros on every side.
    Returns: [B,h',w',c_out] with h' = (h + 2 padding - k) // stride + 1.
    """
    way = preferred_way(jax.default_backend(), len(kernel), x.shape[-1], groups)
    return WAYS[way](x, kernel, stride, padding, groups)


def _canonical(x, kernel, strides, paddings, groups=1, dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        paddings,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def by_library(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """`convolve`, shapes as there, as XLA's own convolution, with the gradients that JAX derives."""
    return _canonical(x, kernel, (stride, stride), ((padding, padding),) * 2, groups)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def by_canonical(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """`convolve`, shapes as there, as XLA's own convolution, with gradients that are canonical as well.

    Computed in float32 at least: XLA has no fast kernel for less. Mapped over runs, it is one convolution a
    run: all in one would be a grouped one.
    """
    paddings = ((padding, padding),) * 2
    return _in_single(partial(_widened, stride=stride, paddings=paddings, groups=groups))(x, kernel)


def _widened(x, kernel, stride: int, paddings, groups: int):
    """`_canonical`; of few features, two columns of the output at once, as twice as many features of a kernel
    that is a column wider: (k + 1) / k as many products, and half as many pixels whose inputs are gathered.
    """
    features = kernel.shape[-1]
    width = x.shape[2] + sum(paddings[1]) - kernel.shape[1] + 1
    if stride > 1 or groups > 1 or features > MOST_WIDENED or width % 2:
        return _canonical(x, kernel, (stride, stride), paddings, groups)
    shifted = [jnp.pad(kernel, ((0, 0), columns, (0, 0), (0, 0))) for columns in ((0, 1), (1, 0))]
    out = _canonical(x, jnp.concatenate(shifted, -1), (1, 2), paddings)
    return out.reshape(*out.shape[:2], width, features)


def _in_single(function):
    """`function` of two arrays, of the dtype of the first, computed in float32 at least; one after another
    where mapped over runs."""

    @sequential_vmap
    def computed(a, b):
        dtype = a.dtype if a.dtype.itemsize >= 4 else jnp.float32
        return function(a.astype(dtype), b.astype(dtype)).astype(a.dtype)

    return computed


def _forward(x, kernel, stride, padding, groups):
    return by_canonical(x, kernel, stride, padding, groups), (x, kernel)


def _backward(stride, padding, groups, saved, gradient):
    x, kernel = saved
    options = {"stride": stride, "padding": padding, "groups": groups}
    of_image = partial(_image_gradient, sides=x.shape[1:3], **options)
    of_kernel = partial(_kernel_gradient, size=len(kernel), **options)
    return _in_single(of_image)(gradient, kernel), _in_single(of_kernel)(x, gradient).astype(kernel.dtype)


by_canonical.defvjp(_forward, _backward)


def _image_gradient(gradient, kernel, sides, stride: int, padding: int, groups: int):
    """dx[u] = sum of dy[v] kernel[i] over i and v with u + padding = stride v + i, and so for the columns.

    So the u of one phase, u mod stride, meet every stride-th row of the kernel: each of the stride x stride
    phases is a convolution of dy with its part of the kernel, flipped and with its channels exchanged.
    """
    size, features = max(len(kernel), stride), kernel.shape[-1]
    kernel = jnp.pad(kernel, ((0, size - len(kernel)),) * 2 + ((0, 0),) * 2)  # a row at least for each phase
    kernel = kernel.reshape(*kernel.shape[:3], groups, features // groups).transpose(0, 1, 4, 3, 2)
    flipped = jnp.flip(kernel.reshape(size, size, features // groups, -1), (0, 1))

    def phases(side: int, out: int):
        """Of one axis: (rows of the flipped kernel, padding of dy)."""
        for phase in range(stride):
            of_phase = slice((size - 1 - phase - padding) % stride, None, stride)
            count, offset = len(range(size)[of_phase]), (phase + padding) // stride
            yield of_phase, (count - 1 - offset, -(-side // stride) + offset - out)

    rows, columns = (list(phases(*axis)) for axis in zip(sides, gradient.shape[1:3], strict=True))
    parts = [
        [_widened(gradient, flipped[i, j], 1, (above, left), groups) for j, left in columns]
        for i, above in rows
    ]
    woven = jnp.stack([jnp.stack(row, 3) for row in parts], 2)  # [B,h/stride,stride,w/stride,stride,c_in]
    num, height, _, width, _, channels = woven.shape
    return woven.reshape(num, height * stride, width * stride, channels)[:, : sides[0], : sides[1]]


def _kernel_gradient(x, gradient, size: int, stride: int, padding: int, groups: int):
    """dkernel[i] = sum over images and v of x[stride v + i - padding] dy[v]: a convolution of x with dy. Its
    channels are the images, a block of them at a time, and its images are the channels of x."""
    side, rows = gradient.shape[1], _band_rows(gradient, x.shape[-1] // groups)
    reach = [(out - 1) * stride + size - padding for out in gradient.shape[1:3]]
    above_and_below, around = [
        (padding, reach - side) for reach, side in zip(reach, x.shape[1:3], strict=True)
    ]

    def of_band(x, gradient):
        """Of rows that have what is above and below them already."""
        num, *sides, channels = x.shape
        x = x.reshape(num, *sides, groups, channels // groups).transpose(4, 1, 2, 3, 0)
        x = x.reshape(channels // groups, *sides, groups * num)
        kernel = gradient.transpose(1, 2, 0, 3)
        out = _canonical(x, kernel, (1, 1), [(0, 0), around], groups, dilation=stride)
        return out.transpose(1, 2, 0, 3)

    def of_block(x, gradient):
        zero = jnp.zeros((), x.dtype)
        x = jax.lax.pad(x, zero, [(0, 0, 0), (*above_and_below, 0), (0, 0, 0), (0, 0, 0)])
        if rows == side:
            return of_band(x, gradient)

        def add_band(total, first):
            part = jax.lax.dynamic_slice_in_dim(x, first * stride, (rows - 1) * stride + size, 1)
            return total + of_band(part, jax.lax.dynamic_slice_in_dim(gradient, first, rows, 1)), None

        return jax.lax.scan(add_band, zeros, jnp.arange(0, side, rows, dtype=jnp.int32))[0]

    zeros = jnp.zeros((size, size, x.shape[-1] // groups, gradient.shape[-1]), x.dtype)
    num, pixels = len(x), gradient.shape[1] * gradient.shape[2]
    most = LANES * -(-BLOCK_PIXELS // (LANES * pixels))
    num_blocks = -(-num // most)
    each = LANES * -(-num // (LANES * num_blocks))
    if num_blocks * each > num:  # images of zeros fill the blocks
        x, gradient = (jnp.pad(a, ((0, num_blocks * each - num), *((0, 0),) * 3)) for a in (x, gradient))
    blocks = [a.reshape(num_blocks, each, *a.shape[1:]) for a in (x, gradient)]
    if num_blocks == 1:
        return of_block(*(a[0] for a in blocks))
    return jax.lax.scan(lambda total, block: (total + of_block(*block), None), zeros, blocks)[0]


def _band_rows(gradient, channels: int) -> int:
    """Rows of the gradient in one sum of `_kernel_gradient`, a divisor of all: few enough that LANES images
    of them stay in a core's cache.

    Measured once, of this gradient alone, on one core of an AMD EPYC (AVX2, 512 KiB of second-level cache);
    the part `convolutions` of the benchmark measures it with the rest. GFLOP/s with 1, 2, 4 and 8 bands: 32
    channels at 32 x 32 35, 40, 47, 51; at 16 x 16 35, 51, 52, 47; 64 channels at 16 x 16 38, 56, 39, 37; 16
    channels at 32 x 32 40, 36, 35, 25; 128 channels at 8 x 8 54, 41.
    """
    _, height, width, _ = gradient.shape
    if channels < 32:
        return height
    most = max(1, BAND_PIXELS // (LANES * width))
    return max(rows for rows in range(1, height + 1) if height % rows == 0 and (rows <= most or rows == 1))


def by_products(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """`convolve`, shapes as there, of kernels of one pixel as a matrix product, and of depthwise ones (groups
    = c_in) as elementwise products. ValueError: of others."""
    if groups == x.shape[-1] > 1:
        return _depthwise(x, kernel, stride, padding)
    if len(kernel) > 1 or groups > 1:
        raise ValueError(f"no products for a kernel of {kernel.shape} in {groups} groups")
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))[:, ::stride, ::stride]
    return _product(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:3], -1)


@jax.custom_vjp
def _product(a, b):
    return a @ b


def _product_backward(saved, gradient):
    """To contract the long axis of both factors, a CPU is faster with one of them transposed first."""
    a, b = saved
    return gradient @ b.T, jax.lax.optimization_barrier(a.T) @ gradient


_product.defvjp(lambda a, b: (a @ b, (a, b)), _product_backward)


def _out_size(size: int, kernel_size: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel_size) // stride + 1


def _depthwise(x, kernel, stride, padding):
    """Each channel with its own k x k weights: k x k shifted slices, multiplied and summed."""
    size = kernel.shape[0]
    rows, columns = (_out_size(side, size, stride, padding) for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    weights = kernel[:, :, 0][:, :, None, None, None]
    total = None
    for i in range(size):
        for j in range(size):
            part = x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
            part = jnp.repeat(part, kernel.shape[-1] // x.shape[-1], axis=-1) * weights[i, j]
            total = part if total is None else total + part
    return total


WAYS: dict[str, Callable[..., jax.Array]] = {
    "library": by_library,
    "canonical": by_canonical,
    "products": by_products,
}


class Conv(nn.Module):
    """A k x k convolution.

    features: c_out. size: k. padding: zeros on every side; None: k // 2, which keeps h and w at stride 1.
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
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)
