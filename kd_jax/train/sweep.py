"""Settings x seeds -> the runs axis: how it is stacked, mapped and placed.

The runs axis is split over all devices of all processes; the data are everywhere, one copy a device (one in
all for the cores of a CPU, which are devices here). Runs do not communicate, so what is computed does not
depend on how many devices there are. Only where there are fewer runs than devices may each run's batch be
split over the spare ones: the outcome is then the same to rounding.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kd_jax.models import is_dense
from kd_jax.models.split_batch import BATCH_AXIS
from kd_jax.train import Config, init_state
from kd_jax.types import BatchLoss, HParams, TrainState, Variables

# Threefry is compiled anew for each shape that an init draws, about a second each at full optimisation;
# without it, a fraction. The numbers drawn are the same integers either way.
QUICK_COMPILE = {"xla_backend_optimization_level": 0}


def make_hparams(
    num_classes: int,
    omitted: Sequence[int] = (),
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    temperature: float = 1.0,
    alpha: float = 0.0,
) -> HParams:
    """One setting's numbers as numpy scalars; the classes in `omitted` are masked."""
    mask = np.ones(num_classes, bool)
    mask[list(omitted)] = False
    numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    numbers |= {"temperature": temperature, "alpha": alpha}
    leaves: dict[str, Any] = {name: np.float32(number) for name, number in numbers.items()}
    return HParams(**leaves, class_mask=mask, teacher=np.int32(0))  # type: ignore[arg-type]


def stack_runs(settings: Sequence[HParams], seeds: Sequence[int], num_teachers: int = 1) -> HParams:
    """HParams with leading axis R = H x S, setting-major; student seed s learns from teacher seed s mod M.

    settings: H HParams of numpy scalars (their `teacher` is overwritten).  seeds: S non-negative ints.
    Returns: numpy leaves; weight_decay is None where no run has any, which saves the optimiser two passes
        over memory.
    """
    rows = [setting.replace(teacher=np.int32(seed % num_teachers)) for setting in settings for seed in seeds]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return stacked if np.any(stacked.weight_decay) else stacked.replace(weight_decay=None)


def run_keys(seeds: Sequence[int], num_settings: int, base: int) -> jax.Array:
    """Typed keys, leading axis R, setting-major. A run's key depends on its seed alone, so two settings share
    initialisation and order seed by seed, and their differences are paired.

    base: of all these keys. There is no default: under the same base a student of the same shapes would start
        from its teacher's initial weights.
    """
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(base)))(jnp.asarray(seeds, jnp.uint32))
    return jnp.tile(keys, num_settings)


def default_vmap_size(platform: str, model: Any) -> int | None:
    """How many runs a device vmaps together: one after another (1), or all at once (None).

    platform: of the devices, as jax.default_backend() names it. On CPUs one after another, measured for small
    and large networks alike by the part `vmap_sizes` of the benchmark. Elsewhere nothing is measured yet:
    fully connected networks all at once, as batched matrix products; convolutional ones one after another,
    for vmapped they become grouped convolutions.
    """
    return None if platform != "cpu" and is_dense(model) else 1


def runs_mesh(num_runs: int, parts: int = 1) -> Mesh:
    """Devices of every process, equally many of each, in one axis, "runs"; no more than the runs need.

    parts: as of `batch_parts`; where it is above 1, each run has so many devices, along a second axis.
    """
    of_process: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        of_process.setdefault(device.process_index, []).append(device)
    each = min(*map(len, of_process.values()), -(-num_runs // len(of_process)) * parts)
    devices = [device for process in sorted(of_process) for device in of_process[process][:each]]
    if parts == 1:
        return Mesh(np.array(devices), ("runs",), axis_types=(AxisType.Auto,))
    return Mesh(np.array(devices).reshape(-1, parts), ("runs", BATCH_AXIS), axis_types=(AxisType.Auto,) * 2)


def batch_parts(config: Config, hparams: HParams) -> int:
    """Into how many equal parts the batch of each run is split over the devices that R runs leave idle.

    1 where runs are as many as devices, and where an example's update depends on the others of its batch in
    another way than by batch normalisation: with mixup, teacher ablations, losses of whole batches and of
    hidden layers, and a generator. Also 1 of fully connected networks on a CPU, whose matrix products use all
    cores, and on several processes.
    hparams: leading axis R.
    """
    num_runs, num_devices = len(hparams.alpha), len(jax.devices())
    relates_examples = isinstance(config.loss_fn, BatchLoss) or hparams.teacher_ablation is not None
    # Connectors normalise by the whole batch; a generator has it all.
    relates_examples |= config.feature_match is not None or config.generator is not None
    has_threads = jax.default_backend() == "cpu" and is_dense(config.model)
    if config.mixup is not None or relates_examples or has_threads or jax.process_count() > 1:
        return 1
    spare = max(1, num_devices // num_runs)
    return max(parts for parts in range(1, spare + 1) if config.batch_size % parts == 0)


REPLICATED, SHARDED = PartitionSpec(), PartitionSpec("runs")


def put_on_mesh(tree, mesh: Mesh, spec: PartitionSpec):
    """The same arrays, the same in every process, on the mesh: SHARDED along the runs axis, or REPLICATED."""
    sharding = NamedSharding(mesh, spec)

    def put(leaf):
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        leaf = np.asarray(leaf)
        if spec == REPLICATED:
            leaf = _aligned(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree)


def on_mesh(shared, runs, num_runs: int) -> tuple[Mesh, Any, Any]:
    """(the mesh of these runs, `shared` on all its devices, `runs` split over them, with padding).

    runs: leading axis R, or on the mesh with its padding.
    """
    mesh = runs_mesh(num_runs)
    runs = put_on_mesh(pad_runs(runs, mesh.size), mesh, SHARDED)
    return mesh, put_on_mesh(shared, mesh, REPLICATED), runs


def _aligned(array: np.ndarray) -> np.ndarray:
    """The array at a multiple of 64 bytes in memory: all devices of a CPU then read this one copy of it."""
    buffer = np.empty(array.nbytes + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    aligned = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[...] = array
    return aligned


def gather(tree, num_runs: int):
    """Numpy arrays [num_runs, ...] in every process, of arrays on the mesh that may have padding runs."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:num_runs], tree)


def map_runs(function, vmap_size: int | None):
    """`function` over the leading axis of its one argument (a tree): all vmapped (None), one after
    another inside the same program (1), or `vmap_size` at a time. The result is the same, the cost is not."""
    if vmap_size is None:
        return jax.vmap(function)
    return lambda xs: jax.lax.map(function, xs, batch_size=None if vmap_size == 1 else vmap_size)


def over_runs(function, mesh: Mesh, vmap_size: int | None):
    """(shared, runs) -> `function(shared, run)` of every run: `shared` is everywhere, `runs` are split over
    the mesh, and each device maps its own, `vmap_size` at a time."""

    def map_device(shared, runs):
        return map_runs(partial(function, shared), vmap_size)(runs)

    in_specs = REPLICATED, SHARDED
    return jax.shard_map(map_device, mesh=mesh, in_specs=in_specs, out_specs=SHARDED, check_vma=False)


def init_states(config: Config, keys: jax.Array, pretrained_variables: Variables | None = None) -> TrainState:
    """States of R fresh runs, on the mesh, with its padding.

    keys: typed, [R].  pretrained_variables: what all runs start with instead of their own draws, as in
    `init_state`.
    """
    mesh, pretrained_variables, keys = on_mesh(pretrained_variables, keys, len(keys))
    # Block here, so that running out of memory is raised here and not as a hang later.
    return jax.block_until_ready(_init_all(config, mesh, pretrained_variables, keys))


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK_COMPILE)
def _init_all(config, mesh, pretrained_variables, keys):
    init = lambda shared, key: init_state(config, key, shared)  # noqa: E731
    return over_runs(init, mesh, 1)(pretrained_variables, keys)


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
