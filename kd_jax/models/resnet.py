"""Residual networks: of ImageNet (He et al. 2016a), of CIFAR, and the pre-activation ResNet-164.

    resnet-18, -34, -50         torchvision's: 7x7 stem of stride 2, 3x3 max pooling, four stages
    resnet-18-cifar, ...        the same with a 3x3 stem of stride 1 and no pooling, for small images
    resnet-8, -14, -20, -32, -44, -56, -110, resnet-8x4, -32x4
                                three stages of 16, 32 and 64 channels for 32x32 images (x4: 64, 128, 256
                                after a stem of 32), as the distillation literature has them
                                (Tian et al. 2020)
    resnet-164                  pre-activation bottlenecks (He et al. 2016b), see wrn.py

A shortcut that changes the shape is a 1x1 convolution with batch normalisation, in the CIFAR networks too
(He et al. 2016a pad with zeros there). The papers have no dropout; --dropout drops the classifier's input.
Left out: deeper ones of ImageNet, and starting each block's last normalisation at zero.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from kd_jax.errors import InputError, nearest_name
from kd_jax.models.layers import classifier, conv_norm, max_pool_3
from kd_jax.models.wrn import PreActivation


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1 with `width` inside and 4 x width outside."""

    width: int
    stride: int
    bottleneck: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        # (channels, kernel size, stride): the stride lies at the first 3x3 convolution
        layers = [(self.width, 3, self.stride), (self.width, 3, 1)]
        if self.bottleneck:
            layers = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        y = x
        for i, (width, size, stride) in enumerate(layers):
            last = i == len(layers) - 1
            y = conv_norm(y, width, train, f"layer_{i}", not last, size=size, stride=stride, dtype=self.dtype)
        if x.shape != y.shape:
            options = {"size": 1, "stride": self.stride, "dtype": self.dtype}
            x = conv_norm(x, y.shape[-1], train, "shortcut", activate=False, **options)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem, stages of residual blocks (each but the first halves the image), the mean over the image.

    stem: channels. widths, blocks: channels inside, and number of blocks, of each stage. pooling_stem: 7x7 of
    stride 2 and 3x3 max pooling instead of 3x3. Features: "stage_0", ... [B,h,w,c], after the last block's
    ReLU; "pooled" [B,c].
    """

    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    num_classes: int
    bottleneck: bool = False
    pooling_stem: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool):
        x, features = images.astype(self.dtype), {}
        size, stride = (7, 2) if self.pooling_stem else (3, 1)
        x = conv_norm(x, self.stem, train, "stem", size=size, stride=stride, dtype=self.dtype)
        x = max_pool_3(x) if self.pooling_stem else x
        for i, (width, num) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for j in range(num):
                stride = 2 if i > 0 and j == 0 else 1
                x = Block(width, stride, self.bottleneck, self.dtype, name=f"stage_{i}_block_{j}")(x, train)
            features[f"stage_{i}"] = x
        features["pooled"] = x.mean((1, 2))
        return classifier(self, features["pooled"], train), features


IMAGENET = {"18": ((2, 2, 2, 2), False), "34": ((3, 4, 6, 3), False), "50": ((3, 4, 6, 3), True)}
"""Depth -> (blocks of each stage, whether they are bottlenecks)."""

CIFAR = dict.fromkeys(("8", "14", "20", "32", "44", "56", "110"), (16, 16, 32, 64))
CIFAR |= dict.fromkeys(("8x4", "32x4"), (32, 64, 128, 256))
"""Depth -> channels of the stem and of the three stages, each of n blocks: depth = 6 n + 2."""

NAMED = tuple(f"resnet-{words}" for words in (*IMAGENET, *(f"{d}-cifar" for d in IMAGENET), *CIFAR, "164"))


def resnet(spec: str, words: list[str], num_classes: int, **options) -> nn.Module:
    depth, form = words[0] if words else "", words[1:]
    if depth in IMAGENET and form in ([], ["cifar"]):
        blocks, bottleneck = IMAGENET[depth]
        return ResNet(64, (64, 128, 256, 512), blocks, num_classes, bottleneck, not form, **options)
    if depth in CIFAR and not form:
        stem, *widths = CIFAR[depth]
        num = (int(depth.split("x")[0]) - 2) // 6
        return ResNet(stem, tuple(widths), (num,) * 3, num_classes, **options)
    if words == ["164"]:
        return PreActivation((64, 128, 256), (164 - 2) // 9, num_classes, bottleneck=True, **options)
    expected = f"resnet- and {', '.join(IMAGENET)} (or as in 18-cifar), {', '.join(CIFAR)} or 164"
    raise InputError("malformed model", expected, spec + nearest_name(spec, NAMED))
