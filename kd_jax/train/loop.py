"""The loop on the host: compiled segments of some epochs, and between them checkpoints.

A training that is interrupted, for whatever reason, and called again with the same arguments goes on from its
newest checkpoint and ends with the same bits.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import flax.serialization
import jax
import numpy as np

from kd_jax.errors import InputError
from kd_jax.io import checkpoint
from kd_jax.train import Config, fit, init_state, sweep, variables_of
from kd_jax.types import Counts, HParams, Table, TrainState, Variables

Start = Callable[[Config, jax.Array], TrainState]
"""(config, keys [R]) -> the states of fresh runs, on the mesh or not, as of `sweep.init_states`."""

CHECKPOINTS_KEPT = 2  # the newest may be damaged

_log = logging.getLogger(__name__)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=8)
def _segment(config, length, vmap_size, mesh, table, validation, num_epochs, hparams, states):
    def one(shared, run):
        table, validation, num_epochs = shared
        return fit(config, table, validation, run[0], run[1], num_epochs, length)

    return sweep.over_runs(one, mesh, vmap_size)((table, validation, num_epochs), (hparams, states))


def run_segments(
    config: Config,
    table: Table,
    validation: Table | None,
    hparams: HParams,
    states: TrainState,
    num_epochs: int,
    length: int,
    vmap_size: int | None,
    wait: Callable[[dict[str, Counts]], object] = jax.block_until_ready,
) -> Iterator[tuple[TrainState, dict[str, Counts], int]]:
    """Trains R runs in compiled segments of `length` epochs; the only host loop.

    Args: hparams: leading axis R. states: leading axis R, or on the mesh with its padding, as
            `sweep.init_states` gives them; then they are donated: use what is yielded instead.
        table, validation: `put_on_mesh` them REPLICATED first where they are used again.
        num_epochs: in all, from the first; states may already hold some of them.
        wait: is given a segment's history while it is computed, and returns when it is there.
    Yields: (states, history, epoch) after each segment: states on the mesh, with its padding; history's
        leaves are numpy [R, epochs of this segment, ...]; epoch counts the finished ones. Read the states
        before the next step of the iteration.
    """
    num_runs = hparams.alpha.shape[0]
    mesh = sweep.runs_mesh(num_runs, sweep.batch_parts(config, hparams))
    table, validation = sweep.put_on_mesh((table, validation), mesh, sweep.REPLICATED)
    # Placed as the program's own output is, or the second segment would be traced and compiled anew.
    hparams, states = sweep.put_on_mesh(
        sweep.pad_runs((hparams, states), mesh.shape["runs"]), mesh, sweep.SHARDED
    )
    epoch = int(states.epoch.addressable_data(0)[0])
    while epoch < num_epochs:
        now = min(length, num_epochs - epoch)
        states, history = _segment(
            config, length, vmap_size, mesh, table, validation, np.int32(now), hparams, states
        )
        wait(history)
        epoch += now
        cut = lambda x, now=now: x[:, :now]  # noqa: E731
        yield states, jax.tree.map(cut, sweep.gather(history, num_runs)), epoch


def fit_runs(
    config: Config,
    table: Table,
    settings: Sequence[HParams],
    seeds: Sequence[int],
    num_epochs: int,
    *,
    base: int,
    validation: Table | None = None,
) -> tuple[Variables, dict[str, Counts]]:
    """Trains settings x seeds from their first epoch to their last as one segment, without a checkpoint.

    settings: H HParams as of `sweep.make_hparams`; student seed s learns from teacher seed s mod M of the
        table's.
    base: of the runs' keys, as in `sweep.run_keys`: by convention 0 for teachers, 1 for their students, and
        so on.
    Returns: (variables, history) as numpy, leading axis R = H x S, setting-major; history as of `fit`.
    """
    taught = table.teacher_logits or table.teacher_variables
    num_teachers = len(jax.tree.leaves(taught)[0]) if taught else 1
    states = sweep.init_states(config, sweep.run_keys(seeds, len(settings), base))
    hparams = sweep.stack_runs(settings, seeds, num_teachers)
    vmap_size = sweep.default_vmap_size(jax.default_backend(), config.model)
    segments = run_segments(config, table, validation, hparams, states, num_epochs, num_epochs, vmap_size)
    states, history, _ = next(segments)
    return sweep.gather(variables_of(states), len(settings) * len(seeds)), history


def train(
    config: Config,
    table: Table,
    validation: Table | None,
    hparams: HParams,
    keys: jax.Array,
    folder: str | os.PathLike,
    num_epochs: int,
    every: int,
    *,
    start: Start = sweep.init_states,
    on_segment: Callable[[int, dict], object] | None = None,
) -> tuple[TrainState, dict]:
    """Trains R runs up to epoch `num_epochs`, with a checkpoint in `folder` every so many epochs.

    Args, returns, errors: as of `checkpointed_segments`, whose last states and history these are.
        on_segment: is called with (epoch, history) of the point from which the training goes on, and after
            each checkpoint.
    """
    vmap_size = sweep.default_vmap_size(jax.default_backend(), config.model)
    segments = checkpointed_segments(
        config, table, validation, hparams, keys, folder, num_epochs, every, vmap_size, start
    )
    for states, history, epoch in segments:  # noqa: B007
        if on_segment is not None:
            on_segment(epoch, history)
    return states, history


def checkpointed_segments(
    config: Config,
    table: Table,
    validation: Table | None,
    hparams: HParams,
    keys: jax.Array,
    folder: str | os.PathLike,
    num_epochs: int,
    every: int,
    vmap_size: int | None,
    start: Start = sweep.init_states,
    wait: Callable[[dict[str, Counts]], object] = jax.block_until_ready,
) -> Iterator[tuple[TrainState, dict, int]]:
    """`run_segments` from the newest checkpoint in `folder`, with a checkpoint after each segment.

    Args: hparams: leading axis R. keys: typed, [R], as of `sweep.run_keys`.
        folder: of the checkpoints, epoch_N after N epochs, of which the last two stay. It may be new. A
            damaged checkpoint is passed over for the one before it, with a warning of `logging`.
        num_epochs: in all, from the first. every: epochs from one checkpoint to the next.
        vmap_size, wait: as of `run_segments`.
    Yields: (states, history, epoch) of the point from which the training goes on (fresh runs: epoch 0 and an
        empty history), and after each checkpoint. states: on the mesh, with its padding; read them before the
        next step of the iteration. history: of all epochs so far, {"train": {...}, "validation": {...}, ...},
        the fields of `Counts` as numpy [R,E,...]. epoch: the number of finished ones.
    Errors: InputError where the folder holds another experiment, where all of its checkpoints are damaged, or
        where they are of more epochs than these.
    """
    folder, num_runs = Path(folder), len(keys)
    experiment = _describe_experiment(config, table, validation, hparams, keys)
    states, history, epoch = _load_newest(folder, config, keys, experiment)
    if epoch > num_epochs:
        raise InputError(f"{folder} holds a longer training", f"at most {num_epochs} epochs", epoch)
    mesh = sweep.runs_mesh(num_runs)
    # The devices in use connect while no process is ahead of another.
    sweep.gather(sweep.put_on_mesh(np.zeros(mesh.size, np.float32), mesh, sweep.SHARDED), num_runs)
    states = start(config, keys) if states is None else states
    states = sweep.put_on_mesh(sweep.pad_runs(states, mesh.size), mesh, sweep.SHARDED)
    yield states, history, epoch
    segments = run_segments(config, table, validation, hparams, states, num_epochs, every, vmap_size, wait)
    for states, segment, epoch in segments:
        segment = flax.serialization.to_state_dict(segment)
        joined = partial(jax.tree.map, lambda before, new: np.concatenate([before, new], axis=1))
        history = joined(history, segment) if history else segment
        metadata = {"epoch": epoch, "num_runs": num_runs, "experiment": experiment}
        fields = flax.serialization.to_state_dict(states)
        tree = {"states": {k: v for k, v in fields.items() if v is not None}, "history": history}
        checkpoint.save(folder / f"epoch_{epoch:06d}", tree, metadata)
        if jax.process_index() == 0:
            for old in _saved(folder)[:-CHECKPOINTS_KEPT]:
                shutil.rmtree(old)
        yield states, history, epoch


def _saved(folder: Path) -> list[Path]:
    """The checkpoints, the oldest first. What has another name is not ours, and stays."""
    return sorted(path for path in folder.glob("epoch_*") if re.fullmatch("epoch_[0-9]{6,}", path.name))


def _load_newest(
    folder: Path, config: Config, keys: jax.Array, experiment: dict[str, str]
) -> tuple[TrainState | None, dict, int]:
    """(states, history, epoch) of the newest checkpoint that is whole, or (None, {}, 0) where there is none.
    Newer ones, which are damaged, are removed: the training will write them again."""
    saved = _saved(folder)
    _require_same_experiment(saved, experiment)
    template = jax.eval_shape(jax.vmap(partial(init_state, config)), keys)
    states: TrainState | None = None
    history: dict = {}
    epoch = 0
    for path in reversed(saved):
        try:
            states, history = _load(path, template)
        except InputError as error:
            if path == saved[0]:
                raise
            reason = " ".join(str(error).split())
            _log.warning("%s is passed over for the one before it: %s", path.name, reason)
            continue
        epoch = int(states.epoch[0])
        break
    _require_same_epoch(folder, epoch)
    if jax.process_index() == 0:
        for path in saved:
            if int(path.name.removeprefix("epoch_")) > epoch:
                shutil.rmtree(path)
    return states, history, epoch


def _load(path: Path, template: TrainState) -> tuple[TrainState, dict]:
    """(states, history) in numpy.  template: the states as shapes."""
    arrays, metadata = checkpoint.load(path)
    try:
        # Another number of devices may have padded the runs otherwise.
        states = jax.tree.map(lambda leaf: leaf[: metadata.get("num_runs")], arrays["states"])
        absent = {name: field for name, field in vars(template).items() if not jax.tree.leaves(field)}
        return checkpoint.rebuild(template, absent | states), arrays["history"]
    except (KeyError, ValueError, IndexError) as error:
        expected = "the states that this version of the code makes of these arguments"
        raise InputError(f"checkpoint {path} does not fit", expected, error) from None


def _require_same_epoch(folder: Path, epoch: int) -> None:
    """Errors: InputError where process 0 goes on from another epoch than this process."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        if int(multihost_utils.broadcast_one_to_all(epoch)) != epoch:
            expected = "a folder that all processes see alike, on one file system"
            raise InputError("the processes see different checkpoints", expected, f"{folder}, epoch {epoch}")


def _require_same_experiment(saved: Sequence[Path], experiment: dict[str, str]) -> None:
    """Errors: InputError that names what differs. Checkpoints of older versions say nothing of it."""
    for path in saved:
        before: dict[str, str] = {}
        with contextlib.suppress(InputError):  # damaged
            before = checkpoint.read_manifest(path)[0].get("experiment", {})
        if differing := [name for name in before if before[name] != experiment.get(name)]:
            what, expected = f"{path.parent} holds another experiment", "a new folder, or the same arguments"
            raise InputError(what, expected, f"other {', '.join(differing)} than there")


def _describe_experiment(
    config: Config, table: Table, validation: Table | None, hparams: HParams, keys: jax.Array
) -> dict[str, str]:
    """Digests of what must be the same when a training goes on.

    Of teachers the shapes alone: their logits are computed, and differ by rounding between two devices.
    """
    # A field that is younger than a checkpoint has not changed where it has its default.
    fields = {field: getattr(config, field.name) for field in dataclasses.fields(config)}
    chosen = {field.name: value for field, value in fields.items() if value != field.default}
    given = [table] if validation is None else [table, validation]
    data = [array for one in given for array in (one.images, one.labels)]
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(given)]
    named = jax.tree.leaves_with_path(hparams)
    numbers = [part for path, leaf in named for part in (jax.tree_util.keystr(path).encode(), leaf)]
    return {
        "config": _digest(re.sub(" at 0x[0-9a-f]+", "", repr(chosen)).encode()),  # addresses of functions
        "data": _digest(repr(shapes).encode(), *data),
        "hyper-parameters": _digest(*numbers),
        "keys": _digest(jax.random.key_data(keys)),
    }


def _digest(*parts: bytes | np.ndarray | jax.Array) -> str:
    """The sha256 (hex) of text and arrays, dtypes and shapes of arrays included."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
        else:
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()
