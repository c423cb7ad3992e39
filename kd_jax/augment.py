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
        images = sum(
            jnp.where(shifts[axis - 1] == shift, jax.lax.slice_in_dim(padded, pixels + shift, pixels + shift + size, axis=axis), 0)
            for shift in range(-pixels, pixels + 1)
        )
    return images
