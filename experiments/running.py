"""A run folder from its claim to its end: who may use it, the training with its checkpoints, clearing up."""

import contextlib
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from kd_jax import checkpoint, metrics, models, results, sweep, tidy
from kd_jax.train import Config
from kd_jax.types import HParams, InputError, Table, TrainState

FLAGS = flags.FLAGS

# They choose how the work is done, not what comes out: a run may be continued with other values.
NOT_PART_OF_THE_EXPERIMENT = frozenset({"out", "data_dir", "checkpoint_every", "chunk"})


def open_run_folder(out: Path, config: dict) -> bool:
    """Claims `out` for this experiment: writes config.json, or checks that the one there is of the same one.

    Returns: True where the folder already held this experiment. Errors: InputError naming what differs.
    """
    try:
        if not out.exists() or (out.is_dir() and set(out.iterdir()) <= _leftovers(out)):
            out.mkdir(parents=True, exist_ok=True)
            results.write_config(out, config)
            return False
    except OSError as error:
        raise InputError("--out cannot be written", "a folder that this user may write", error) from None
    if not (out / "config.json").is_file():
        expected, given = "a new folder, or one of the same experiment", f"{out}, which is no run folder"
        raise InputError("--out is taken", expected, given)
    before = results.read_config(out)
    differing = [
        f"--{name}={config['flags'].get(name)} (there {before['flags'].get(name)})"
        for name in sorted(set(before["flags"]) | set(config["flags"]))
        if name not in NOT_PART_OF_THE_EXPERIMENT and before["flags"].get(name) != config["flags"].get(name)
    ]
    if before["experiment"] != config["experiment"]:
        differing = [f"experiment {config['experiment']} (there {before['experiment']})"]
    if (before["teacher"] or {}).get("sha256") != (config["teacher"] or {}).get("sha256"):
        differing.append("another teacher")
    if not differing:  # the same words, yet not the same thing: a data file that was changed, another program
        parts = ("data", "settings", "runs")
        differing = [f"other {part} than then" for part in parts if before[part] != config[part]]
    if differing:
        expected = "a new folder, or the same flags"
        raise InputError(f"--out={out} holds another run", expected, ", ".join(differing))
    return True


def train_runs(
    config: Config, table: Table, validation: Table | None, hparams: HParams, keys: jax.Array, out: Path
) -> tuple[TrainState, dict]:
    """Trains all runs, from the last checkpoint in `out` where there is one; a checkpoint after each segment.

    Returns: (states, history), leading axis R; history {"train": {...}, "validation": {...}} of [R,E,...].
    """
    states = sweep.init_states(config, keys)
    history: dict = {}
    folder = out / "checkpoints"
    saved = sorted(folder.glob("epoch_*"))
    if saved:
        arrays, _ = checkpoint.load(saved[-1])
        states, history = checkpoint.rebuild(states, arrays["states"]), arrays["history"]
        print(f"continuing after epoch {int(states.epoch[0])}")
    chunk = sweep.default_chunk() if FLAGS.chunk is None else FLAGS.chunk or None
    start = time.monotonic()
    first = int(states.epoch[0])
    segments = sweep.run_segments(
        config, table, validation, hparams, states, FLAGS.epochs, FLAGS.checkpoint_every, chunk
    )
    with _stop_requests() as requests:
        for states, segment, epoch in segments:
            segment = flax.serialization.to_state_dict(segment)
            join = lambda before, new: np.concatenate([before, new], axis=1)  # noqa: E731
            history = jax.tree.map(join, history, segment) if history else segment
            saved_as = folder / f"epoch_{epoch:06d}"
            checkpoint.save(saved_as, {"states": states, "history": history}, {"epoch": epoch})
            for old in sorted(folder.glob("epoch_*"))[:-2]:
                shutil.rmtree(old)
            _print_progress(epoch, history, time.monotonic() - start, epoch - first)
            if requests:
                name = signal.Signals(requests[0]).name
                print(f"{name}: stopped after epoch {epoch}; the same command continues", file=sys.stderr)
                sys.exit(128 + requests[0])
    return states, history


@contextlib.contextmanager
def _stop_requests():
    """The list of SIGTERM and SIGINT (Ctrl-C) received inside the block, instead of what they usually do: a
    compiled segment cannot be left half-way, so it ends, is saved, and then the caller stops."""
    requests: list[int] = []
    handlers = {n: signal.signal(n, lambda n, _: requests.append(n)) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield requests
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _print_progress(epoch: int, history: dict, seconds: float, epochs_done: int) -> None:
    left = seconds / epochs_done * (FLAGS.epochs - epoch)
    split = "validation" if "validation" in history else "train"
    counts = history[split]
    accuracy = counts["correct"][:, -1].sum(-1) / counts["total"][:, -1].sum(-1)
    print(
        f"epoch {epoch}/{FLAGS.epochs}  mean {split} accuracy {100 * accuracy.mean():.2f} %  "
        f"{seconds:.0f} s, about {left:.0f} s left",
        flush=True,
    )


def _leftovers(out: Path) -> set[Path]:
    """Files that a process killed while writing them left half written under a name of their own."""
    return {*out.glob(".*.tmp")}


def finish(out: Path) -> None:
    """The outcome is on disk: the checkpoints of the way there are no longer needed."""
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    for path in _leftovers(out):
        path.unlink(missing_ok=True)


def teacher_rows(model: Any, variables: Any, validation: Table | None, test: Table, missing=()) -> list:
    """results.csv's rows of M teachers.  variables: leading axis M; missing: classes they never saw."""
    rows = []
    for split, table in (("validation", validation), ("test", test)):
        if table is None:
            continue
        logits = models.predict_stacked(model, variables, table.images)
        for seed, predicted in enumerate(jnp.argmax(logits, axis=-1)):
            confusion = np.asarray(metrics.confusion(predicted, table.labels, logits.shape[-1]))
            rows += tidy.result_rows(results.TEACHER, seed, split, "none", confusion, missing, None)
    return rows
