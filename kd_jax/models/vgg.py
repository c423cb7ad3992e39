"""VGG (Simonyan & Zisserman 2015) for small images, as the distillation literature has it, and for ImageNet.

    vgg-8, vgg-13, vgg-16       five stages of 3x3 convolutions, the mean over the image, one dense layer
                                (Tian et al. 2020); 2x2 max pooling after the first three stages, and after
                                the fourth where the image has 64 pixels or more a side
    vgg-13-imagenet, vgg-16-imagenet
                                torchvision's: pooling after all five, averaged to 7x7, two dense layers of
                                4096 units; dropout after each of the two (0.5 in the paper)
    -bn                         batch normalisation before each ReLU of the convolutions: vgg-16-bn-imagenet

The small form has no dropout in its source; --dropout drops the classifier's input. Images too small to be
pooled further are left as they are.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.errors import InputError, nearest_name
from kd_jax.models.conv import Conv
from kd_jax.models.layers import HE_FAN_OUT, batch_norm, classifier, drop, max_pool_2x2

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {"8": (1, 1, 1, 1, 1), "13": (2, 2, 2, 2, 2), "16": (2, 2, 3, 3, 3)}
"""Depth -> how many convolutions each stage has."""

FORMS = ("", "-bn", "-imagenet", "-bn-imagenet")
NAMED = tuple(f"vgg-{d}{form}" for d in CONVOLUTIONS for form in FORMS[: 2 if d == "8" else 4])


class VGG(nn.Module):
    """convolutions: of each stage. normalized: with batch normalisation. dense: widths of the dense layers
    before the classifier; none: the form for small images.

    Features: "stage_0", ... [B,h,w,c], after the last ReLU, before the pooling; "pooled" [B,512], or
    [B,7*7*512] in the order h, w, c; "dense_0", "dense_1" [B,4096], after the ReLU, before dropout.
    """

    convolutions: tuple[int, ...]
    num_classes: int
    normalized: bool = False
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool):
        x, features = images.astype(self.dtype), {}
        poolings = 5 if self.dense else 4 if min(x.shape[1:3]) >= 64 else 3
        for i, num in enumerate(self.convolutions):
            for j in range(num):
                name = f"stage_{i}_{j}"
                options = {"use_bias": True, "kernel_init": HE_FAN_OUT, "dtype": self.dtype}
                x = Conv(WIDTHS[i], name=f"{name}_conv", **options)(x)
                x = batch_norm(train, self.dtype, f"{name}_norm")(x) if self.normalized else x
                x = nn.relu(x)
            features[f"stage_{i}"] = x
            x = max_pool_2x2(x) if i < poolings and min(x.shape[1:3]) > 1 else x
        x = average_to(x, 7).reshape(x.shape[0], -1) if self.dense else x.mean((1, 2))
        features["pooled"] = x
        init = nn.initializers.normal(0.01)
        for i, width in enumerate(self.dense):
            x = drop(self, x, train) if i else x
            x = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=init, name=f"dense_{i}")(x))
            features[f"dense_{i}"] = x
        return classifier(self, x, train, kernel_init=init), features


def average_to(x: jax.Array, size: int) -> jax.Array:
    """Averages to size x size, from images of any size: row i of the result is the mean of the rows
    floor(i h / size) to ceil((i + 1) h / size) - 1.  [B,h,w,c] -> [B,size,size,c]."""
    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (jnp.asarray(_bins(length, size), x.dtype) for length in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision="highest")


def _bins(length: int, size: int) -> np.ndarray:
    """f64[size,length]: each row the weights of a mean."""
    weights = np.zeros((size, length))
    for i in range(size):
        weights[i, i * length // size : -(-(i + 1) * length // size)] = 1
    return weights / weights.sum(axis=1, keepdims=True)


def vgg(spec: str, words: list[str], num_classes: int, **options) -> VGG:
    depth, form = words[0] if words else "", words[1:]
    if "-".join(["vgg", *words]) not in NAMED:
        expected = "vgg-8, vgg-13 or vgg-16, then -bn if normalised, then -imagenet (13 and 16)"
        raise InputError("malformed model", expected, spec + nearest_name(spec, NAMED))
    dense = (4096, 4096) if "imagenet" in form else ()
    return VGG(CONVOLUTIONS[depth], num_classes, "bn" in form, dense, **options)
