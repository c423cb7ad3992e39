"""Connectors: small networks between a student's layers and its teacher's, trained with the student.

Each maps (student's layers, teacher's layers) to what the feature loss compares. They are parameters of the
run and no part of the student. Normalisation is by the batch: a connector has no evaluation mode, so no
running averages.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.models.conv import Conv
from kd_jax.models.layers import normalize

Layers = Sequence[jax.Array]
Shapes = Sequence[jax.ShapeDtypeStruct]
EMBEDDING = 128
"""Numbers of an embedding of CRD."""


def _as_map(x: jax.Array) -> jax.Array:
    return x if x.ndim == 4 else x[:, None, None, :]


class BatchNormalize(nn.Module):
    """Batch normalisation by the batch's own statistics.  [B,...,c] -> the same."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return normalize(x, scale, bias)[0]


class Projection(nn.Module):
    """FitNet's regressor: a 1x1 convolution to the teacher's channels, batch normalisation, ReLU (as
    mdistiller has it; the paper's is a larger convolution, to shrink the teacher's map)."""

    @nn.compact
    def __call__(self, students: Layers, teachers: Layers):
        found = []
        for i, (s, t) in enumerate(zip(students, teachers, strict=True)):
            x = nn.Dense(t.shape[-1], use_bias=False, name=f"conv_{i}")(_as_map(s))
            found.append(nn.relu(BatchNormalize(name=f"norm_{i}")(x)))
        return found, list(teachers)


class Gaussian(nn.Module):
    """VID's: three 1x1 convolutions give the mean, a parameter a channel the variance: softplus + 1e-5, 5 at
    first (Ahn et al. 2019, section 3.1; sizes as in RepDistiller)."""

    @nn.compact
    def __call__(self, students: Layers, teachers: Layers):
        found = []
        for i, (s, t) in enumerate(zip(students, teachers, strict=True)):
            x, width = _as_map(s), t.shape[-1]
            for j in range(3):
                x = nn.Dense(width, use_bias=False, name=f"conv_{i}_{j}")(x)
                x = nn.relu(x) if j < 2 else x
            raw = self.param(
                f"variance_{i}", nn.initializers.constant(float(np.log(np.expm1(5.0 - 1e-5)))), (width,)
            )
            found.append((x, (jax.nn.softplus(raw) + 1e-5)[None, None, None, :]))
        return found, list(teachers)


class Embedding(nn.Module):
    """CRD's: a dense layer for each network's layer, and norm 1 (Tian et al. 2020, section 3.2)."""

    @nn.compact
    def __call__(self, students: Layers, teachers: Layers):
        sides = []
        for name, layers in (("student", students), ("teacher", teachers)):
            flat = jnp.concatenate([x.reshape(x.shape[0], -1) for x in layers], axis=1)
            x = nn.Dense(EMBEDDING, name=name)(flat)
            sides.append([x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=1, keepdims=True), 1e-24))])
        return sides[0], sides[1]


def resize_nearest(x: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """Row i of the result is row floor(i h / sides[0]), and so for columns.  [B,h,w,c] -> [B,*sides,c]."""
    if x.shape[1:3] == sides:
        return x
    rows, columns = (np.arange(new) * old // new for new, old in zip(sides, x.shape[1:3], strict=True))
    return x[:, rows][:, :, columns]


class Fusion(nn.Module):
    """ReviewKD's: from the deepest layer up, each layer is fused with what comes from below by attention
    (Chen et al. 2021, section 3.3, figure 3; sizes as in their code: at most 512 channels inside)."""

    @nn.compact
    def __call__(self, students: Layers, teachers: Layers):
        width = min(512, max(s.shape[-1] for s in students))
        below, found = None, []
        for i in reversed(range(len(students))):
            t = _as_map(teachers[i])
            x = nn.Dense(width, use_bias=False, name=f"conv_{i}")(_as_map(students[i]))
            x = BatchNormalize(name=f"norm_{i}")(x)
            if below is not None:
                below = resize_nearest(below, x.shape[1:3])
                shares = nn.sigmoid(nn.Dense(2, name=f"attention_{i}")(jnp.concatenate([x, below], axis=-1)))
                x = x * shares[..., :1] + below * shares[..., 1:]
            below = resize_nearest(x, t.shape[1:3])
            y = Conv(t.shape[-1], use_bias=False, name=f"out_{i}")(below)
            found.append(BatchNormalize(name=f"out_norm_{i}")(y))
        return found[::-1], list(teachers)


CONNECTORS: dict[str, type[nn.Module]] = {
    "projection": Projection,
    "gaussian": Gaussian,
    "embedding": Embedding,
    "fusion": Fusion,
}


def init_connector(name: str, key: jax.Array, students: Shapes, teachers: Shapes) -> dict[str, Any]:
    """Parameters of the connector for layers of these shapes (jax.ShapeDtypeStruct).  key: consumed."""
    zeros = [[jnp.zeros(x.shape, jnp.float32) for x in side] for side in (students, teachers)]
    return dict(CONNECTORS[name]().init(key, *zeros)["params"])


def connect(name: str, params: dict[str, Any], students: Layers, teachers: Layers):
    """(student's side, teacher's side) of the feature loss."""
    return CONNECTORS[name]().apply({"params": params}, students, teachers)
