"""The generator of data-free distillation: latent vectors -> images.

The form of Chen et al. 2019 and of Micaelli & Storkey 2019: a dense layer to a quarter of the image's sides,
then twice: doubled by nearest neighbours, a 3x3 convolution, batch normalisation, leaky ReLU; a last 3x3
convolution. Their widths are 128, 128 and 64; here 2 w, 2 w and w. Their last layers give images of mean 0;
here a sigmoid gives images in [0, 1], as all networks here take them. Batches are normalised by their own
statistics always, as a generator is only ever used in training.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.models.conv import Conv
from kd_jax.models.layers import normalize

SLOPE = 0.2  # of the leaky ReLU


class Generator(nn.Module):
    """latents f32[B,D] -> images f32[B,h,w,c] in [0, 1].  image_shape: (h, w, c), h and w multiples of 4."""

    image_shape: tuple[int, int, int]
    width: int

    @nn.compact
    def __call__(self, latents):
        height, width, channels = self.image_shape
        places = height // 4, width // 4
        x = nn.Dense(places[0] * places[1] * 2 * self.width, use_bias=False, name="dense")(latents)
        x = self._normalized(x.reshape(-1, *places, 2 * self.width), "dense")
        for number, features in enumerate((2 * self.width, self.width)):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = Conv(features, name=f"conv_{number}")(x)
            x = nn.leaky_relu(self._normalized(x, f"conv_{number}"), SLOPE)
        return jax.nn.sigmoid(Conv(channels, use_bias=True, name="image")(x))

    def _normalized(self, x, name: str):
        scale = self.param(f"{name}_scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return normalize(x, scale, bias)[0]


def init_generator(generator: Generator, key: jax.Array, latent_size: int) -> dict:
    """Fresh parameters.  key: consumed."""
    return generator.init(key, jnp.zeros((2, latent_size), jnp.float32))["params"]


def generate(generator: Generator, params: dict, latents: jax.Array) -> jax.Array:
    """f32[B,D] -> f32[B,h,w,c] in [0, 1]."""
    return generator.apply({"params": params}, latents)  # type: ignore[return-value]
