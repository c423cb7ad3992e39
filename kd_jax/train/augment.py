"""Augmentation on the device, inside the compiled step: batches of raw images u8[B,h,w,c] -> the same.

Each is an `Augment`, a frozen dataclass of its options: equal by value, so that equal configurations share
one compiled program.

Mixup alone is of scaled images, since rounding would change a mixture, and takes the labels along: the step
itself applies it (`train.augment_and_scale`). Left out: colour changes and learned policies, which no recipe
uses.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from kd_jax.types import Augment


def stored(images: jax.Array) -> jax.Array:
    """The same images u8[B,h,w,c], computed before they are read.

    XLA on the CPU would otherwise compute the pixels of a chain anew wherever they are read, nested selects
    and all: ten times the time. What a loop returns lies in memory; one of a single turn would be unrolled.
    """
    copy = lambda images: jax.lax.map(  # noqa: E731
        jax.lax.optimization_barrier, images, batch_size=max(1, images.shape[0] // 2)
    )
    return jax.lax.platform_dependent(images, cpu=copy, default=lambda images: images)


def example_keys(key: jax.Array, num: int) -> jax.Array:
    """A key for each example, [num], which its position alone decides: what an example draws is the same in
    a batch of any size.  key: consumed."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num, dtype=jnp.uint32))


def draws(key: jax.Array, num: int, each: int) -> jax.Array:
    """Uniform numbers in [0, 1), f32[num,each], each row of its example's own key.  key: consumed."""
    draw = lambda key: jax.random.uniform(key, (each,), jnp.float32)  # noqa: E731
    return jax.vmap(draw)(example_keys(key, num))


def flips(key: jax.Array, num: int) -> jax.Array:
    """Which examples of a batch `RandomFlip` mirrors under this key, bool[num].  key: consumed."""
    return draws(key, num, 1)[:, 0] < 0.5


def mixup_lambdas(key: jax.Array, num: int, concentration: float) -> jax.Array:
    """What each example keeps of itself, f32[num] in [0, 1] ~ Beta(concentration, concentration).

    Source: Zhang et al. 2018, section 2. Their code draws one for a whole batch; here each example has its
    own, so that it depends on no other and a step's gradient averages over weak and strong mixtures.
    key: consumed.
    """
    draw = lambda key: jax.random.beta(key, concentration, concentration, (), jnp.float32)  # noqa: E731
    return jax.vmap(draw)(example_keys(key, num))


def mixup_partner(x: jax.Array) -> jax.Array:
    """Of each example's partner in mixup, the next one: the batch is in random order.  x: [B,...]."""
    return jnp.roll(x, -1, axis=0)


def mix(mixup_lambda: jax.Array, x: jax.Array) -> jax.Array:
    """Each example's share of itself and the rest of its partner.  mixup_lambda f32[B]; x f32[B,...]."""
    mixup_lambda = mixup_lambda.reshape(-1, *[1] * (x.ndim - 1))
    return mixup_lambda * x + (1 - mixup_lambda) * mixup_partner(x)


@dataclasses.dataclass(frozen=True)
class RandomTranslate:
    """Shifts each image by its own whole number of pixels in -pixels..pixels, both ways; zeros come in.

    That is padding by `pixels`, at least 0, and cropping at random to the old size. One select a shift and
    axis rather than a gather: it is elementwise, so it vectorises everywhere.
    Sources: Hinton et al. 2015, section 3 (inputs jittered by up to two pixels); He et al. 2016, section 4.2
    (CIFAR: four pixels).
    The draws, and those of the affine warp, are the batch's, not keyed by example as those below: so were
    those of older results.
    """

    pixels: int

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        pixels = self.pixels
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


@dataclasses.dataclass(frozen=True)
class RandomAffine:
    """Rotates, stretches and shifts each image by its own uniform draws, bilinearly; zeros come in.

    Source: Ciresan et al. 2010, section 2.2 (rotations, scalings and shifts, drawn anew every epoch).

    pixels: largest shift along each axis; degrees: largest rotation, either way; stretch: each axis is scaled
    by 1 - stretch to 1 + stretch.
    """

    pixels: float
    degrees: float
    stretch: float

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        num, height, width, _ = images.shape
        draws = jax.random.uniform(key, (5, num, 1, 1), jnp.float32, -1, 1)
        angle = draws[0] * (self.degrees * jnp.pi / 180)
        down, right = draws[1] * self.pixels, draws[2] * self.pixels
        middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
        y = jnp.arange(height, dtype=jnp.float32)[None, :, None] - middle_y
        x = jnp.arange(width, dtype=jnp.float32)[None, None, :] - middle_x
        # Where each output pixel comes from.
        from_y = (jnp.sin(angle) * x + jnp.cos(angle) * y) * (1 + draws[3] * self.stretch) + down + middle_y
        from_x = (jnp.cos(angle) * x - jnp.sin(angle) * y) * (1 + draws[4] * self.stretch) + right + middle_x

        def sample(channel, rows, columns):
            return map_coordinates(channel.astype(jnp.float32), [rows, columns], order=1, mode="constant")

        of_image = jax.vmap(sample, in_axes=(-1, None, None), out_axes=-1)
        return jnp.round(jax.vmap(of_image)(images, from_y, from_x)).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirrors each image left to right with probability 1/2."""

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        mirrored = flips(key, images.shape[0]).reshape(-1, 1, 1, 1)
        return jnp.where(mirrored, images[:, :, ::-1], images)


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Covers a square of each image; its centre is uniform over the pixels, and the border may clip it.

    Source: DeVries & Taylor 2017, section 3.2, who put zeros into images whose mean was subtracted: here the
    mean itself goes into the raw image. (Their code cuts an odd side by one; here the square has `side`.)

    side: in pixels; fill: c grey levels, each in 0..255.
    """

    side: int
    fill: tuple[int, ...]

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        num, height, width, _ = images.shape
        starts = lambda draw, size: jnp.floor(draw * size).astype(jnp.int32) - self.side // 2  # noqa: E731
        down, right = draws(key, num, 2).T.reshape(2, num, 1, 1, 1)
        top, left = starts(down, height), starts(right, width)
        y = jnp.arange(height, dtype=jnp.int32)[None, :, None, None]
        x = jnp.arange(width, dtype=jnp.int32)[None, None, :, None]
        covered = (y >= top) & (y < top + self.side) & (x >= left) & (x < left + self.side)
        return jnp.where(covered, jnp.array(self.fill, jnp.uint8)[None, None, None, :], images)


@dataclasses.dataclass(frozen=True)
class Chain:
    """One stage after another, each with a key of its own."""

    stages: tuple[Augment, ...]

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        for i, stage in enumerate(self.stages):
            images = stage(jax.random.fold_in(key, i), images)
        return stored(images)
