"""Print what there is to work with, or what a dataset is understood as: info, or info DATASET.

Without a dataset: devices, versions, caches, prepared datasets, free memory and disk.
"""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from absl import flags

from experiments.cli import flags as shared
from experiments.cli import machine, provenance
from experiments.cli.main import run
from kd_jax.errors import InputError

FLAGS = flags.FLAGS
EXAMPLE = "info pictures --image_size=64 --out=pictures.png"
READING = ("image_size", "skip_unreadable", "test_fraction", "image_column", "label_column")
for _name in ("data_dir", "out", "validation_fraction", *READING):
    flags.declare_key_flag(_name)  # of the shared flags these mean something here
shared.find("out").help = "Contact sheet of DATASET to write: a .png, or a folder for contact_sheet.png."

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "scipy",
    "scikit-learn", "tensorflow-cpu", "torch", "huggingface_hub",
)  # fmt: skip
UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def main(argv: Sequence[str]) -> None:
    if len(argv) > 2:
        raise InputError("unexpected argument", "info DATASET, one dataset, or info", " ".join(argv[1:]))
    if len(argv) == 2:
        from experiments.studies import info

        out = shared.require_folder("out", "pictures.png") if FLAGS.out is not None else None
        reading = {name: FLAGS[name].value for name in READING}
        show(info.run(argv[1], FLAGS.data_dir, reading, FLAGS.validation_fraction, out))
        return
    without = ("out", "validation_fraction", *READING)
    if alone := [f"--{name}" for name in without if shared.given(name) is not None]:
        raise InputError("a flag that means nothing here", "info DATASET with it", " ".join(alone))
    from kd_jax import data
    from kd_jax.data import cache, tfds

    root = tfds.root(FLAGS.data_dir)
    chapters = {
        "Devices": devices(),
        "Versions": versions(),
        "Caches": [
            (str(cache.root()), f"decoded images, {size(cache.root())}"),
            (str(machine.compilation_cache()), f"compiled programs, {size(machine.compilation_cache())}"),
        ],
        f"Datasets in {root}": prepared(root),
        "Datasets elsewhere": [(name, "comes with the packages") for name in data.DATASETS],
        "Free": free(),
    }
    show(chapters)


def show(chapters: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Prints chapters, title -> lines, in two columns."""
    pages = []
    for title, rows in chapters.items():
        width = max(len(left) for left, _ in rows)
        pages.append("\n".join([title, *(f"  {left:{width}}  {right}".rstrip() for left, right in rows)]))
    print("\n\n".join(pages))


def devices() -> list[tuple[str, str]]:
    """What JAX computes on; the cores of a CPU are devices here."""
    import jax

    from experiments.benchmarks import dense

    return [(jax.default_backend(), f"{dense.device()}; {os.cpu_count()} CPU cores in the machine")]


def versions() -> list[tuple[str, str]]:
    """Of the packages that are there; nothing is imported to learn it."""
    rows = [("kd_jax", provenance.own_version(provenance.ROOT)), ("python", platform.python_version())]
    for package in PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    return rows


def prepared(root: Path) -> list[tuple[str, str]]:
    """The TFDS sets in `root`, with their examples and their size on the disk."""
    from kd_jax.data import tfds

    if not root.is_dir():
        return [("none", "there is no such folder; --data_dir or TFDS_DATA_DIR names another")]
    rows = []
    for name, folder in tfds.prepared(root):
        counts = ", ".join(f"{number:,} {split}" for split, number in tfds.counts(folder).items())
        rows.append((name, f"{counts or 'examples unknown'}; {size(folder)}"))
    return rows or [("none", "experiments/README.md says how one is prepared")]


def free() -> list[tuple[str, str]]:
    """What a device, or for a CPU the machine or container, and the disk here can still hold."""
    memory = machine.free_memory()
    disk = shutil.disk_usage(".").free
    return [("memory", "unknown" if memory is None else shown(memory)), ("disk", f"{shown(disk)} here")]


def size(folder: Path) -> str:
    """Of all files below a folder."""
    if not folder.is_dir():
        return "empty"
    files = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    total = shown(sum(os.lstat(file).st_size for file in files))
    return f"{total} in {len(files):,} file{'' if len(files) == 1 else 's'}"


def shown(num_bytes: int) -> str:
    """12 B, 3.4 MiB."""
    for unit, scale in UNITS:
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} B"


if __name__ == "__main__":
    run(main, EXAMPLE)
