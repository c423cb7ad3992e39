"""Settings x seeds -> the runs axis: how it is stacked, mapped, placed, and run in segments."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kd_jax.train import Config, fit, init_state
from kd_jax.types import Counts, HParams, Table, TrainState

# Threefry is compiled anew for each shape that an init draws, about a second each at full optimisation;
# without it, a fraction. The numbers drawn are the same integers either way.
QUICK_COMPILE = {"xla_backend_optimization_level": 0}


def stack_runs(settings: Sequence[HParams], seeds: Sequence[int], num_teachers: int = 1) -> HParams:
    """HParams with leading axis R = H x S, setting-major; student seed s learns from teacher seed s mod M.

    settings: H HParams of numpy scalars (their `teacher` is overwritten).  seeds: S non-negative ints.
    """
    rows = [setting.replace(teacher=np.int32(seed % num_teachers)) for setting in settings for seed in seeds]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def run_keys(seeds: Sequence[int], num_settings: int, base: int = 0) -> jax.Array:
    """Typed keys, leading axis R, setting-major. A run's key depends on its seed alone, so two settings share
    initialisation and order seed by seed, and their differences are paired."""
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(base)))(jnp.asarray(seeds, jnp.uint32))
    return jnp.tile(keys, num_settings)


def default_chunk() -> int | None:
    """How many runs are vmapped together: one after another on a CPU, all at once elsewhere (None)."""
    return 1 if jax.default_backend() == "cpu" else None


def runs_mesh() -> Mesh:
    """All local devices in one axis, "runs"."""
    devices = np.array(jax.local_devices())
    return Mesh(devices, ("runs",), axis_types=(AxisType.Auto,))


def map_runs(function, chunk: int | None):
    """`function` over the leading axis of its one argument (a tree): all vmapped (chunk None), one after
    another inside the same program (1), or `chunk` at a time. The result is the same, the cost is not."""
    if chunk is None:
        return jax.vmap(function)
    return lambda xs: jax.lax.map(function, xs, batch_size=None if chunk == 1 else chunk)


def init_states(config: Config, keys: jax.Array) -> TrainState:
    """States of R fresh runs, leading axis R.  keys: typed, [R]."""
    return jax.jit(map_runs(partial(init_state, config), 1), compiler_options=QUICK_COMPILE)(keys)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=8)
def _segment(config, length, chunk, mesh, table, validation, num_epochs, hparams, states):
    def mapped(table, validation, num_epochs, hparams, states):
        one = lambda run: fit(config, table, validation, run[0], run[1], num_epochs, length)  # noqa: E731
        return map_runs(one, chunk)((hparams, states))

    everywhere, split = PartitionSpec(), PartitionSpec("runs")
    return jax.shard_map(
        mapped,
        mesh=mesh,
        in_specs=(everywhere, everywhere, everywhere, split, split),
        out_specs=split,
        check_vma=False,
    )(table, validation, num_epochs, hparams, states)


def pad_runs(tree, multiple: int):
    """Repeats the last run until the leading axis is a multiple of `multiple`."""

    def pad(leaf):
        short = -leaf.shape[0] % multiple
        last = leaf.shape[0] - 1
        return leaf if not short else _rows(leaf, np.minimum(np.arange(leaf.shape[0] + short), last))

    return jax.tree.map(pad, tree)


def _rows(leaf, index):
    """leaf[index], of a key by way of its data: a padding run repeats its key on purpose."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.random.key_data(leaf)[index], impl=jax.random.key_impl(leaf))
    return leaf[index]


def run_segments(
    config: Config,
    table: Table,
    validation: Table | None,
    hparams: HParams,
    states: TrainState,
    num_epochs: int,
    length: int,
    chunk: int | None,
    wait: Callable[[dict[str, Counts]], object] = jax.block_until_ready,
) -> Iterator[tuple[TrainState, dict[str, Counts], int]]:
    """Trains R runs in compiled segments of `length` epochs; the only host loop.

    Args: hparams, states: leading axis R; states are donated: use what is yielded instead.
        num_epochs: in all, from the first; states may already hold some of them.
        wait: is given a segment's history while it is computed, and returns when it is there.
    Yields: (states, history, epoch) after each segment: history's leaves are numpy [R, epochs of this
        segment, ...]; epoch counts the finished ones. Read the states before the next step of the iteration.
    """
    mesh = runs_mesh()
    num_runs = hparams.alpha.shape[0]
    # Placed as the program's own output is, or the second segment would be traced and compiled anew.
    placed = NamedSharding(mesh, PartitionSpec("runs"))
    hparams, states = jax.device_put((pad_runs(hparams, mesh.size), pad_runs(states, mesh.size)), placed)
    epoch = int(states.epoch[0])
    while epoch < num_epochs:
        now = min(length, num_epochs - epoch)
        states, history = _segment(
            config, length, chunk, mesh, table, validation, jnp.int32(now), hparams, states
        )
        wait(history)
        epoch += now
        cut = lambda x, now=now: np.asarray(x)[:num_runs, :now]  # noqa: E731
        yield jax.tree.map(lambda x: _rows(x, slice(num_runs)), states), jax.tree.map(cut, history), epoch
