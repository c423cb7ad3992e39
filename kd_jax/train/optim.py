"""Optimisers as unit steps: direction x unit schedule x the run's own (traced) learning rate.

optax's schedules want a Python number for the peak; a sweep's rate is an array. So the schedule here has
peak 1 and the rate multiplies it, and one compiled program serves every rate and weight decay.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kd_jax.types import HParams


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """transformation, options: a function of a module and its keyword arguments, which give the optax
    transformation from gradient to unit step (`direction`). decoupled: weight decay acts on the parameters
    directly (Loshchilov & Hutter 2019), else it is added to the gradient (L2).

    optax's transformations are closures, equal to none that is made again; what makes them is equal by value.
    """

    transformation: Callable[..., optax.GradientTransformation]
    decoupled: bool
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def direction(self) -> optax.GradientTransformation:
        return self.transformation(**dict(self.options))


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Optimizer(optax.scale_by_adam, decoupled=False),
    "adamw": Optimizer(optax.scale_by_adam, decoupled=True),
    "sgd": Optimizer(optax.trace, decoupled=False, options=(("decay", 0.9), ("nesterov", True))),
}

UnitSchedule = Callable[[jax.Array], jax.Array]
"""step i32[] -> f32[] in [0, 1]. Hashable and equal by value, or each configuration is compiled anew."""


@dataclasses.dataclass(frozen=True)
class Constant:
    """1 throughout, however many updates there are."""

    num_updates: int = dataclasses.field(compare=False)

    def __call__(self, step: jax.Array) -> jax.Array:
        return optax.constant_schedule(1.0)(step)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """1 -> 0 by half a cosine over all updates (Loshchilov & Hutter 2017)."""

    num_updates: int

    def __call__(self, step: jax.Array) -> jax.Array:
        return optax.cosine_decay_schedule(1.0, self.num_updates)(step)


@dataclasses.dataclass(frozen=True)
class WarmupCosine:
    """0 -> 1 linearly over the first 5 % of the updates (none of fewer than 20), then as `Cosine`."""

    num_updates: int

    def __call__(self, step: jax.Array) -> jax.Array:
        warmup = self.num_updates // 20
        return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, self.num_updates)(step)


@dataclasses.dataclass(frozen=True)
class Steps:
    """/10 at 5/8, 6/8 and 7/8 of the updates (150, 180 and 210 of CIFAR's usual 240 epochs)."""

    num_updates: int

    def __call__(self, step: jax.Array) -> jax.Array:
        boundaries = {-(-self.num_updates * k // 8): 0.1 for k in (5, 6, 7)}
        return optax.piecewise_constant_schedule(1.0, boundaries)(step)


SCHEDULES: dict[str, Callable[[int], UnitSchedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "warmup_cosine": WarmupCosine,
    "steps": Steps,
}


def apply_gradients(optimizer: Optimizer, rate, gradients, opt_state, params, hparams: HParams):
    """One update.

    Args: rate: f32[], the schedule's value now, in [0, 1]; gradients, params: like trees of f32.
    Returns: (params, opt_state).
    """
    decay = hparams.weight_decay
    if decay is not None and not optimizer.decoupled:
        gradients = jax.tree.map(lambda g, p: g + decay * p, gradients, params)
    updates, opt_state = optimizer.direction.update(gradients, opt_state, params)
    step = rate * hparams.learning_rate
    new = jax.tree.map(lambda p, u: p - step * u, params, updates)
    if decay is not None and optimizer.decoupled:
        new = jax.tree.map(lambda new, p: new - step * decay * p, new, params)
    return new, opt_state


def clip_columns(params, max_norm: float):
    """Scales each hidden unit's incoming weights (a column of its kernel) to L2 norm `max_norm` at most.

    The classifier ("logits") is left alone: its columns set the logits' scale.
    Source: Srivastava et al. 2014, section 5.1 (max-norm regularisation).
    """

    def clip(path, leaf):
        names = [entry.key for entry in path]
        if names[-1] != "kernel" or "logits" in names:
            return leaf
        norms = jnp.sqrt(jnp.sum(leaf**2, axis=tuple(range(leaf.ndim - 1)), keepdims=True))
        return leaf * jnp.minimum(1.0, max_norm / jnp.maximum(norms, 1e-12))

    return jax.tree_util.tree_map_with_path(clip, params)
