"""Fully connected networks: mlp-800-800 is two hidden layers of 800 ReLU units."""

import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from kd_jax.errors import InputError
from kd_jax.models.layers import dropout_units

_FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "normal")

INITS = {
    "he": (nn.initializers.he_normal(), nn.initializers.lecun_normal()),
    "fan_in": (_FAN_IN, _FAN_IN),
}
"""Of the hidden layers and of the classifier; fan_in: N(0, 1 / fan_in) throughout (Cloud et al. 2025)."""


class MLP(nn.Module):
    """ReLU network on flattened images.

    widths: hidden units a layer. num_classes: K. input_dropout, dropout: drop probabilities. dtype: of the
    matrix products. initial: of INITS. Features: "hidden_0", "hidden_1", ... f32[B,width], after the ReLU,
    before dropout.
    """

    widths: tuple[int, ...]
    num_classes: int
    input_dropout: float = 0.0
    dropout: float = 0.0
    dtype: Any = jnp.float32
    initial: str = "he"

    @nn.compact
    def __call__(self, images, train: bool):
        x = images.reshape(images.shape[0], -1).astype(self.dtype)
        x = self._drop(x, self.input_dropout, train)
        features = {}
        for i, width in enumerate(self.widths):
            x = nn.relu(
                nn.Dense(width, dtype=self.dtype, kernel_init=INITS[self.initial][0], name=f"hidden_{i}")(x)
            )
            features[f"hidden_{i}"] = x
            x = self._drop(x, self.dropout, train)
        head = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=INITS[self.initial][1], name="logits")
        return head(x).astype(jnp.float32), features

    def _drop(self, x, rate, train):
        return dropout_units(self.make_rng("dropout"), x, rate) if train and rate else x


def mlp(spec: str, words: list[str], num_classes: int, **options) -> MLP:
    """The family's parser: every word a hidden width."""
    if not all(re.fullmatch("[1-9][0-9]{0,5}", word) for word in words):
        raise InputError(
            "malformed model", "mlp-WIDTH-WIDTH... with widths from 1 to 999999, as in mlp-800-800", spec
        )
    return MLP(tuple(map(int, words)), num_classes, **options)
