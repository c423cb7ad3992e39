"""The flags that entry points share, and the group of --help that each flag is listed in.

Beside an entry point's `main`, only this file reads FLAGS: the values go on as they are, or as a dataclass.
No heavy package is imported, so --help and a bad flag are answered before jax is loaded. Therefore the words
that a flag allows stand here; a test holds them equal to the keys of the library's registries.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from absl import flags

from experiments.cli.method_words import DIVERGENCES, FEATURE_LOSSES, LOSSES  # noqa: F401
from kd_jax.errors import InputError

FLAGS = flags.FLAGS
Values = TypeVar("Values")

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "warmup_cosine", "steps")
PRECISIONS = ("float32", "bfloat16")
TEACHER_ABLATIONS = ("full", "omitted_removed", "top1", "top2", "shuffled")
NOISES = ("uniform_noise", "gaussian_noise", "dark_noise", "blurred_noise", "blob_noise")
SUBLIMINAL_PARTS = ("hidden", "class_head", "auxiliary_head")

GROUPS: dict[str, list[str]] = {
    "Data": [],
    "Model": [],
    "Teachers": [],
    "Omitted classes": [],
    "Distillation": [],
    "Synthesis of images": [],
    "Training": [],
    "Augmentation of training images": [],
    "What is measured": [],
    "Where it goes, and how the work is done": [],
    "Of the processes that it starts": [],
}
"""Title -> names of flags, in the order of --help. `group` fills it: each flag is in exactly one."""


def group(title: str, *defined: flags.FlagHolder) -> None:
    """Lists these flags under a title of GROUPS."""
    GROUPS[title] += [holder.name for holder in defined]


group(
    "Data",
    flags.DEFINE_string(
        "dataset",
        "digits",
        "digits, TFDS name, .npz, folder of images or parquet, hf:owner/name.",
    ),
    flags.DEFINE_string("data_dir", None, "Folder of prepared TFDS datasets (default: TFDS_DATA_DIR)."),
    flags.DEFINE_integer(
        "image_size",
        None,
        "Side in pixels that each image of a file is resized and cropped to.",
        lower_bound=1,
        upper_bound=65_535,
    ),
    flags.DEFINE_bool("skip_unreadable", False, "Leave out images of files that cannot be read."),
    flags.DEFINE_float(
        "test_fraction",
        None,
        "Share for testing where the data have no test split (0.2).",
    ),
    flags.DEFINE_string("image_column", None, "Column of images, of parquet."),
    flags.DEFINE_string("label_column", None, "Column of labels, of parquet."),
    flags.DEFINE_float(
        "validation_fraction", 0.1, "Share of the training data kept for validation, in [0, 1)."
    ),
)
group(
    "Model",
    flags.DEFINE_string("model", None, "Model spec, as in mlp-800-800."),
    flags.DEFINE_enum(
        "normalize",
        "none",
        ["none", "data", "imagenet"],
        "Statistics that normalise each channel.",
    ),
    flags.DEFINE_float("dropout", 0.0, "Probability of dropping a hidden unit, in [0, 1)."),
    flags.DEFINE_float("input_dropout", 0.0, "Probability of dropping an input, in [0, 1)."),
    flags.DEFINE_float(
        "max_norm", 0.0, "Largest L2 norm of a hidden unit's incoming weights; 0: none.", lower_bound=0
    ),
    flags.DEFINE_enum(
        "precision",
        "float32",
        PRECISIONS,
        "Of the matrix products; float32 is TF32 on recent NVIDIA GPUs and bfloat16 on TPUs, as JAX has it.",
    ),
)
group(
    "Training",
    flags.DEFINE_integer("seeds", 1, "Number of seeds, 0..n-1.", lower_bound=1, upper_bound=100_000),
    flags.DEFINE_integer(
        "epochs",
        40,
        "Passes over the training images; 0 with --pretrained: none.",
        lower_bound=0,
        upper_bound=1_000_000,
    ),
    flags.DEFINE_integer("batch_size", 128, "Examples an update.", lower_bound=1, upper_bound=1_000_000),
    flags.DEFINE_enum("optimizer", "adam", OPTIMIZERS, "Optimiser."),
    flags.DEFINE_enum("schedule", "cosine", SCHEDULES, "Of the learning rate, relative to its peak."),
)
group(
    "Augmentation of training images",
    flags.DEFINE_integer(
        "translate",
        0,
        "Shift each training image by up to this many pixels, both ways: pad with zeros and crop at random.",
        lower_bound=0,
    ),
    flags.DEFINE_float(
        "rotate", 0.0, "Rotate each training image by up to this many degrees.", lower_bound=0
    ),
    flags.DEFINE_float(
        "stretch", 0.0, "Scale each axis of each training image by up to this share, in [0, 1)."
    ),
    flags.DEFINE_bool("flip", False, "Mirror each training image left to right with probability 1/2."),
    flags.DEFINE_integer(
        "cutout", 0, "Cover a square of this side, in pixels, of each training image.", lower_bound=0
    ),
    flags.DEFINE_float(
        "mixup",
        0.0,
        "Mix each training image and its label with another's, by shares ~ Beta(this, this); 0: none.",
        lower_bound=0,
    ),
)
group(
    "Where it goes, and how the work is done",
    flags.DEFINE_string(
        "out",
        None,
        "Where to write. The same command continues a run; report compares several runs there; "
        "compression and benchmark only print without it.",
    ),
    flags.DEFINE_integer(
        "checkpoint_every",
        10,
        "Epochs from one checkpoint to the next.",
        lower_bound=1,
        upper_bound=1_000_000,
    ),
    flags.DEFINE_integer(
        "vmap_size",
        None,
        "Runs a device vmaps together; 0: all. Default: by device. Results change by rounding (about 5e-7).",
        lower_bound=0,
        upper_bound=1_000_000,
    ),
    flags.DEFINE_bool(
        "tensorboard",
        False,
        "Also write tensorboard/ in --out: curves, final figures and values of each setting.",
    ),
    flags.DEFINE_bool("quiet", False, "Print nothing but notes and errors, on stderr; write all files."),
)

# They choose how the work is done, not what comes out: a run may be continued with other values.
NOT_PART_OF_THE_EXPERIMENT = frozenset(
    {"out", "data_dir", "checkpoint_every", "vmap_size", "tensorboard", "quiet"}
)


@dataclass(frozen=True)
class RunConfig:
    """The values of the shared flags, by the names of the flags, whose help says what they mean."""

    dataset: str
    data_dir: str | None
    image_size: int | None
    skip_unreadable: bool
    test_fraction: float | None
    image_column: str | None
    label_column: str | None
    validation_fraction: float
    model: str
    normalize: str
    dropout: float
    input_dropout: float
    max_norm: float
    precision: str
    seeds: int
    epochs: int
    batch_size: int
    optimizer: str
    schedule: str
    translate: int
    rotate: float
    stretch: float
    flip: bool
    cutout: int
    mixup: float
    out: Path
    checkpoint_every: int
    vmap_size: int | None
    tensorboard: bool


def run_config(out: str, model: str) -> RunConfig:
    """The options of a run.  out, model: as they may be given, for the error where they are not."""
    if FLAGS.epochs == 0 and not ("pretrained" in FLAGS and FLAGS.pretrained):
        expected = "1 or more, or 0 with --pretrained of train_teacher, which keeps the teacher as it is"
        raise InputError("--epochs cannot be this", expected, 0)
    return read(RunConfig, out=require_folder("out", out), model=require("model", model))


def read(kind: type[Values], **others: Any) -> Values:
    """A dataclass whose fields have the names of flags, with their values.  others: field -> value."""
    names = {field.name for field in fields(kind)} - set(others)  # type: ignore[arg-type]
    return kind(**others, **{name: FLAGS[name].value for name in names})


def require(name: str, example: str) -> str:
    """The value of a flag that has no default."""
    value = FLAGS[name].value
    if not value:
        raise InputError(f"--{name} is missing", f"--{name}={example}", "nothing")
    return value


def require_folder(name: str, example: str) -> Path:
    """The folder that a flag names; the shell leaves the ~ of --out=~/runs to us."""
    return Path(os.path.expanduser(require(name, example)))  # which, unlike Path's, never fails


def given(name: str) -> str | None:
    """The text of a flag, None where it has its default."""
    flag = FLAGS[name]
    return None if flag.using_default_value else str(flag.value)


def is_quiet() -> bool:
    """Whether nothing is printed on stdout."""
    return FLAGS.quiet


def values() -> dict[str, Any]:
    """The values of the entry point's own flags and of the shared ones, by name."""
    defined = [flag for module in (sys.argv[0], __name__) for flag in FLAGS.get_flags_for_module(module)]
    return {flag.name: flag.value for flag in sorted(defined, key=lambda flag: flag.name)}


def listed() -> list[str]:
    """The flags that mean something to the entry point that runs: its own and those it declares its own."""
    return [flag.name for flag in FLAGS.get_key_flags_for_module("__main__")] + ["quiet"]


def find(name: str) -> flags.Flag:
    """A flag by its name. Errors: KeyError."""
    return FLAGS[name]


def default(name: str) -> Any:
    """The default of a flag; None of a flag that this version has not."""
    return FLAGS[name].default if name in FLAGS else None


def parse(argv: Sequence[str]) -> list[str]:
    """Gives the flags their values; returns the arguments that are no flags. Errors: flags.Error."""
    words = FLAGS.read_flags_from_files(list(argv[1:]))
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.lstrip("-").partition("=")
        text = value if equals else following
        # Python reads the digits of every script as numbers.
        numeric = word.startswith("-") and name in FLAGS and FLAGS[name].flag_type() in ("int", "float")
        if numeric and not text.isascii():
            raise flags.IllegalFlagValueError(f"flag --{name}={text}: not of the digits 0 to 9")
    return FLAGS([argv[0], *words])


def meaningless() -> list[str]:
    """The flags that were given, are defined by some file of ours and mean nothing to this entry point."""
    with_meaning = set(listed())
    return [
        flag.name
        for module, defined in FLAGS.flags_by_module_dict().items()
        for flag in defined
        if module.startswith("experiments.") and flag.present and flag.name not in with_meaning
    ]
