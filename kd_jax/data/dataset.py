"""A dataset in memory, and how it is made of arrays as they were found."""

import dataclasses

import numpy as np

from kd_jax.data import cache
from kd_jax.data.arrays import Found, check
from kd_jax.data.cache import Held


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split; the arrays are read-only.

    name: as it was asked for, so that the same name loads it again.
    train_images, test_images: u8[N,h,w,c], one h, w, c for both; c from 1 to 4.
    train_labels, test_labels: i32[N], each in 0..K-1.
    num_classes: K >= 2.  class_names: K words.
    fingerprint: sha256 (hex) of the four arrays with their shapes, whatever their source, and of
        num_validation where there are some.
    num_validation: the last so many training examples are the validation split that comes with the data; 0:
        none does, and `split_training` draws one.
    num_skipped: files of an image folder that could not be read and are left out.
    notes: what the user should know of how the images were taken; `load` logs each as a warning.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    num_skipped: int = 0
    num_validation: int = 0
    notes: tuple[str, ...] = ()


def assemble(name: str, found: Found) -> Dataset:
    """The Dataset of what a source holds, or InputError."""
    arrays, class_names, notes = check(name, found)
    stamp = cache.fingerprint(arrays, found.num_validation)
    return freeze(name, Held(arrays, class_names, stamp, found.num_validation, found.num_skipped, notes))


def freeze(name: str, held: Held) -> Dataset:
    """The Dataset of checked arrays (u8, i32, u8, i32): read-only, so that the fingerprint stays true."""
    for array in held.arrays:
        array.setflags(write=False)
    return Dataset(
        name,
        **dict(zip(cache.ARRAYS, held.arrays, strict=True)),
        num_classes=len(held.class_names),
        class_names=held.class_names,
        fingerprint=held.fingerprint,
        num_validation=held.num_validation,
        num_skipped=held.num_skipped,
        notes=held.notes,
    )
