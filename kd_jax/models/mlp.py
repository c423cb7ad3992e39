"""Fully connected networks: mlp-800-800 is two hidden layers of 800 ReLU units."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from kd_jax.types import InputError


def drop(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Inverted dropout: zero with probability `rate`, else x / (1 - rate) (Srivastava et al. 2014).

    Random bits are a visible share of a dense network's step on a CPU, so none is wasted: each threefry block
    gives 64 bits (jax.random keeps 32 of them) and decides four units; the rate is rounded to 1/65536.
    """
    words = threefry_2x32(jax.random.key_data(key), jnp.arange(-(-x.size // 4) * 2, dtype=jnp.uint32))
    bits = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size].reshape(x.shape)
    keep = bits >= jnp.uint16(min(round(rate * 65536), 65535))
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


class MLP(nn.Module):
    """ReLU network on flattened images.

    widths: hidden units a layer. num_classes: K. input_dropout, dropout: drop probabilities. dtype: of the
    matrix products. Features: "hidden_0", "hidden_1", ... f32[B,width], after the ReLU, before dropout.
    """

    widths: tuple[int, ...]
    num_classes: int
    input_dropout: float = 0.0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool):
        x = images.reshape(images.shape[0], -1).astype(self.dtype)
        x = self._drop(x, self.input_dropout, train)
        features = {}
        for i, width in enumerate(self.widths):
            x = nn.relu(
                nn.Dense(
                    width, dtype=self.dtype, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}"
                )(x)
            )
            features[f"hidden_{i}"] = x
            x = self._drop(x, self.dropout, train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(x).astype(jnp.float32), features

    def _drop(self, x, rate, train):
        return drop(self.make_rng("dropout"), x, rate) if train and rate else x


def mlp(spec: str, words: list[str], num_classes: int, **options) -> MLP:
    """The family's parser: every word a hidden width."""
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(
            "malformed model", "mlp-WIDTH-WIDTH... with positive whole widths, as in mlp-800-800", spec
        )
    return MLP(tuple(map(int, words)), num_classes, **options)
