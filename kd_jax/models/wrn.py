"""Pre-activation residual networks of CIFAR: wide ones (wrn-40-2: depth 40, 2 x as wide) and ResNet-164.

Batch normalisation and ReLU come before each convolution. Where the number of channels changes, the block's
first ReLU feeds the shortcut too, a bare 1x1 convolution. Sources: Zagoruyko & Komodakis 2016 (WRN, with
dropout between a block's convolutions); He et al. 2016b, "Identity mappings in deep residual networks", and
their code for CIFAR (bottlenecks whose stride lies at the first 1x1 convolution).
"""

import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from kd_jax.errors import InputError
from kd_jax.models.conv import Conv
from kd_jax.models.layers import HE_FAN_OUT, batch_norm, drop


class PreBlock(nn.Module):
    """Convolutions of (channels, kernel size) each after its normalisation and ReLU; dropout before the last.
    The first one has the stride."""

    layers: tuple[tuple[int, int], ...]
    stride: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        shortcut = y = x
        for i, (width, size) in enumerate(self.layers):
            y = nn.relu(batch_norm(train, self.dtype, f"layer_{i}_norm")(y))
            if i == 0 and x.shape[-1] != self.layers[-1][0]:
                shortcut = self._conv(self.layers[-1][0], 1, self.stride, "shortcut_conv")(y)
            y = drop(self, y, train) if i == len(self.layers) - 1 else y
            y = self._conv(width, size, 1 if i else self.stride, f"layer_{i}_conv")(y)
        return shortcut + y

    def _conv(self, width, size, stride, name):
        return Conv(width, size, stride, dtype=self.dtype, kernel_init=HE_FAN_OUT, name=name)


class PreActivation(nn.Module):
    """3x3 stem of 16 channels, three stages of `blocks` blocks, normalisation and ReLU, mean over the image.

    widths: channels of each stage's output. bottleneck: blocks of 1x1, 3x3, 1x1 with a quarter of them
    inside, else two 3x3. Features: "stage_0", ... [B,h,w,c], sums before their normalisation and ReLU;
    "pooled" [B,c].
    """

    widths: tuple[int, int, int]
    blocks: int
    num_classes: int
    bottleneck: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool):
        features = {}
        x = Conv(16, dtype=self.dtype, kernel_init=HE_FAN_OUT, name="stem_conv")(images.astype(self.dtype))
        for i, width in enumerate(self.widths):
            layers: tuple[tuple[int, int], ...] = ((width, 3), (width, 3))
            if self.bottleneck:
                layers = ((width // 4, 1), (width // 4, 3), (width, 1))
            for j in range(self.blocks):
                stride = 2 if i > 0 and j == 0 else 1
                block = PreBlock(layers, stride, self.dropout, self.dtype, name=f"stage_{i}_block_{j}")
                x = block(x, train)
            features[f"stage_{i}"] = x
        x = nn.relu(batch_norm(train, self.dtype, "final_norm")(x))
        features["pooled"] = x.mean((1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(features["pooled"])
        return logits.astype(jnp.float32), features


def wrn(spec: str, words: list[str], num_classes: int, **options) -> PreActivation:
    """The family's parser: depth = 6 n + 4 for n blocks a stage, then the widening factor."""
    if len(words) != 2 or not all(re.fullmatch("[1-9][0-9]{0,3}", word) for word in words):
        raise InputError("malformed model", "wrn-DEPTH-WIDTH, as in wrn-40-2", spec)
    depth, factor = map(int, words)
    if depth < 10 or depth % 6 != 4:
        raise InputError("no such depth", "wrn-DEPTH-WIDTH of depth 6 n + 4: 10, 16, 22, 28, 40, ...", spec)
    return PreActivation((16 * factor, 32 * factor, 64 * factor), (depth - 4) // 6, num_classes, **options)
