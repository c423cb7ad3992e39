"""A run folder from its claim to its end: who may use it, the training with its checkpoints, clearing up."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
from absl.flags import FLAGS

from experiments import report
from experiments.cli import cluster, flags, main, places, progress
from experiments.reporting import tensorboard
from kd_jax import models
from kd_jax.evaluate import ensemble, metrics
from kd_jax.io import checkpoint, run_config, run_folder, sums, tidy
from kd_jax.stats import summary
from kd_jax.stats.rows import TEACHER, Confusion, ResultRow
from kd_jax.train import Config, init_state, sweep
from kd_jax.types import HParams, InputError, Table, TrainState, Variables

LOCK = ".lock"
MOST_NAMED = 4  # of what differs from the run that a folder holds

NO_TIME = {"run_seconds": 0.0, "training_seconds": 0.0, "examples": 0}
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
    that an earlier process saved are the same."""
    if not path.exists():
        checkpoint.save(path, variables, metadata)


def open_run_folder(out: Path, config: dict, models_in: str = "") -> bool:
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
        complete = acquire_run_dir(out, config) and is_complete(out, models_in)
        if not complete:
            run_folder.unseal(out)
    except InputError:
        cluster.broadcast_from_host0(REFUSED)
        raise
    return cluster.broadcast_from_host0(COMPLETE if complete else OPEN) == COMPLETE


def acquire_run_dir(out: Path, config: dict) -> bool:
    """Whether the folder already held this experiment."""
    places.refuse_inside(out)
    try:
        if not out.exists() or (out.is_dir() and set(out.iterdir()) <= _leftovers(out)):
            made = not out.exists()
            out.mkdir(parents=True, exist_ok=True)
            _lock(out)
            run_config.write(out, config | {"time": NO_TIME})
            main.AT_END.callback(discard_if_empty, out, made)
            return False
    except OSError as error:
        raise InputError("--out cannot be written", "a folder that this user may write", error) from None
    if not (out / "config.json").is_file():
        expected, given = "a new folder, or one of the same experiment", f"{out}, which is no run folder"
        raise InputError("--out is taken", expected, given)
    before = run_config.read(out)
    differing = [
        f"--{name}={now} (there {'not given' if then is None else then})"
        for name in sorted(set(before["flags"]) | set(config["flags"]))
        # A flag that is younger than the run has not changed where it has its default.
        for now in [config["flags"].get(name)]
        for then in [before["flags"].get(name, FLAGS[name].default if name in FLAGS else None)]
        if name not in flags.NOT_PART_OF_THE_EXPERIMENT and now != then
    ]
    if before["experiment"] != config["experiment"]:
        differing = [f"experiment {config['experiment']} (there {before['experiment']})"]
    if (before["teacher"] or {}).get("sha256") != (config["teacher"] or {}).get("sha256"):
        differing.append("another teacher")
    for part, what in (("pretrained", "other pretrained weights"), ("transfer", "another transfer set")):
        if before.get(part) != config.get(part):
            differing.append(what)
    if not differing:  # the same words, yet not the same thing: a data file that was changed, another program
        parts = ("data", "settings", "runs")
        differing = [f"other {part} than then" for part in parts if before[part] != config[part]]
    if differing:
        expected = "a new folder, or the same flags"
        more = f" and {len(differing) - MOST_NAMED} more" if len(differing) > MOST_NAMED else ""
        raise InputError(f"--out={out} holds another run", expected, ", ".join(differing[:MOST_NAMED]) + more)
    _lock(out)
    return True


def discard_if_empty(out: Path, made: bool) -> None:
    """A run that came to nothing, as one that does not fit into the memory, does not keep its folder from a
    better one.  made: whether this process made the folder."""
    config = out / "config.json"
    with contextlib.suppress(OSError):
        if set(out.iterdir()) <= {config, *_leftovers(out)}:
            config.unlink()
            for path in _leftovers(out):
                path.unlink()
            if made:
                out.rmdir()


def _lock(out: Path) -> None:
    """Two processes in one folder would overwrite each other. The kernel drops the lock when this one dies.
    The file's content only says who holds it."""
    file = open(out / LOCK, "a+")  # noqa: SIM115
    main.AT_END.enter_context(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        expected, holder = "a folder that no other process writes", file.read().strip()
        raise InputError(f"--out={out} is in use", expected, f"one that process {holder} writes") from None
    except OSError:  # a file system without locks
        return
    if not _is_at(out / LOCK, file):  # whose holder ended meanwhile, and took it away
        _lock(out)
        return
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    main.AT_END.callback((out / LOCK).unlink, missing_ok=True)  # while it is held, so no one else's


def _is_at(path: Path, file: IO) -> bool:
    """Whether an open file is still the one that its path names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def train_runs(
    config: Config,
    table: Table,
    validation: Table | None,
    hparams: HParams,
    keys: jax.Array,
    out: Path,
    description: dict,
    start: Callable[[Config, jax.Array], TrainState] = sweep.init_states,
    folder: str = "checkpoints",
) -> tuple[TrainState, dict]:
    """Trains all runs, from the last checkpoint in `out` where there is one; a checkpoint after each segment.

    description: what config.json would say if the runs began now.
    start: (config, keys) -> the states of fresh runs.  folder: of the checkpoints, within `out`.
    Returns: (states, history): on the mesh, with its padding; {"train": {...}, "validation": {...}} of numpy
        arrays [R,E,...]; with `Config.track` also "corrected" and "probe".
    """
    saved_in = out / folder
    num_runs = len(keys)
    states, history, first = _starting_point(config, keys, saved_in, start)
    length = min(FLAGS.checkpoint_every, FLAGS.epochs)
    vmap_size = (
        sweep.default_vmap_size(jax.default_backend()) if FLAGS.vmap_size is None else FLAGS.vmap_size or None
    )
    if jax.process_index() == 0:
        _record_continuation(out, description, first)
    examples = num_runs * config.num_updates * config.batch_size
    of_seeds = summary.teachers_of_seeds(description)[: FLAGS.seeds]
    shown = progress.Training(FLAGS.epochs, first, length, examples, of_seeds)
    segments = sweep.run_segments(
        config,
        table,
        validation,
        hparams,
        states,
        FLAGS.epochs,
        length,
        vmap_size,
        partial(_wait, shown.tick),
    )
    with _stop_requests() as requests:
        _announce(num_runs, first)
        if history:
            _to_tensorboard(out, description, history, num_runs, first)
        since, trained = time.monotonic(), first
        for states, segment, epoch in segments:
            seconds = time.monotonic() - since
            segment = flax.serialization.to_state_dict(segment)
            join = lambda before, new: np.concatenate([before, new], axis=1)  # noqa: E731
            history = jax.tree.map(join, history, segment) if history else segment
            saying = {"epoch": epoch, "num_runs": num_runs}
            saved_as = saved_in / f"epoch_{epoch:06d}"
            checkpoint.save(saved_as, {"states": states, "history": history}, saying)
            if jax.process_index() == 0:
                for old in sorted(saved_in.glob("epoch_*"))[:-2]:
                    shutil.rmtree(old)
                seen = num_runs * (epoch - trained) * config.num_updates * config.batch_size
                _count_time(out, seconds, seen)
            shown.segment(epoch, history)
            _to_tensorboard(out, description, segment, num_runs, epoch)
            if request := cluster.allreduce_max(requests[0] if requests else 0):
                main.log_note(
                    f"{signal.Signals(request).name}: stopped after epoch {epoch}; the same command continues"
                )
                sys.exit(128 + request)
            since, trained = time.monotonic(), epoch
    if lost := np.count_nonzero(tidy.diverged_at(history)):
        what = f"{lost} of {num_runs} runs diverged, their numbers not finite any more"
        main.log_note(f"note: {what}: they stay as they were before, and are left out of all means")
    return states, history


def _starting_point(
    config: Config, keys: jax.Array, folder: Path, start: Callable[[Config, jax.Array], TrainState]
) -> tuple[TrainState, dict, int]:
    """(states, history, epoch) to go on from: the newest whole checkpoint's, or fresh states, {} and 0."""
    template = jax.eval_shape(jax.vmap(partial(init_state, config)), keys)
    states, history, epoch = _last_checkpoint(folder, template)
    if cluster.broadcast_from_host0(epoch) != epoch:
        expected = "an --out that all processes see alike, on one file system"
        raise InputError("the processes see different checkpoints", expected, f"{folder}, epoch {epoch}")
    if jax.process_index() == 0:
        for path in folder.glob("epoch_*"):
            if int(path.name.removeprefix("epoch_")) > epoch:  # damaged; the training will write it again
                shutil.rmtree(path)
    # The devices in use connect while no process is ahead of another.
    mesh = sweep.runs_mesh(len(keys))
    sweep.gather(sweep.put_on_mesh(np.zeros(mesh.size, np.float32), mesh, sweep.SHARDED), len(keys))
    if states is None:
        return start(config, keys), history, epoch
    print(f"continuing after epoch {epoch}")
    return states, history, epoch


def _last_checkpoint(folder: Path, template: TrainState) -> tuple[TrainState | None, dict, int]:
    """(states, history, epoch) of the newest checkpoint that is whole, in numpy, or (None, {}, 0).

    template: the states, padded as they were saved or not, as shapes.
    """
    saved = sorted(folder.glob("epoch_*"), reverse=True)
    for path in saved:
        try:
            states, history = _load_checkpoint(path, template)
        except InputError as error:
            if path == saved[-1]:
                raise
            main.log_note(f"{path.name} is passed over for the one before it: {' '.join(str(error).split())}")
            continue
        return states, history, int(states.epoch[0])
    return None, {}, 0


def _load_checkpoint(path: Path, template: TrainState) -> tuple[TrainState, dict]:
    arrays, metadata = checkpoint.load(path)
    try:
        # Another number of devices may have padded the runs otherwise.
        states = jax.tree.map(lambda leaf: leaf[: metadata.get("num_runs")], arrays["states"])
        return checkpoint.rebuild(template, states), arrays["history"]
    except (KeyError, ValueError, IndexError) as error:
        expected = "the states that this version of the code makes of these flags"
        raise InputError(f"checkpoint {path} does not fit", expected, error) from None


def _record_continuation(out: Path, description: dict, epoch: int) -> None:
    """Where another version, device or command goes on, config.json says so, and after which epoch."""
    now = {name: description[name] for name in ("versions", "device", "command")}
    config = run_config.read(out)
    continued = config.get("continued", [])
    last = continued[-1] if continued else config
    if any(last[name] != now[name] for name in now):
        run_config.write(out, config | {"continued": [*continued, now | {"epoch": epoch}]})


def _count_time(out: Path, training_seconds: float = 0.0, examples: int = 0) -> None:
    """Adds to config.json the time since this was last done, and what of it was training. A run that an older
    version began has none: it would be that of its end alone."""
    config, now = run_config.read(out), time.monotonic()
    more = {"run_seconds": now - _counted[0], "training_seconds": training_seconds, "examples": examples}
    _counted[0] = now
    if "time" in config:
        spent = {name: config["time"][name] + number for name, number in more.items()}
        run_config.write(out, config | {"time": spent})


def _announce(num_runs: int, epoch: int) -> None:
    if epoch == FLAGS.epochs:
        return
    runs, settings, seeds, epochs = (
        f"{count} {word}{'s' if count != 1 else ''}"
        for count, word in (
            (num_runs, "run"),
            (num_runs // FLAGS.seeds, "setting"),
            (FLAGS.seeds, "seed"),
            (FLAGS.epochs, "epoch"),
        )
    )
    stop = "Ctrl-C stops and saves"
    print(f"training {runs} ({settings} x {seeds}), {epochs}; {stop}", flush=True)


def _wait(tick: Callable[[], None], history: dict) -> None:
    """Sleeps until the segment is computed: blocked in compiled code, Python would not hear of a signal. At
    most a hundredth of the segment's time is lost.  tick: called now and then meanwhile."""
    start = time.monotonic()
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(history)):
        tick()
        time.sleep(min(0.05, 0.001 + (time.monotonic() - start) / 100))


@contextlib.contextmanager
def _stop_requests():
    """The list of SIGTERM and SIGINT (Ctrl-C) received inside the block, instead of what they usually do: a
    compiled segment cannot be left half-way, so it ends, is saved, and then the caller stops. A Ctrl-C after
    another request stops at once; not a second SIGTERM, for some programs send two at a time."""
    requests: list[int] = []

    def hear(number, frame):
        if requests and number == signal.SIGINT:
            _leave()
        requests.append(number)  # before the print: the next signal may come while it is written
        if len(requests) == 1:
            again = "again" if number == signal.SIGINT else "Ctrl-C"
            _say(f"finishing the segment, then stopping; {again} to stop at once")

    handlers = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield requests
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave() -> None:
    """Ends the process at once. An exception would not do: raised inside one of JAX's callbacks it is
    dropped, and JAX waits for the segment before it lets a process end."""
    _say("interrupted; the same command continues from the last checkpoint")
    with contextlib.suppress(RuntimeError):
        sys.stdout.flush()
    os._exit(128 + signal.SIGINT)


def _say(line: str) -> None:
    """A line on stderr from a signal handler, which may have interrupted a print: Python's own buffers refuse
    to be entered twice."""
    if jax.process_index() == 0:
        if progress.is_up():
            os.write(sys.stdout.fileno(), progress.CLEAR.encode())
        os.write(sys.stderr.fileno(), f"{line}\n".encode())


def _to_tensorboard(out: Path, description: dict, history: dict, num_runs: int, last: int) -> None:
    """With --tensorboard, adds these epochs, up to `last`. Where an experiment is several programs, whose
    runs are numbered together, all is written by `finish`."""
    runs = description["runs"]
    if not FLAGS.tensorboard or len(runs) != num_runs or jax.process_index() > 0:
        return
    omitted = {setting["name"]: setting["omitted"] for setting in description["settings"]}
    names = [run["setting"] for run in runs]
    rows = tidy.history_rows(history, names, [run["seed"] for run in runs], [omitted[n] for n in names])
    before = last - history["train"]["loss_sum"].shape[1]
    rows = [row._replace(epoch=row.epoch + before) for row in rows]
    tensorboard.add(out, rows, description, before + 1, last)


def _leftovers(out: Path) -> set[Path]:
    """What a killed process left: files half written under a name of their own, and its lock file."""
    names = r"config\.json|history\.csv|(results|bias_curve|representation)\.csv|summary\.json"
    names += rf"|(examples|confusions)\.npz|report\.(md|html)|{sums.NAME}"
    half_written = [path for path in out.glob(".*.tmp") if re.fullmatch(rf"\.({names})\.\d+\.tmp", path.name)]
    return {*half_written, *out.glob(LOCK)}


def finish(out: Path, saying: str = "") -> None:
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
    if FLAGS.tensorboard:
        tensorboard.write(out)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    for path in _leftovers(out):
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
            own = jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf[seed]), sums)
            rows += tidy.quality_rows(TEACHER, seed, split, own)
        for number, members in enumerate(ensembles):
            if len(members) > 1 and not lost.keys() & set(members):
                confusion = np.asarray(ensemble.confusion_of(logits[np.array(members)], table.labels))
                rows += tidy.ensemble_rows(TEACHER, number, split, confusion, omitted)
    return rows, matrices
