"""Losses between hidden layers of student and teacher, and the registry `FEATURE_LOSSES`.

Each is (student's side, teacher's side) -> f32[B], a list of layers on either side: maps [B,h,w,c] or vectors
[B,D], after the connector (kd_jax/models/connectors.py) where the method has one. The mean of the entries is
the loss; where `relates_batch`, entry i depends on all examples. The teacher's features are data: no
gradient. The classes of the examples have no part in any of them. CRD needs a memory: contrastive.py.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Features = Sequence[Any]
FeatureLossFn = Callable[[Features, Features], jax.Array]


def as_map(x: jax.Array) -> jax.Array:
    """[B,h,w,c] as it is; [B,D] as the map [B,1,1,D]."""
    return x if x.ndim == 4 else x[:, None, None, :]


def flat(x: jax.Array) -> jax.Array:
    """[B,...] -> [B,D]."""
    return x.reshape(x.shape[0], -1)


def average_to(x: jax.Array, sides: tuple[int, int]) -> jax.Array:
    """Means over bins as of adaptive average pooling.  [B,h,w,c] -> [B,*sides,c]."""
    if x.shape[1:3] == sides:
        return x
    rows, columns = (jnp.asarray(_bins(x.shape[axis + 1], sides[axis])) for axis in (0, 1))
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision="highest")


def _bins(length: int, size: int) -> np.ndarray:
    """f32[size,length]: row i the weights of the mean from floor(i length / size) to below
    ceil((i + 1) length / size)."""
    weights = np.zeros((size, length), np.float32)
    for i in range(size):
        weights[i, i * length // size : -(-(i + 1) * length // size)] = 1
    return weights / weights.sum(axis=1, keepdims=True)


def same_size(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two maps, each side averaged to the smaller of both."""
    sides = min(x.shape[1], y.shape[1]), min(x.shape[2], y.shape[2])
    return average_to(x, sides), average_to(y, sides)


def _unit(x: jax.Array) -> jax.Array:
    """Rows divided by max(their norm, 1e-12), as torch's normalize; the gradient at 0 is finite."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    above = square > 1e-24
    return x / jnp.where(above, jnp.sqrt(jnp.where(above, square, 1.0)), 1e-12)


def _mean_of_example(x: jax.Array) -> jax.Array:
    return jnp.mean(flat(x), axis=1)


def fitnet(students: Features, teachers: Features) -> jax.Array:
    """Mean squared difference to the teacher's layer, through a regressor.

    Source: Romero et al. 2015, equation 3. Departures: the mean, not half the sum, as RepDistiller and
    mdistiller; trained together with the rest, not in a stage before it.
    """
    pairs = (same_size(as_map(s), as_map(t)) for s, t in zip(students, teachers, strict=True))
    return sum(_mean_of_example((s - t) ** 2) for s, t in pairs)  # type: ignore[return-value]


def _attention(x: jax.Array) -> jax.Array:
    return _unit(flat(jnp.mean(x * x, axis=-1)))


def at(students: Features, teachers: Features) -> jax.Array:
    """Mean squared difference of attention maps: the mean of squared channels, of norm 1 over places.

    Source: Zagoruyko & Komodakis 2017, section 3.1. Departures, both of their code: the mean of squares over
    places, where equation 2 has the norm; the mean over channels, where it has the sum (the same after the
    norm).
    """
    pairs = (same_size(as_map(s), as_map(t)) for s, t in zip(students, teachers, strict=True))
    return sum(jnp.mean((_attention(s) - _attention(t)) ** 2, axis=1) for s, t in pairs)  # type: ignore[return-value]


def _similarities(x: jax.Array) -> jax.Array:
    x = flat(x)
    return _unit(jnp.matmul(x, x.T, precision="highest"))


def sp(students: Features, teachers: Features) -> jax.Array:
    """||G_t - G_s||_F^2 / B^2 of the similarities of the batch's examples, rows of norm 1; entry i: row i.

    Source: Tung & Mori 2019, equations 1 to 4, as RepDistiller; torchdistill's norm of the rows is L1.
    """
    pairs = zip(students, teachers, strict=True)
    return sum(jnp.mean((_similarities(t) - _similarities(s)) ** 2, axis=1) for s, t in pairs)  # type: ignore[return-value]


def _geometry(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(distances f32[B,B], cosines f32[B,B,B]) of vectors f32[B,D]; cosines[i,j,k] of the angle at i between
    j and k. From the products of all pairs: differences would take B^2 D numbers. What lies nearer than a
    thousandth of its size, which f32 cannot tell from 0 then, has the distance 1e-6 and the cosines 0; an
    example and itself have 0.
    """
    x = x - jax.lax.stop_gradient(jnp.mean(x, axis=0, keepdims=True))  # less cancels
    products = jnp.matmul(x, x.T, precision="highest")
    norms = jnp.sum(x * x, axis=1)
    sizes, same = norms[:, None] + norms[None], np.eye(len(x), dtype=bool)
    square = sizes - 2 * products
    apart = (square > jnp.maximum(1e-6 * sizes, 1e-12)) & ~same
    root = jnp.sqrt(jnp.where(apart, square, 1.0))
    inverse = jnp.where(apart, 1 / root, 0.0)
    inner = products[None] - products[:, :, None] - products[:, None, :] + norms[:, None, None]
    return (
        jnp.where(same, 0.0, jnp.where(apart, root, 1e-6)),
        inner * inverse[:, :, None] * inverse[:, None, :],
    )


def _relative(distances: jax.Array) -> jax.Array:
    mean = jnp.sum(distances) / max(len(distances) * (len(distances) - 1), 1)
    return distances / jnp.where(mean > 0, mean, 1.0)


def _huber(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    return jnp.where(size < 1, 0.5 * x * x, size - 0.5)


def rkd(students: Features, teachers: Features) -> jax.Array:
    """25 times the Huber loss of relative distances plus 50 times that of angles; entry i: its row's mean.

    Source: Park et al. 2019, equations 5 to 8, means over all pairs and triples, those with an example twice
    included, as in their code. Weights as in RepDistiller.
    """
    total = jnp.zeros(len(students[0]))
    for pair in zip(map(flat, students), map(flat, teachers), strict=True):
        (d_s, cos_s), (d_t, cos_t) = map(_geometry, pair)
        total += 25.0 * jnp.mean(_huber(_relative(d_s) - _relative(d_t)), axis=1)
        total += 50.0 * jnp.mean(_huber(cos_s - cos_t), axis=(1, 2))
    return total


def _cosine_probabilities(x: jax.Array, eps: float) -> jax.Array:
    x = flat(x)
    square = jnp.sum(x * x, axis=1, keepdims=True)
    x = x / (jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0) + eps)
    similar = (jnp.matmul(x, x.T, precision="highest") + 1) / 2
    return similar / jnp.sum(similar, axis=1, keepdims=True)


def pkt(students: Features, teachers: Features, eps: float = 1e-7) -> jax.Array:
    """Mean of p_t log(p_t / p_s) of cosine similarities, scaled to [0, 1], of a row sum 1; entry i: row i.

    Source: Passalis & Tefas 2018, equations 4 and 6. Departures: the mean over B^2 where the paper has the
    sum, an example's similarity to itself included, and the eps, all of their code.
    """
    total = jnp.zeros(len(students[0]))
    for s, t in zip(students, teachers, strict=True):
        p_s, p_t = _cosine_probabilities(s, eps), _cosine_probabilities(t, eps)
        total += jnp.mean(p_t * jnp.log((p_t + eps) / (p_s + eps)), axis=1)
    return total


def vid(students: Features, teachers: Features) -> jax.Array:
    """Mean of ((t - mean)^2 / variance + log variance) / 2: the teacher's layer under a Gaussian that the
    connector predicts. May be below 0.

    students: (mean [B,h,w,c], variance [1,1,1,c]) of each layer.
    Source: Ahn et al. 2019, equations 5 and 6, the mean where the paper has the sum, as in RepDistiller.
    """
    total = jnp.zeros(len(teachers[0]))
    for (mean, variance), t in zip(students, teachers, strict=True):
        mean, t = same_size(mean, as_map(t))
        total += _mean_of_example(0.5 * ((mean - t) ** 2 / variance + jnp.log(variance)))
    return total


def hierarchical_context(s: jax.Array, t: jax.Array) -> jax.Array:
    """Weighted mean of mean squared differences of two maps: as they are, and averaged to 4, 2 and 1 pixels a
    side with the weights 1/2, 1/4, 1/8 (those below the height).  [B,h,w,c] -> f32[B]."""
    total, weight, weights = _mean_of_example((s - t) ** 2), 1.0, 1.0
    for size in (4, 2, 1):
        if size < s.shape[1]:
            weight /= 2
            pooled = [average_to(x, (size, min(size, x.shape[2]))) for x in (s, t)]
            total += weight * _mean_of_example((pooled[0] - pooled[1]) ** 2)
            weights += weight
    return total / weights


def review(students: Features, teachers: Features) -> jax.Array:
    """Sum over layers of the hierarchical context loss of the fused student features.

    Source: Chen et al. 2021, section 3.3 and their code, which has the weights of the levels.
    """
    pairs = (same_size(as_map(s), as_map(t)) for s, t in zip(students, teachers, strict=True))
    return sum(hierarchical_context(s, t) for s, t in pairs)  # type: ignore[return-value]


def _needs_memory(students: Features, teachers: Features) -> jax.Array:
    raise TypeError("crd is given its memory by contrastive.contrast")


@dataclasses.dataclass(frozen=True)
class FeatureLoss:
    """function: the loss. weight: the paper's on CIFAR-100 (Tian et al. 2020, Chen et al. 2021). layers:
    which by default: "maps", "middle_map", "last_map" or "last". connector: a name of
    models.connectors.CONNECTORS. relates_batch: whether an entry depends on other examples. needs_places:
    whether a vector tells nothing."""

    function: FeatureLossFn
    weight: float
    layers: str
    connector: str | None = None
    relates_batch: bool = False
    needs_places: bool = False


FEATURE_LOSSES: dict[str, FeatureLoss] = {
    "fitnet": FeatureLoss(fitnet, 100.0, "middle_map", "projection"),
    "at": FeatureLoss(at, 1000.0, "maps", needs_places=True),
    "sp": FeatureLoss(sp, 3000.0, "last_map", relates_batch=True),
    "rkd": FeatureLoss(rkd, 1.0, "last", relates_batch=True),
    "pkt": FeatureLoss(pkt, 30000.0, "last", relates_batch=True),
    "vid": FeatureLoss(vid, 1.0, "maps", "gaussian"),
    "crd": FeatureLoss(_needs_memory, 0.8, "last", "embedding"),
    "review": FeatureLoss(review, 1.0, "maps", "fusion"),
}
