"""Plain convolutional networks of any widths.

cnn-32-64-128: 3x3 convolutions of 32, 64 and 128 channels, each with ReLU and 2x2 max pooling, then the
classifier on what is left of the image (10-way on MNIST: 28 -> 14 -> 7 -> 3). The words of a spec:
    WIDTH     3x3 convolution, ReLU, 2x2 max pooling
    AxB       (as in 32x32) convolutions of A and B channels one after another, then the pooling
    dWIDTH    a dense layer of ReLU units, after all convolutions
    bn        batch normalisation between every convolution and its ReLU; last
"""

import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from kd_jax.errors import InputError
from kd_jax.models.conv import Conv
from kd_jax.models.layers import batch_norm, drop, max_pool_2x2

_BLOCK = re.compile(r"[1-9][0-9]{0,4}(x[1-9][0-9]{0,4})*")


class CNN(nn.Module):
    """Blocks of 3x3 convolutions, each block ended by 2x2 max pooling (while there are two pixels to pool).

    blocks: channels of the convolutions of each block. dense: widths of the dense layers. normalized: with
    batch normalisation. dropout: after each dense layer, and after each block of a normalised network.
    Features: "block_0", ... [B,h,w,c] after the pooling; "dense_0", ... f32[B,width], after the ReLU.
    """

    blocks: tuple[tuple[int, ...], ...]
    dense: tuple[int, ...]
    num_classes: int
    normalized: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool):
        x, features = images.astype(self.dtype), {}
        for i, widths in enumerate(self.blocks):
            for j, width in enumerate(widths):
                name = f"block_{i}_{j}"
                x = Conv(width, use_bias=not self.normalized, dtype=self.dtype, name=f"{name}_conv")(x)
                if self.normalized:
                    x = batch_norm(train, self.dtype, f"{name}_norm")(x)
                x = nn.relu(x)
            x = max_pool_2x2(x) if min(x.shape[1:3]) > 1 else x
            features[f"block_{i}"] = x
            x = drop(self, x, train) if self.normalized else x
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.dense):
            init = nn.initializers.he_normal()
            x = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=init, name=f"dense_{i}")(x))
            features[f"dense_{i}"] = x
            x = drop(self, x, train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(x).astype(jnp.float32), features


def cnn(spec: str, words: list[str], num_classes: int, **options) -> CNN:
    rest = list(words)
    normalized = rest[-1:] == ["bn"]
    rest = rest[: len(rest) - normalized]
    blocks = [word for word in rest if _BLOCK.fullmatch(word)]
    dense = [word[1:] for word in rest[len(blocks) :] if re.fullmatch(r"d[1-9][0-9]{0,5}", word)]
    if not blocks or rest[: len(blocks)] != blocks or len(blocks) + len(dense) < len(rest):
        expected = "cnn-WIDTH..., blocks such as 32x32, then dense layers such as d256, then bn"
        raise InputError("malformed model", f"{expected}: cnn-32-64-128 or cnn-32x32-64x64-d256-bn", spec)
    each = tuple(tuple(map(int, word.split("x"))) for word in blocks)
    return CNN(each, tuple(map(int, dense)), num_classes, normalized, **options)
