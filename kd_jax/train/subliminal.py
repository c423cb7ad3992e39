"""Subliminal learning (Cloud et al. 2025, section 6.2): students that start where their teacher did, or not.

A network has K class outputs and then A auxiliary ones. Model i's initial weights are a function of its key.
Student i learns from teacher i; what it shares starts from model i's initial weights, all else from model
i + 1's (the last one's from the first's), so a pair that shares nothing shares it for sure: the published
control permutes at random, and one pair in a hundred stays a pair. Neighbours have a model in common, which
intervals over models neglect, here as there.
"""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp

from kd_jax.models import init_variables
from kd_jax.train import Config, init_state
from kd_jax.train.keys import INIT, PERTURB
from kd_jax.train.sweep import QUICK_COMPILE, on_mesh, over_runs
from kd_jax.types import TrainState

PARTS = ("hidden", "class_head", "auxiliary_head")
"""The parameters that may be shared: all but the last layer, and that layer's columns of each kind."""


class Start(flax.struct.PyTreeNode):
    """Where a student starts; with a leading axis R when stacked.

    shared: bool[3], which of PARTS come from its teacher's initial weights. perturb: f32[], the deviation of
    what is added to every kernel, in units of that of the kernel's own initial weights, 1 / sqrt(fan_in).
    """

    shared: jax.Array
    perturb: jax.Array


def initial_params(
    config: Config, key: jax.Array, shared_key: jax.Array, other_key: jax.Array, start: Start
) -> dict:
    """A student's initial parameters, f32, a tree as of `init_variables` (Cloud et al. 2025, section 6.2).

    key: its own; shared_key, other_key: of models i and i + 1; typed [], the runs' own, not consumed.
    """
    init = lambda key: init_variables(  # noqa: E731
        config.model, jax.random.fold_in(key, INIT), config.image_shape
    )["params"]
    noise_key = jax.random.fold_in(key, PERTURB)

    def merge(number, path, of_teacher, of_other):
        layer, name = path[-2].key, path[-1].key
        shared = start.shared[0]
        if layer == "logits":
            of_class = jnp.arange(of_teacher.shape[-1], dtype=jnp.int32) < config.num_classes
            shared = jnp.where(of_class, start.shared[1], start.shared[2])
            shared = shared.reshape((1,) * (of_teacher.ndim - 1) + (-1,))
        merged = jnp.where(shared, of_teacher, of_other)
        if name != "kernel":
            return merged
        drawn = jax.random.normal(jax.random.fold_in(noise_key, number), merged.shape, jnp.float32)
        return merged + start.perturb * drawn * (merged.size // merged.shape[-1]) ** -0.5

    leaves, tree = jax.tree_util.tree_flatten_with_path(init(shared_key))
    others = jax.tree.leaves(init(other_key))
    merged = [merge(i, *leaf, other) for i, (leaf, other) in enumerate(zip(leaves, others, strict=True))]
    return jax.tree.unflatten(tree, merged)


def student_states(
    config: Config, keys: jax.Array, shared_keys: jax.Array, other_keys: jax.Array, starts: Start
) -> TrainState:
    """States of R students before their first epoch, on the mesh, with its padding.

    keys, shared_keys, other_keys: typed, [R], as in `initial_params`; starts: leading axis R.
    """
    mesh, _, runs = on_mesh((), (keys, shared_keys, other_keys, starts), len(keys))
    return jax.block_until_ready(_start_all(config, mesh, runs))  # as `init_states`


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK_COMPILE)
def _start_all(config, mesh, runs):
    def one(_, run):
        return init_state(config, run[0], {"params": initial_params(config, *run)})

    return over_runs(one, mesh, 1)(None, runs)
