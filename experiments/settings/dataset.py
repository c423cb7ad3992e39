"""The dataset that the options name, its validation split, and their tables."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.cli import machine, main, progress
from experiments.cli.flags import RunConfig
from kd_jax import data
from kd_jax.errors import InputError
from kd_jax.types import Table


def load(options: RunConfig) -> tuple[data.Dataset, np.ndarray, np.ndarray]:
    """(dataset, indices of its training part, indices of its validation split) as the options say."""
    dataset = load_as(options.dataset, options.data_dir, vars(options))
    if dataset.num_skipped:
        files = "file that cannot be read is" if dataset.num_skipped == 1 else "files that cannot be read are"
        main.log_note(f"note: {dataset.num_skipped} {files} left out of {dataset.name}")
    train, validation = data.split_training(dataset, options.validation_fraction)
    return dataset, train, validation


def load_as(name: str, data_dir: str | None, values: Mapping[str, Any]) -> data.Dataset:
    """The dataset of this name, its images read as the flags say.

    values: flag -> value, as a run's config.json has them; a flag that is younger than the run is not given.
    """
    progress.settle_bars_of_hub()
    given = {option: values[option] for option in data.Options._fields if values.get(option) is not None}
    return data.load(name, data_dir, progress=progress.counting("decoding images"), **given)


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


def require_memory(*tables: Table | None) -> None:
    """Refuses data that no device could hold; they are not streamed: a batch is gathered on the device."""
    needed = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tables))
    free = machine.free_memory()
    if free is not None and needed > free:
        expected = f"at most the {free / 2**30:.2f} GiB that a device has free: fewer or smaller images"
        raise InputError("data too large for the memory", expected, f"{needed / 2**30:.2f} GiB")
