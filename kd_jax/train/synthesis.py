"""Images made from a teacher alone: pixels, not weights, are optimised.

    class_impressions   the teacher's softmax at a temperature is brought to a target that is drawn for each
                        image from a Dirichlet distribution, whose concentrations are the similarities of the
                        classes in the teacher's last layer (Nayak et al. 2019, section 3)
    deep_inversion      the teacher's answer is brought to the class, and the batch's statistics to those that
                        the teacher's batch normalisations remember (Yin et al. 2020, section 3)

Both may have the priors of natural images, total variation and L2 norm, and are one objective with other
numbers. All numbers are traced: one program serves every class, teacher and weight. Images lie in [0, 1]:
after each update (Adam) they are clipped.

Left out: the second network of Yin et al., with which the teacher is made to disagree.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from kd_jax.models.statistics import Statistics, forward_with_statistics
from kd_jax.train.keys import IMPRESSION, IMPRESSION_SHIFT
from kd_jax.train.sweep import gather, on_mesh, over_runs
from kd_jax.types import Variables

LEAST_CONCENTRATION = 1e-3
"""The smallest share that a class has of the largest concentration. The paper's is 0, of the class that is
least similar; the Dirichlet distribution wants more."""


class Weights(flax.struct.PyTreeNode):
    """The numbers of an objective, each f32[].

    learning_rate: of Adam, in units of the pixels' range. temperature: of the teacher's softmax.
    total_variation, l2, statistics: weights of these parts. first_layer: by which the statistics of the first
    batch normalisation count more than those of another. translate: largest shift of the images before the
    teacher sees them, in pixels, both ways, drawn at each update.
    """

    learning_rate: jax.Array
    temperature: jax.Array
    total_variation: jax.Array
    l2: jax.Array
    statistics: jax.Array
    first_layer: jax.Array
    translate: jax.Array


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """What changes a shape or the graph.

    model: the teacher's module. image_shape: (h, w, c). num_updates: of each image. use_statistics: whether
    the batch's statistics are in the objective.
    """

    model: Any
    image_shape: tuple[int, int, int]
    num_updates: int
    use_statistics: bool = False


def class_similarities(kernel: np.ndarray) -> np.ndarray:
    """C[i,j], the cosine between the weights of classes i and j in the last layer (Nayak et al. 2019,
    equation 2).  kernel: f32[D,K] -> f64[K,K]."""
    columns = np.asarray(kernel, np.float64)
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12)
    return columns.T @ columns


def dirichlet_concentrations(similarities: np.ndarray, scale: float) -> np.ndarray:
    """Row k: the concentrations of class k, its similarities scaled to [0, 1] by their least and largest,
    times beta (Nayak et al. 2019, section 3.2), at least LEAST_CONCENTRATION of it.

    similarities: f64[K,K]; scale: beta.  Returns: f64[K,K].
    """
    low, high = similarities.min(axis=1, keepdims=True), similarities.max(axis=1, keepdims=True)
    return scale * np.maximum((similarities - low) / np.maximum(high - low, 1e-12), LEAST_CONCENTRATION)


def draw_targets(
    random: np.random.RandomState, similarities: np.ndarray, scales: Sequence[float], labels: np.ndarray
) -> np.ndarray:
    """A target for each image: probabilities drawn from the Dirichlet distribution of its class, of the
    first half of the images with the first scale. The largest one is exchanged with that of the class, so
    that the label holds: the paper keeps targets whose largest probability is another class's.

    On the host: compiled, JAX's draws from a Dirichlet distribution take longer than all else here.
    Args: random: advanced; similarities: f64[K,K]; scales: two; labels: i32[B].  Returns: f32[B,K].
    """
    second = np.arange(len(labels)) * 2 >= len(labels)
    concentrations = np.stack([dirichlet_concentrations(similarities, scale) for scale in scales])
    draws = np.maximum(random.standard_gamma(concentrations[second.astype(int), labels]), 1e-30)
    targets = draws / draws.sum(axis=1, keepdims=True)
    rows, best = np.arange(len(labels)), targets.argmax(axis=1)
    of_class, largest = targets[rows, labels], targets[rows, best]
    targets[rows, best] = of_class
    targets[rows, labels] = largest
    return targets.astype(np.float32)


def total_variation(images: jax.Array) -> jax.Array:
    """Mean over the pixels of the squared differences to the neighbours below and to the right, summed over
    channels (Mahendran & Vedaldi 2015, section 3, beta = 2).  f32[B,h,w,c] -> f32[B]."""
    chex.assert_rank(images, 4)
    down, right = jnp.diff(images, axis=1), jnp.diff(images, axis=2)
    pixels = images.shape[1] * images.shape[2]
    return (jnp.sum(down**2, (1, 2, 3)) + jnp.sum(right**2, (1, 2, 3))) / pixels


def statistics_distance(found: list[Statistics], first_layer: jax.Array) -> jax.Array:
    """The sum over batch normalisations of |mean - running mean| + |variance - running variance|, Euclidean
    norms (Yin et al. 2020, equation 4), the first one times `first_layer`, as their code has it.  ->
    f32[]."""
    norm = lambda x: jnp.sqrt(jnp.sum(x**2) + 1e-12)  # whose gradient at 0 is 0  # noqa: E731
    total = jnp.zeros(())
    for number, one in enumerate(found):
        distance = norm(one.mean - one.running_mean) + norm(one.variance - one.running_variance)
        total += distance * (jnp.ones(()) if number else first_layer)
    return total


def objective(
    synthesis: Synthesis, variables: Variables, weights: Weights, images: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(what is minimised, f32[], the teacher's cross-entropies with the targets, f32[B]).

    images: f32[B,h,w,c] in [0, 1]; targets: f32[B,K], probabilities.
    """
    logits, found = forward_with_statistics(synthesis.model, variables, images)
    entropies = optax.losses.softmax_cross_entropy(logits / weights.temperature, targets)
    priors = weights.total_variation * total_variation(images)
    priors += weights.l2 * jnp.mean(images**2, axis=(1, 2, 3))
    loss = jnp.mean(entropies + priors)
    if synthesis.use_statistics:
        loss += weights.statistics * statistics_distance(found, weights.first_layer)
    return loss, entropies


def synthesize_batch(
    synthesis: Synthesis, variables: Variables, weights: Weights, key: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Images for these targets, from uniform noise.

    key: of the batch, not consumed: purposes are folded into it.  targets: f32[B,K], probabilities.
    Returns: (u8[B,h,w,c], the last cross-entropies with the targets f32[B]).
    """
    shape = (targets.shape[0], *synthesis.image_shape)
    images = jax.random.uniform(jax.random.fold_in(key, IMPRESSION), shape, jnp.float32)
    adam = optax.scale_by_adam()
    shift_key = jax.random.fold_in(key, IMPRESSION_SHIFT)

    def loss_of(images, shift):
        return objective(synthesis, variables, weights, jnp.roll(images, shift, (1, 2)), targets)

    def update(carry, step):
        images, moments = carry
        draw = jax.random.uniform(jax.random.fold_in(shift_key, step), (2,), jnp.float32, -1, 1)
        shift = jnp.round(draw * weights.translate).astype(jnp.int32)
        gradient, entropies = jax.grad(loss_of, has_aux=True)(images, shift)
        direction, moments = adam.update(gradient, moments)
        return (jnp.clip(images - weights.learning_rate * direction, 0, 1), moments), entropies

    steps = jnp.arange(synthesis.num_updates, dtype=jnp.int32)
    (images, _), entropies = jax.lax.scan(update, (images, adam.init(images)), steps)
    return jnp.round(255 * images).astype(jnp.uint8), entropies[-1]


def synthesize(
    synthesis: Synthesis,
    variables: Variables,
    weights: Weights,
    keys: jax.Array,
    targets: jax.Array | np.ndarray,
    teachers: jax.Array | np.ndarray,
) -> tuple[jax.Array, jax.Array]:
    """P batches of several classes and teachers as one program, split over the devices.

    Args: variables: leading axis M; keys: typed, [P]; targets: f32[P,B,K]; teachers: i32[P], the number of
        the teacher that each batch is made from.
    Returns: numpy (u8[P,B,h,w,c], f32[P,B]), as of `synthesize_batch`.
    """
    mesh, shared, batches = on_mesh((variables, weights), (keys, targets, teachers), len(keys))
    return gather(_synthesize_all(synthesis, mesh, shared, batches), len(keys))


@partial(jax.jit, static_argnums=(0, 1))
def _synthesize_all(synthesis, mesh, shared, batches):
    def one(shared, batch):
        variables, weights = shared
        key, targets, teacher = batch
        of_teacher = jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, teacher, keepdims=False), variables
        )
        return synthesize_batch(synthesis, of_teacher, weights, key, targets)

    return over_runs(one, mesh, 1)(shared, batches)
