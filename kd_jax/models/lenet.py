"""LeNet-5 (LeCun et al. 1998, section II.B) as the distillation literature has it: ReLU and max pooling.

    lenet-5         5x5 convolutions of 6 and 16 channels, dense layers of 120 and 84 units: 61,706 parameters
                    for 28x28 grey images and 10 classes
    lenet-5-half    3 and 8 channels, the dense layers as they are: 35,820 parameters

Source of the half: Nayak et al. 2019, section 4.1 (half of the filters of each convolution).
The first convolution keeps the size of the image, as the paper's padding of 28x28 images to 32x32 does; the
second one does not, unless the image has fewer than 5 pixels a side there.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from kd_jax.errors import InputError, nearest_name
from kd_jax.models.conv import Conv
from kd_jax.models.layers import classifier, drop, max_pool_2x2

CHANNELS = {"lenet-5": (6, 16), "lenet-5-half": (3, 8)}
"""Spec -> channels of the two convolutions."""

NAMED = tuple(CHANNELS)


class LeNet(nn.Module):
    """channels: of the two convolutions. dropout: of the units of both dense layers.

    Features: "conv_0", "conv_1" [B,h,w,c], after the pooling; "dense_0" f32[B,120], "dense_1" f32[B,84],
    after the ReLU, before dropout.
    """

    channels: tuple[int, int]
    num_classes: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool):
        x, features = images.astype(self.dtype), {}
        for i, width in enumerate(self.channels):
            padding = 0 if i and min(x.shape[1:3]) >= 5 else 2
            x = Conv(width, 5, padding=padding, use_bias=True, dtype=self.dtype, name=f"conv_{i}")(x)
            x = nn.relu(x)
            x = max_pool_2x2(x) if min(x.shape[1:3]) > 1 else x
            features[f"conv_{i}"] = x
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate((120, 84)):
            init = nn.initializers.he_normal()
            x = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=init, name=f"dense_{i}")(x))
            features[f"dense_{i}"] = x
            x = x if i else drop(self, x, train)
        return classifier(self, x, train), features


def lenet(spec: str, words: list[str], num_classes: int, **options) -> LeNet:
    if spec not in NAMED:
        raise InputError("malformed model", " or ".join(NAMED), spec + nearest_name(spec, NAMED))
    return LeNet(CHANNELS[spec], num_classes, **options)
