"""What the entry points share: flags, one-line errors, data on the device, the run folder, the training."""

import contextlib
import hashlib
import logging
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from absl import app, flags
from absl import logging as absl_logging

from experiments.cli import class_sets, cluster, failures, help, progress
from kd_jax import data, models, train
from kd_jax.errors import InputError, nearest_name
from kd_jax.models.normalization import IMAGENET, channel_statistics
from kd_jax.stats.rows import FORMAT
from kd_jax.train import Config, optim
from kd_jax.types import LossFn, Table

FLAGS = flags.FLAGS
ROOT = Path(__file__).resolve().parents[2]

flags.DEFINE_string(
    "dataset",
    "digits",
    "digits, a TFDS name such as mnist, an .npz file or a folder of images.",
)
flags.DEFINE_string("data_dir", None, "Folder of prepared TFDS datasets (default: TFDS_DATA_DIR).")
flags.DEFINE_integer(
    "image_size",
    None,
    "Pixels: each image of a folder is resized and cropped to such a square (default: as they are).",
    lower_bound=1,
    upper_bound=65_535,
)
flags.DEFINE_bool("skip_unreadable", False, "Leave out a folder's files that cannot be read.")
flags.DEFINE_float("validation_fraction", 0.1, "Share of the training data kept for validation, in [0, 1).")
flags.DEFINE_string("out", None, "Folder to write; of a run, the same command run again continues it.")
flags.DEFINE_integer("seeds", 1, "Number of seeds, 0..n-1.", lower_bound=1, upper_bound=100_000)
flags.DEFINE_string("model", None, "Model spec, as in mlp-800-800.")
flags.DEFINE_integer("epochs", 40, "Passes over the training images.", lower_bound=1, upper_bound=1_000_000)
flags.DEFINE_integer("batch_size", 128, "Examples an update.", lower_bound=1, upper_bound=1_000_000)
flags.DEFINE_enum("optimizer", "adam", list(optim.OPTIMIZERS), "Optimiser.")
flags.DEFINE_enum("schedule", "cosine", list(optim.SCHEDULES), "Of the learning rate, relative to its peak.")
flags.DEFINE_float("dropout", 0.0, "Probability of dropping a hidden unit, in [0, 1).")
flags.DEFINE_float("input_dropout", 0.0, "Probability of dropping an input, in [0, 1).")
flags.DEFINE_float(
    "max_norm", 0.0, "Largest L2 norm of a hidden unit's incoming weights; 0: none.", lower_bound=0
)
flags.DEFINE_integer(
    "translate",
    0,
    "Shift each training image by up to this many pixels, both ways: pad with zeros and crop at random.",
    lower_bound=0,
)
flags.DEFINE_float("rotate", 0.0, "Rotate each training image by up to this many degrees.", lower_bound=0)
flags.DEFINE_float("stretch", 0.0, "Scale each axis of each training image by up to this share, in [0, 1).")
flags.DEFINE_bool("flip", False, "Mirror each training image left to right with probability 1/2.")
flags.DEFINE_integer(
    "cutout", 0, "Cover a square of this side, in pixels, of each training image.", lower_bound=0
)
flags.DEFINE_float(
    "mixup",
    0.0,
    "Mix each training image and its label with another's, by shares ~ Beta(this, this); 0: none.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "normalize",
    "none",
    ["none", "data", "imagenet"],
    "Subtract a mean from each channel and divide by a deviation: the training part's, or ImageNet's.",
)
flags.DEFINE_enum(
    "precision",
    "float32",
    list(models.PRECISIONS),
    "Of the matrix products; float32 is TF32 on recent NVIDIA GPUs and bfloat16 on TPUs, as JAX has it.",
)
flags.DEFINE_integer("checkpoint_every", 10, "Epochs from one checkpoint to the next.", lower_bound=1)
flags.DEFINE_integer(
    "vmap_size",
    None,
    """Runs a device vmaps together; 0: all. Default: by device. Results change by rounding (about 5e-7).""",
    lower_bound=0,
)

flags.DEFINE_bool(
    "tensorboard",
    False,
    "Also write tensorboard/ in --out: curves, final figures and values of each setting.",
)
flags.DEFINE_bool("quiet", False, "Print nothing but notes and errors, on stderr; write all files.")

# They choose how the work is done, not what comes out: a run may be continued with other values.
NOT_PART_OF_THE_EXPERIMENT = frozenset(
    {"out", "data_dir", "checkpoint_every", "vmap_size", "tensorboard", "quiet"}
)

INTERRUPTED = "interrupted; the same command continues from the last checkpoint"

parse_classes = class_sets.parse_classes

AT_END = contextlib.ExitStack()
"""What is to be given back when an entry point's main ends, however it ends."""


def run(main: Callable[[Sequence[str]], None], example: str, several: bool = False) -> None:
    """Parses the flags and runs `main`. Bad input: one line on stderr, exit status 2, no traceback.

    example: for --help, what may follow ./launch.sh.  several: whether it can be done by several processes
    together.
    """
    app.run(partial(_guarded, main, several), flags_parser=partial(_parse_flags, example))


def log_note(line: str) -> None:
    """A line on stderr, once where there are several processes."""
    if jax.process_index() == 0:
        progress.clear()
        print(line, file=sys.stderr)


class NoteHandler(logging.Handler):
    """What the library warns of, as a note."""

    def emit(self, record: logging.LogRecord) -> None:
        log_note(f"note: {' '.join(record.getMessage().split())}")


def log_library_warnings() -> None:
    library = logging.getLogger("kd_jax")
    library.setLevel(logging.WARNING)
    library.handlers, library.propagate = (
        [NoteHandler()],
        False,
    )  # else absl's level for all others would hold


def _parse_flags(example: str, argv: Sequence[str]) -> list[str]:
    try:
        return help.parse(argv, example)
    except InputError as error:
        _refuse(str(error))
    except SystemExit:
        sys.exit(0)  # --helpfull, which absl ends as a failure
    raise AssertionError("not reached")


def _guarded(main, several: bool, argv: Sequence[str]) -> None:
    # Orbax reports every step of every save, and what it cannot load in pages beside its exception.
    absl_logging.set_verbosity(absl_logging.FATAL)
    log_library_warnings()
    cache = compilation_cache()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        with contextlib.suppress(OSError):  # where no cache can be written, every start compiles anew
            cache.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", num_cores())
    requests: list[int] = []
    try:
        cluster.join(several)
        if not cluster.several():
            install_signal_handlers(requests)
        with AT_END:
            if FLAGS.quiet:
                nowhere = AT_END.enter_context(open(os.devnull, "w"))  # noqa: SIM115
                AT_END.enter_context(contextlib.redirect_stdout(nowhere))
            main(argv)
    except InputError as error:
        _refuse(str(error))
    except BrokenPipeError:  # whoever read our output has had enough, as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if cluster.several():
            cluster.abort(128 + signal.SIGPIPE, "nobody reads the output")
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        _fail(error, requests)
    except KeyboardInterrupt:
        if cluster.several():
            cluster.abort(130, INTERRUPTED)
        _say_interrupted((requests or [signal.SIGINT])[0])


def _fail(error: Exception, requests: Sequence[int]) -> NoReturn:
    """Ends the process: with status 2 and one line where the user can mend it, else with status 1 and a line
    that names a file with the traceback.  requests: to stop, as of `install_signal_handlers`."""
    several = cluster.several()
    if several and cluster.is_peer_failure(error):  # of whatever type: Orbax's barriers raise TimeoutError
        cluster.abort(1, cluster.reason(error))
    if expected := failures.expected(error):
        what = "a file cannot be read or written" if isinstance(error, OSError) else "the computation failed"
        _refuse(str(InputError(what, expected, error)))
    if requests and not several:
        _say_interrupted(requests[0])
    line = failures.record(error)
    if several:
        cluster.abort(1, line)
    progress.clear()
    print(line, file=sys.stderr)
    sys.exit(1)


def install_signal_handlers(requests: list[int]) -> None:
    """Lets SIGTERM and SIGINT raise, so that AT_END and `finally` give back what is theirs; and notes them,
    for what was interrupted may make another error of it, as a module that is being imported does."""

    def end(number, frame):
        requests.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _say_interrupted(number: int) -> NoReturn:
    progress.clear()
    print(INTERRUPTED, file=sys.stderr)
    sys.exit(128 + number)


def compilation_cache() -> Path:
    """The folder of compiled programs."""
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(given or f"{home}/kd_jax/compiled")


def num_cores() -> int:
    """CPU cores of this process, each a device: a run a core needs no hand-over between threads, and one
    run's optimiser, which waits for memory, leaves it to the other's matrix products. Of a machine in which a
    container has a share (cgroup v2), that share; of processes started together, each its own."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, float(quota) / float(period) / cluster.started())
    return max(1, int(cores))


def _refuse(message: str) -> None:
    line = f"error: {' '.join(message.split())}"
    if cluster.several():
        cluster.abort(2, line)
    progress.clear()
    print(line, file=sys.stderr)
    sys.exit(2)


def refuse_arguments(argv: Sequence[str]) -> None:
    """Entry points take flags only."""
    if len(argv) > 1:
        raise InputError("unexpected argument", "flags only, as in --epochs=10", " ".join(argv[1:]))


def parse_numbers(name: str, text: str, high: float = np.inf, positive: bool = False) -> list[float]:
    """The numbers of a comma list flag, each within [0, high] (or ]0, high])."""
    most = f" and <= {high:g}" if high < np.inf else ""
    expected = f"float32 numbers {'>' if positive else '>='} 0{most}, separated by commas"
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"malformed --{name}", expected, repr(text)) from None
    with np.errstate(over="ignore", under="ignore"):
        singles = [float(np.float32(value)) for value in values]  # what the runs will compute with
    tiny = float(np.finfo(np.float32).tiny)  # what is smaller, devices take for 0
    fitting = [tiny <= value <= high or (value == 0 and not positive) for value in singles]
    if not (all(fitting) and np.isfinite(singles).all()):
        raise InputError(f"--{name} out of range", expected, text)
    if len(set(singles)) < len(values):
        raise InputError(f"--{name} names a value twice", "each value once", text)
    return values


def parse_words(name: str, text: str, known: Sequence[str]) -> list[str]:
    """The words of a comma list flag, each once, each of the known ones."""
    words = [word.strip() for word in text.split(",")]
    strange = [word for word in words if word not in known]
    if strange or len(set(words)) < len(words):
        hint = nearest_name(strange[0], known) if strange else ""
        expected = f"each once of {', '.join(known)}, separated by commas"
        raise InputError(f"malformed --{name}", expected, f"{text!r}{hint}")
    return words


def parse_class_flag(name: str, class_names: Sequence[str]) -> list[tuple[int, ...]]:
    """The class sets of a flag; where it is not given, the empty set, even where a class is called none."""
    flag = FLAGS[name]
    text = class_sets.NONE if flag.using_default_value else str(flag.value)
    return class_sets.parse_classes(name, text, class_names)


def require(name: str, example: str) -> str:
    """The value of a flag that has no default."""
    value = FLAGS[name].value
    if not value:
        raise InputError(f"--{name} is missing", f"--{name}={example}", "nothing")
    return value


def require_folder(name: str, example: str) -> Path:
    """The folder that a flag names; the shell leaves the ~ of --out=~/runs to us."""
    return Path(os.path.expanduser(require(name, example)))  # which, unlike Path's, never fails


def load_data() -> tuple[data.Dataset, np.ndarray, np.ndarray]:
    """(dataset, indices of its training part, indices of its validation split) as the flags say."""
    options = {"image_size": FLAGS.image_size, "skip_unreadable": FLAGS.skip_unreadable}
    dataset = data.load(
        FLAGS.dataset, FLAGS.data_dir, **options, progress=progress.counting("decoding images")
    )
    if dataset.num_skipped:
        files = "file that cannot be read is" if dataset.num_skipped == 1 else "files that cannot be read are"
        log_note(f"note: {dataset.num_skipped} {files} left out of {dataset.name}")
    train, validation = data.split_training(dataset, FLAGS.validation_fraction)
    return dataset, train, validation


def split_hash(index: np.ndarray) -> str:
    """The sha256 that stands for a split: its examples' indices, i64[N]."""
    return hashlib.sha256(np.asarray(index, "<i8").tobytes()).hexdigest()


def require_examples(labels: np.ndarray, omitted: Sequence[int], label: str) -> None:
    """Refuses a mask that keeps no training example: TFDS may declare classes that have none."""
    if np.isin(labels, omitted).all():
        raise InputError("nothing left after masking", "a class that has training examples", label)


def make_tables(
    dataset: data.Dataset, train: np.ndarray, validation: np.ndarray
) -> tuple[Table, Table | None, Table]:
    """Training, validation (None where empty) and test tables in numpy."""
    table = lambda images, labels: Table(images, labels.astype(np.int32))  # noqa: E731
    images, labels = dataset.train_images, dataset.train_labels
    held_out = table(images[validation], labels[validation]) if len(validation) else None
    return table(images[train], labels[train]), held_out, table(dataset.test_images, dataset.test_labels)


def free_memory() -> int | None:
    """Bytes that a device can still hold: what it says, or for a CPU what machine or container have left."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    amounts = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        amounts.append(1024 * int(found.group(1)))  # type: ignore[union-attr]
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = re.findall(r"^(?:in)?active_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        amounts.append(limit - used + sum(map(int, cached)))  # which is given up when memory is needed
    return min(amounts) // cluster.started() if amounts else None


def require_memory(*tables: Table | None) -> None:
    """Refuses data that no device could hold; they are not streamed: a batch is gathered on the device."""
    needed = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tables))
    free = free_memory()
    if free is not None and needed > free:
        expected = f"at most the {free / 2**30:.2f} GiB that a device has free: fewer or smaller images"
        raise InputError("data too large for the memory", expected, f"{needed / 2**30:.2f} GiB")


def model_options(dataset: data.Dataset, train: np.ndarray) -> dict[str, Any]:
    """What, with the spec and the number of classes, rebuilds the module, from the flags.

    train: indices of the training part. Its statistics include the classes that some settings leave out: the
    settings of a sweep are one program, and so have one normalisation.
    """
    for name in ("dropout", "input_dropout"):
        require_share(name)
    channels = dataset.train_images.shape[-1]
    if FLAGS.normalize == "imagenet" and channels != 3:
        raise InputError("--normalize=imagenet", "images of 3 channels", f"{channels} in {dataset.name}")
    options = {name: FLAGS[name].value for name in ("input_dropout", "dropout", "precision")}
    normalize = IMAGENET if FLAGS.normalize == "imagenet" else None
    if FLAGS.normalize == "data":
        normalize = channel_statistics(dataset.train_images[train])
    return options | {"normalize": normalize}


def require_share(name: str) -> None:
    """Refuses a flag's value outside [0, 1): beyond, what is kept would be scaled up without bound."""
    value = getattr(FLAGS, name)
    if not 0 <= value <= 0.9999:
        raise InputError(f"--{name} out of range", "a number >= 0 and < 1 (at most 0.9999)", value)


def require_hidden_layer(what: str, spec: str, model: Any, image_shape: tuple[int, int, int]) -> None:
    """Refuses a network whose classifier sees the image itself.  what: reads the last hidden layer."""
    if not models.hidden_layers(model, image_shape):
        raise InputError(f"{what} needs a hidden layer", "a network that has one, as mlp-64", spec)


def make_config(
    spec: str,
    model_options: dict[str, Any],
    dataset: data.Dataset,
    num_train: int,
    loss_fn: LossFn,
    **options,
) -> Config:
    """The training's static part, from the flags.  options: more fields of Config."""
    num_updates = -(-num_train // FLAGS.batch_size)
    if FLAGS.epochs * num_updates >= 2**31:
        given = f"{FLAGS.epochs} epochs of {num_updates}"
        raise InputError("too many updates", "fewer than 2^31 in all", given)
    (max_norm,) = parse_numbers("max_norm", str(FLAGS.max_norm))
    return train.make_config(
        models.build(spec, dataset.num_classes, **model_options),
        (num_train, *dataset.train_images.shape[1:]),
        loss_fn,
        FLAGS.epochs,
        batch_size=FLAGS.batch_size,
        optimizer=optim.OPTIMIZERS[FLAGS.optimizer],
        schedule=optim.SCHEDULES[FLAGS.schedule],
        max_norm=max_norm or None,
        **options,
    )


def own_version(root: Path) -> str:
    """Of the code in `root`: 0.1.0, or 0.1.0+<commit>[.dirty] in a git checkout, where git answers."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        number = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
        git = ["git", "--no-optional-locks", "-C", str(root), "--git-dir=.git", "describe"]
        git += ["--always", "--exclude=*", "--dirty=.dirty"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout
            return f"{number}+{commit.strip()}"
        return number
    return "unknown"


def command() -> str:
    """The line that started this experiment."""
    return shlex.join(["./launch.sh", Path(sys.argv[0]).stem, *sys.argv[1:]])


def describe(dataset: data.Dataset, train: np.ndarray, validation: np.ndarray) -> dict:
    """The part of config.json that every experiment has: flags, versions, device, data."""
    experiment = Path(sys.argv[0]).stem
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
    own = [flag for module in (sys.argv[0], __name__) for flag in FLAGS.get_flags_for_module(module)]
    devices = jax.devices()
    device = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    together = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return {
        "format": FORMAT,
        "experiment": experiment,
        "command": command(),
        "flags": {flag.name: flag.value for flag in sorted(own, key=lambda flag: flag.name)},
        "versions": {"kd_jax": own_version(ROOT), "python": platform.python_version()}
        | {package: version(package) for package in packages},
        "device": f"{device}, {os.cpu_count()} CPU cores{together}",
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "num_classes": dataset.num_classes,
            "class_names": list(dataset.class_names),
            "train": len(train),
            "validation": len(validation),
            "test": len(dataset.test_labels),
        }
        | ({"skipped": dataset.num_skipped} if dataset.num_skipped else {}),
    }
