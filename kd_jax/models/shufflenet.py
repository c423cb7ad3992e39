"""ShuffleNet V2 (Ma et al. 2018), torchvision's definition: shufflenet-x0.5, shufflenet-x1.0.

shufflenet-x0.5-cifar keeps the resolution of small images: a stem of stride 1 without the max pooling, so
that 32x32 pixels reach the stages as 32x32 instead of 8x8. The paper has no dropout; --dropout drops the
classifier's input. Convolutions start as He normal by fan in: by fan out, depthwise ones would be tiny.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.errors import InputError, nearest_name
from kd_jax.models.layers import classifier, conv_norm, max_pool_3

INIT = nn.initializers.he_normal()
BLOCKS = (4, 8, 4)
WIDTHS = {"x0.5": (48, 96, 192), "x1.0": (116, 232, 464)}
"""Size -> channels of each stage; the stem has 24, the last 1x1 convolution 1024."""

NAMED = tuple(f"shufflenet-{size}{form}" for form in ("", "-cifar") for size in WIDTHS)


def shuffle(x: jax.Array) -> jax.Array:
    """Channels of the two halves in turn: 0, c/2, 1, c/2 + 1, ...  [B,h,w,c] -> [B,h,w,c]."""
    return x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)


class Unit(nn.Module):
    """Half of the channels pass; the others go through 1x1, depthwise 3x3, 1x1. A unit that halves the image
    sends all channels through both branches, the first of them depthwise 3x3, 1x1."""

    width: int
    halves: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        half, stride = self.width // 2, 2 if self.halves else 1
        passing, y = (x, x) if self.halves else jnp.split(x, 2, axis=-1)

        def pointwise(x, name):
            return conv_norm(x, half, train, name, size=1, init=INIT, dtype=self.dtype)

        def depthwise(x, name):
            channels = x.shape[-1]
            options = {"stride": stride, "groups": channels, "init": INIT, "dtype": self.dtype}
            return conv_norm(x, channels, train, name, activate=False, **options)

        if self.halves:
            passing = pointwise(depthwise(passing, "passing_0"), "passing_1")
        y = pointwise(depthwise(pointwise(y, "layer_0"), "layer_1"), "layer_2")
        return shuffle(jnp.concatenate([passing, y], axis=-1))


class ShuffleNet(nn.Module):
    """Stem, three stages of units of which the first halves the image, 1x1 convolution, mean over the image.

    widths: channels of each stage. pooling_stem: stride 2 and 3x3 max pooling in the stem.
    Features: "stage_0", ... [B,h,w,c]; "pooled" [B,1024].
    """

    widths: tuple[int, int, int]
    num_classes: int
    pooling_stem: bool = True
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool):
        x, features = images.astype(self.dtype), {}
        x = conv_norm(x, 24, train, "stem", stride=2 if self.pooling_stem else 1, init=INIT, dtype=self.dtype)
        x = max_pool_3(x) if self.pooling_stem else x
        for i, (width, num) in enumerate(zip(self.widths, BLOCKS, strict=True)):
            for j in range(num):
                x = Unit(width, j == 0, self.dtype, name=f"stage_{i}_block_{j}")(x, train)
            features[f"stage_{i}"] = x
        x = conv_norm(x, 1024, train, "last", size=1, init=INIT, dtype=self.dtype)
        features["pooled"] = x.mean((1, 2))
        return classifier(self, features["pooled"], train), features


def shufflenet(spec: str, words: list[str], num_classes: int, **options) -> ShuffleNet:
    if "-".join(["shufflenet", *words]) not in NAMED:
        expected = "shufflenet-x0.5 or shufflenet-x1.0, then -cifar or nothing"
        raise InputError("malformed model", expected, spec + nearest_name(spec, NAMED))
    return ShuffleNet(WIDTHS[words[0]], num_classes, len(words) == 1, **options)
