"""Augmentation on the device, inside the compiled step."""

import jax
import jax.numpy as jnp


def jitter(key: jax.Array, images: jax.Array, pixels: int) -> jax.Array:
    """Shifts each image by its own whole number of pixels in -pixels..pixels, both ways; zeros come in.

    One select a shift and axis rather than a gather: it is elementwise, so it vectorises everywhere.
    Source: Hinton et al. 2015, section 3 (inputs jittered by up to two pixels).

    Args: key: consumed; images: u8[B,h,w,c]; pixels: at least 0.  Returns: u8[B,h,w,c].
    """
    shifts = jax.random.randint(key, (2, images.shape[0], 1, 1, 1), -pixels, pixels + 1, jnp.int32)
    for axis in (1, 2):
        size = images.shape[axis]
        margin = [(pixels, pixels) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(images, margin)
        shifted = jnp.zeros_like(images)
        for shift in range(-pixels, pixels + 1):
            moved = jax.lax.slice_in_dim(padded, pixels + shift, pixels + shift + size, axis=axis)
            shifted = jnp.where(shifts[axis - 1] == shift, moved, shifted)
        images = shifted
    return images


def warp(key: jax.Array, images: jax.Array, pixels: float, degrees: float, stretch: float) -> jax.Array:
    """Rotates, stretches and shifts each image by its own uniform draws, bilinearly; zeros come in.

    Source: Ciresan et al. 2010, section 2.2 (rotations, scalings and shifts, drawn anew every epoch).

    Args: key: consumed; images: u8[B,h,w,c]; pixels: largest shift along each axis; degrees: largest
        rotation, either way; stretch: each axis is scaled by 1 - stretch to 1 + stretch.
    Returns: u8[B,h,w,c].
    """
    num, height, width, _ = images.shape
    draws = jax.random.uniform(key, (5, num, 1, 1), jnp.float32, -1, 1)
    angle, down, right = draws[0] * (degrees * jnp.pi / 180), draws[1] * pixels, draws[2] * pixels
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :] - (width - 1) / 2
    # Where each output pixel comes from, in a copy with a border of one zero pixel.
    from_y = (jnp.sin(angle) * x + jnp.cos(angle) * y) * (1 + draws[3] * stretch) + down + (height + 1) / 2
    from_x = (jnp.cos(angle) * x - jnp.sin(angle) * y) * (1 + draws[4] * stretch) + right + (width + 1) / 2
    top, left = jnp.floor(from_y), jnp.floor(from_x)
    dy, dx = (from_y - top)[..., None], (from_x - left)[..., None]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(num, (height + 2) * (width + 2), -1)

    def corner(rows, columns):
        rows = jnp.clip(rows, 0, height + 1).astype(jnp.int32)
        columns = jnp.clip(columns, 0, width + 1).astype(jnp.int32)
        index = (rows * (width + 2) + columns).reshape(num, -1, 1)
        return jnp.take_along_axis(padded, index, axis=1).reshape(images.shape).astype(jnp.float32)

    upper = corner(top, left) * (1 - dx) + corner(top, left + 1) * dx
    lower = corner(top + 1, left) * (1 - dx) + corner(top + 1, left + 1) * dx
    return jnp.round(upper * (1 - dy) + lower * dy).astype(jnp.uint8)
