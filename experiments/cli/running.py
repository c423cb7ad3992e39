"""A run folder: its training by the flags, with progress and time, and its end."""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cli import cluster, main, progress, run_dir, signals
from experiments.cli.flags import RunConfig
from experiments.reporting import report, tensorboard
from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.evaluate import ensemble, metrics
from kd_jax.io import checkpoint, run_config, run_folder, sums, tidy
from kd_jax.stats.description import RunDescription, TimeSpent
from kd_jax.stats.rows import TEACHER, Confusion, ResultRow
from kd_jax.train import Config, loop, sweep
from kd_jax.types import HParams, Table, TrainState, Variables

_counted = [time.monotonic()]  # up to when config.json has counted this process's time

# What process 0 found of the run folder.
OPEN, COMPLETE, REFUSED = 0, 1, 2


def is_complete(out: Path, models_in: str = "") -> bool:
    """Whether nothing is left to be computed: results.csv is the last file of what was measured. A folder
    that lost it after its end, and has no checkpoint to go on from, is not trained again over what it holds.

    models_in: the checkpoint of the trained networks in `out`, where the experiment saves them.
    """
    # os.path's, unlike Path's, answers False for a name that is too long: open_run_folder refuses that one.
    trained = bool(models_in) and os.path.exists(out / models_in)
    return os.path.exists(out / "results.csv") or (trained and not os.path.exists(out / "checkpoints"))


def save_models(path: Path, variables: Variables, metadata: dict[str, Any]) -> None:
    """The trained networks, before anything is computed of them: a failure there costs no training. Those
    that an earlier process saved are the same, unless they were damaged since: then they are saved again."""
    whole = False
    if jax.process_index() == 0:
        with contextlib.suppress(InputError, OSError):
            checkpoint.load(path)
            whole = True
        if not whole:
            shutil.rmtree(path, ignore_errors=True)
    if not cluster.broadcast_from_host0(int(whole)):
        checkpoint.save(path, variables, metadata)


def open_run_folder(out: Path, description: RunDescription, models_in: str = "") -> bool:
    """Claims `out` for this experiment: writes config.json, or checks that the one there is of the same one;
    and for this process, until main ends. Of several processes, number 0 does it for all.

    models_in: as in `is_complete`.
    Returns: True where it is complete. Errors: InputError naming what differs, or the process that holds the
    folder.
    """
    if jax.process_index() > 0:
        verdict = cluster.broadcast_from_host0(0)
        if verdict == REFUSED:
            cluster.abort(2, "refused by process 0")
        return verdict == COMPLETE
    try:
        complete = run_dir.acquire(out, description) and is_complete(out, models_in)
        if not complete:
            run_folder.unseal(out)
    except InputError:
        cluster.broadcast_from_host0(REFUSED)
        raise
    return cluster.broadcast_from_host0(COMPLETE if complete else OPEN) == COMPLETE


def train_runs(
    options: RunConfig,
    config: Config,
    table: Table,
    validation: Table | None,
    hparams: HParams,
    keys: jax.Array,
    description: RunDescription,
    start: loop.Start = sweep.init_states,
    folder: str = "checkpoints",
) -> tuple[TrainState, dict]:
    """The training of `loop.checkpointed_segments` by the flags: with its progress on stdout, its time in
    config.json, and signals that stop it after a segment.

    description: what config.json would say if the runs began now.
    start: (config, keys) -> the states of fresh runs.  folder: of the checkpoints, within `options.out`.
    Returns: (states, history): on the mesh, with its padding; {"train": {...}, "validation": {...}} of numpy
        arrays [R,E,...]; with `Config.monitor` also "corrected" and "probe".
    """
    num_runs, out = len(keys), options.out
    length = min(options.checkpoint_every, options.epochs)
    vmap_size = options.vmap_size or None
    if options.vmap_size is None:
        vmap_size = sweep.default_vmap_size(jax.default_backend(), config.model)
    computed = 0.0  # when the last segment was

    def wait(of_segment: dict) -> None:
        nonlocal computed
        _wait(shown.tick, of_segment)
        computed = time.monotonic()

    segments = loop.checkpointed_segments(
        config, table, validation, hparams, keys, out / folder, options.epochs, length, vmap_size, start, wait
    )
    states, history, first = next(segments)
    if first:
        print(f"continuing after epoch {first}")
    if jax.process_index() == 0:
        _record_continuation(out, description, first)
    examples = num_runs * config.num_updates * config.batch_size  # of an epoch
    of_seeds = description.teachers_of_seeds()[: options.seeds]
    shown = progress.Training(options.epochs, first, length, examples, of_seeds)
    with signals.stop_requests() as requests:
        _announce(options, num_runs, first)
        _to_tensorboard(options, description, history, num_runs, 0, first)
        since, trained = time.monotonic(), first
        for states, history, epoch in segments:  # noqa: B007
            if jax.process_index() == 0:
                _count_time(out, computed - since, (epoch - trained) * examples)
            shown.segment(epoch, history)
            _to_tensorboard(options, description, history, num_runs, trained, epoch)
            if request := cluster.allreduce_max(requests[0] if requests else 0):
                main.log_note(
                    f"{signal.Signals(request).name}: stopped after epoch {epoch}; the same command continues"
                )
                sys.exit(128 + request)
            since, trained = time.monotonic(), epoch
    _note_diverged(history, num_runs)
    return states, history


def _note_diverged(history: dict, num_runs: int) -> None:
    if lost := np.count_nonzero(tidy.diverged_at(history)):
        what = f"{lost} of {num_runs} runs diverged, their numbers not finite any more"
        main.log_note(f"note: {what}: they stay as they were before, and are left out of all means")


def _record_continuation(out: Path, description: RunDescription, epoch: int) -> None:
    """Where another version, device or command goes on, config.json says so, and after which epoch."""
    before = run_config.read(out)
    now, then = (
        {name: getattr(one, name) for name in ("versions", "device", "command")}
        for one in (description, before)
    )
    last = before.continued[-1] if before.continued else then
    if not isinstance(last, dict) or any(last.get(name) != now[name] for name in now):
        run_config.write(out, replace(before, continued=(*before.continued, now | {"epoch": epoch})))


def _count_time(out: Path, training_seconds: float = 0.0, examples: int = 0) -> None:
    """Adds to config.json the time since this was last done, and what of it was training. A run that an older
    version began has none: it would be that of its end alone."""
    description, now = run_config.read(out), time.monotonic()
    seconds, _counted[0] = now - _counted[0], now
    if before := description.time:
        spent = TimeSpent(
            before.run_seconds + seconds,
            before.training_seconds + training_seconds,
            before.examples + examples,
        )
        run_config.write(out, replace(description, time=spent))


def _announce(options: RunConfig, num_runs: int, epoch: int) -> None:
    if epoch == options.epochs:
        return
    runs, settings, seeds, epochs = (
        f"{count} {word}{'s' if count != 1 else ''}"
        for count, word in (
            (num_runs, "run"),
            (num_runs // options.seeds, "setting"),
            (options.seeds, "seed"),
            (options.epochs, "epoch"),
        )
    )
    stop = "Ctrl-C stops and saves"
    print(f"training {runs} ({settings} x {seeds}), {epochs}; {stop}", flush=True)


def _wait(tick: Callable[[], None], history: dict) -> None:
    """Sleeps until the segment is computed: blocked in compiled code, Python would not handle a signal. At
    most a hundredth of the segment's time is lost.  tick: called now and then meanwhile."""
    start = time.monotonic()
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(history)):
        tick()
        time.sleep(min(0.05, 0.001 + (time.monotonic() - start) / 100))


def _to_tensorboard(
    options: RunConfig, description: RunDescription, history: dict, num_runs: int, before: int, last: int
) -> None:
    """With --tensorboard, adds the epochs after `before`, up to `last`, of a history of all so far. Where an
    experiment is several programs, whose runs are numbered together, all is written by `finish`."""
    runs = description.runs
    if not options.tensorboard or last == before or len(runs) != num_runs or jax.process_index() > 0:
        return
    omitted = {setting.name: setting.omitted for setting in description.settings}
    names = [run.setting for run in runs]
    new = jax.tree.map(lambda leaf: leaf[:, before:], history)
    rows = tidy.history_rows(new, names, [run.seed for run in runs], [omitted[n] for n in names])
    rows = [row._replace(epoch=row.epoch + before) for row in rows]
    tensorboard.add(options.out, rows, description, before + 1, last)


def finish(out: Path, with_tensorboard: bool, saying: str = "") -> None:
    """The outcome is on disk: the report is written, and the checkpoints of the way there are removed."""
    if jax.process_index() > 0:
        return
    if saying:
        print(f"{out} {saying}")
    else:
        _count_time(out)
    if not (out / sums.NAME).exists():
        run_folder.seal(out)
    print(report.build(out))
    if with_tensorboard:
        tensorboard.write(out)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    for path in run_dir.leftovers(out):
        path.unlink(missing_ok=True)


def teacher_rows(
    modules: Sequence[Any],
    variables: Sequence[Variables],
    ensembles: Sequence[Sequence[int]],
    validation: Table | None,
    test: Table,
    omitted: Sequence[int] = (),
    lost: Mapping[int, int] | None = None,
) -> tuple[list[ResultRow], list[Confusion]]:
    """What results.csv and confusions.npz have of groups of teachers, and of each ensemble that has several
    members.

    variables: of each group, leading axis M; ensembles: numbers of teachers, counted through all groups;
    omitted: classes they never saw; lost: numbers of those that diverged, and the epoch.
    """
    lost = lost or {}
    rows = [tidy.diverged_row(TEACHER, seed, epoch) for seed, epoch in lost.items()]
    matrices = []
    for split, table in (("validation", validation), ("test", test)):
        if table is None:
            continue
        groups = zip(modules, variables, strict=True)
        logits = jnp.concatenate([models.predict_stacked(*group, table.images) for group in groups])
        sums = jax.jit(jax.vmap(metrics.quality, (0, None)))(logits, table.labels)
        for seed, predicted in enumerate(jnp.argmax(logits, axis=-1)):
            if seed in lost:
                continue
            confusion = np.asarray(metrics.confusion(predicted, table.labels, logits.shape[-1]))
            rows += tidy.result_rows(TEACHER, seed, split, "none", confusion, omitted, None)
            if split == "test":
                matrices.append(Confusion(TEACHER, seed, "none", confusion))
            of_seed = jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf[seed]), sums)
            rows += tidy.quality_rows(TEACHER, seed, split, of_seed)
        for number, members in enumerate(ensembles):
            if len(members) > 1 and not lost.keys() & set(members):
                confusion = np.asarray(ensemble.confusion_of(logits[np.array(members)], table.labels))
                rows += tidy.ensemble_rows(TEACHER, number, split, confusion, omitted)
    return rows, matrices
