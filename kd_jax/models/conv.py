"""Convolution, and the one place that decides how it is computed: by XLA's own, or as matrix products.

Both give the same numbers (to rounding), and the parameters look the same: kernel f32[k,k,c_in/groups,c_out].

XLA's convolution is a hundred times too slow inside a compiled loop on a CPU, where training lives. As matrix
products it is fast there, if little memory is moved: the columns of the kernel are gathered on the way in
(k copies of the image, side by side), its rows are summed on the way out (k shifted slices of one product),
so that nothing is copied k x k times; and a few images are done at a time, so that the copies stay in a
cache.

Left out: Winograd's transforms (faster from 256 channels only, where measured) and grouped convolutions
other than depthwise ones as products.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

BLOCK_BYTES = 400_000
"""About as much as the copies of a block of images may take: they, the product and its gradient share a
core's second-level cache (1 to 2 MiB)."""

LARGE_KERNEL = 8
"""How many times an image's copies a kernel must be for the whole batch to be done at once."""


def prefers_products(platform: str, groups: int, channels: int) -> bool:
    """Whether matrix products are the faster way.

    platform: as jax.default_backend() names it. On CPUs they were for every size, stride and number of
    channels measured (the part `convolutions` of the benchmark, experiments/results/benchmark/pictures/);
    elsewhere not measured yet, so XLA's own is taken. groups: 1, or as many as channels (depthwise): others
    have no form as products here.
    """
    return platform == "cpu" and groups in (1, channels)


@partial(
    jax.jit, static_argnums=(2, 3, 4)
)  # a call in the traced program, by which kd_jax/models/cost.py knows it
def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """Cross-correlation of images with zeros around them, as neural networks mean convolution.

    Args: x: [B,h,w,c_in]; kernel: [k,k,c_in/groups,c_out]; padding: zeros on every side.
    Returns: [B,h',w',c_out] with h' = (h + 2 padding - k) // stride + 1.
    """
    if prefers_products(jax.default_backend(), groups, x.shape[-1]):
        return by_products(x, kernel, stride, padding, groups)
    return by_library(x, kernel, stride, padding, groups)


def by_library(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """`convolve`, shapes as there, as XLA's own convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def by_products(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """`convolve`, shapes as there, as matrix products, or as elementwise ones where depthwise."""
    if groups > 1:
        return _depthwise(x, kernel, stride, padding)
    _, height, width, channels = x.shape
    image_bytes = height * width * kernel.shape[0] * max(channels, kernel.shape[-1]) * 4 // stride
    if kernel.shape[0] == 1 or kernel.size * 4 >= LARGE_KERNEL * image_bytes:
        return _whole_batch(x, kernel, stride, padding)
    return _in_blocks(stride, padding, max(1, BLOCK_BYTES // image_bytes))(x, kernel)


def _whole_batch(x, kernel, stride, padding):
    """One product with all that each output pixel meets, for kernels of one pixel, and where a kernel is so
    much larger than an image that reading it for every block costs more than k x k copies of the images."""
    size, _, channels, features = kernel.shape
    rows, columns = (_out_size(side, size, stride, padding) for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    met = [_gather(x, size, stride, i, rows, columns, 1) for i in range(size)]
    gathered = jnp.concatenate(met, -1).reshape(-1, size * size * channels)
    return _product(gathered, kernel.reshape(-1, features)).reshape(-1, rows, columns, features)


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


def _every(x, axis: int, start: int, stride: int, count: int):
    """`count` elements along an axis, from `start`, every `stride`-th."""
    return jax.lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)


def _gather(x, size: int, stride: int, phase: int, lines: int, columns: int, axis: int):
    """The k columns that each output pixel meets, side by side along the axis of the channels.

    x: a padded image whose rows and columns are the axes `axis` and `axis` + 1. Of its rows, those of one
    phase: `lines` from `phase`, every `stride`-th.
    """
    of_phase = _every(x, axis, phase, stride, lines)
    channels = 3 if axis == 1 else 0
    return jnp.concatenate([_every(of_phase, axis + 1, j, stride, columns) for j in range(size)], channels)


def _products(x, kernel, stride, padding):
    """y[h,w] = sum over kernel rows i of (the k columns at w of image row s h + i) @ kernel[i].

    The image rows that kernel row i meets are those of phase i mod s, so each of the s phases is one product,
    with the kernel rows of that phase side by side; stride 1 has the one phase.
    """
    size, _, channels, features = kernel.shape
    rows, columns = (_out_size(side, size, stride, padding) for side in x.shape[1:3])
    x = _padded(x, stride, padding)
    total = None
    for phase in range(min(stride, size)):
        of_phase = kernel[phase::stride]
        count = of_phase.shape[0]
        lines = rows + count - 1
        gathered = _gather(x, size, stride, phase, lines, columns, 1).reshape(-1, size * channels)
        weights = of_phase.transpose(1, 2, 0, 3).reshape(size * channels, count * features)
        out = (gathered @ weights).reshape(-1, lines, columns, count * features)
        for i in range(count):
            part = out[:, i : i + rows, :, i * features : (i + 1) * features]
            total = part if total is None else total + part
    return total


def _padded(x, stride: int, padding: int):
    """Zeros around [B,h,w,c]; below, also for the last row of a phase, which is gathered though not met."""
    return jnp.pad(x, ((0, 0), (padding, padding + stride - 1), (padding, padding), (0, 0)))


def _image_gradient(x, kernel, gradient, stride: int, padding: int):
    size = kernel.shape[0]
    if stride == 1 and padding < size:  # a convolution again, of the gradient with the turned kernel
        turned = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
        return _products(gradient, turned, 1, size - 1 - padding)
    return jax.linear_transpose(lambda x: _products(x, kernel, stride, padding), x)(gradient)[0]


def _kernel_gradient(x, shape, gradient, stride: int, padding: int):
    """The products of `_products` from the other side. They contract the long axis (images, rows, columns) of
    both factors, for which a CPU wants one of them transposed: the image, before its columns are gathered."""
    size, _, channels, features = shape
    rows, columns = gradient.shape[1:3]
    x = jax.lax.optimization_barrier(_padded(x, stride, padding).transpose(3, 0, 1, 2))
    phases = []
    for phase in range(min(stride, size)):
        count = -(-(size - phase) // stride)
        lines = rows + count - 1
        gathered = _gather(x, size, stride, phase, lines, columns, 2).reshape(size * channels, -1)
        # Kernel row i of the phase meets the lines from i on.
        framed = jnp.pad(gradient, ((0, 0), (count - 1, count - 1), (0, 0), (0, 0)))
        framed = jax.lax.optimization_barrier(framed)
        slices = [framed[:, count - 1 - i : count - 1 - i + lines] for i in range(count)]
        shifted = jnp.concatenate(slices, -1).reshape(-1, count * features)
        phases.append((gathered @ shifted).reshape(size, channels, count, features).transpose(2, 0, 1, 3))
    # Row `phase + n stride` of the kernel is row n of its phase.
    rows_in_order = [phases[i % stride][i // stride] for i in range(size)]
    return jnp.stack(rows_in_order)


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


def _in_blocks(stride: int, padding: int, size: int):
    """`_products` of (images, kernel), about `size` images at a time, forward and backward."""

    def split(x):
        most = min(size, len(x))
        each = next(n for n in range(most, 0, -1) if len(x) % n == 0)
        if 2 * each < most:  # B has no such divisor: images of zeros fill the last block
            each = most
            x = jnp.pad(x, ((0, -len(x) % each), *((0, 0),) * 3))
        return x.reshape(-1, each, *x.shape[1:])

    def join(blocks, num):
        return blocks.reshape(-1, *blocks.shape[2:])[:num]

    @jax.custom_vjp
    def mapped(x, kernel):
        return join(jax.lax.map(lambda block: _products(block, kernel, stride, padding), split(x)), len(x))

    def backward(saved, gradient):
        x, kernel = saved

        def one_block(total, block):
            images, out = block
            total += _kernel_gradient(images, kernel.shape, out, stride, padding).astype(jnp.float32)
            return total, _image_gradient(images, kernel, out, stride, padding)

        # Summed in float32, whatever the products are in: there may be as many blocks as images.
        start = jnp.zeros(kernel.shape, jnp.float32)
        total, of_images = jax.lax.scan(one_block, start, (split(x), split(gradient)))
        return join(of_images, len(x)), total.astype(kernel.dtype)

    mapped.defvjp(lambda x, kernel: (mapped(x, kernel), (x, kernel)), backward)
    return mapped


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
