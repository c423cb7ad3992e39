"""Data sets by name: names -> uint8 arrays on the host.

A name is an entry of DATASETS, a path ending in .npz, an image folder (folders.py), or a TFDS
image-classification set that has been prepared on this machine (tfds.py). Folders and TFDS sets are decoded
once, then come from a cache (cache.py).

Left out: normalisation (it belongs to the compiled step: one byte a pixel travels) and shuffling (the order
of an epoch is a function of its key). Nothing read here is ever unpickled, and no file read here names code
to run.
"""

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax import nearest
from kd_jax.data import cache, image_folder, tfds
from kd_jax.data.cache import ARRAYS
from kd_jax.types import InputError

_DIGITS_SEED = 0
_DIGITS_TEST = 500


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split; the arrays are read-only.

    name: as it was asked for, so that the same name loads it again.
    train_images, test_images: u8[N,h,w,c], one h, w, c for both.
    train_labels, test_labels: i32[N], each in 0..K-1.
    num_classes: K >= 2.  class_names: K words.
    fingerprint: sha256 (hex) of the four arrays with their shapes, whatever their source.
    num_skipped: files of an image folder that could not be read and are left out.
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


def load(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    *,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    progress: image_folder.Progress | None = None,
) -> Dataset:
    """The data set called `name`.

    data_dir: where TFDS sets lie; else TFDS_DATA_DIR, else TFDS's own default.
    cache_dir: where decoded arrays are kept; else KD_JAX_CACHE, else the user's cache folder. A folder that
        cannot be written is no error.
    image_size, skip_unreadable: of an image folder alone: h = w (None: the images' own), and whether files
        that cannot be read are left out (else they are an error).
    progress: called while an image folder or a TFDS set is decoded.
    Raises InputError for an unknown, unprepared, unreadable or unsuitable data set.
    """
    name = os.fspath(name)
    loader = DATASETS.get(name) or (_load_npz if name.endswith(".npz") else None)
    try:
        if loader is None and image_folder.is_image_folder(name):
            return _load_folder(name, cache_dir, image_size, skip_unreadable, progress)
        for option, given in (("image_size", image_size), ("skip_unreadable", skip_unreadable)):
            if given and loader is None and (os.sep in name or os.path.isdir(name)):
                raise _unknown(name, Path())  # its path is wrong, not the option
            wrong = f"--{option} is for image folders"
            _require(not given, wrong, f"none with data set {name!r}", f"--{option}={given}")
        if loader is None:
            return _load_tfds(name, data_dir, cache_dir, progress)
        return loader(name, data_dir, cache_dir)
    except OSError as error:
        wrong = f"data set {name!r} cannot be read"
        expected = "a file that is there and that this user may read"
        raise InputError(wrong, expected, f"{error}{nearest.path(name)}") from error


def split_validation(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A stratified split of examples into training and validation, a function of its arguments alone.

    labels: integers [N].
    Each class gives round(fraction * count) examples to validation: at least one where it has two and
    fraction > 0, and never its last one.
    Returns (train_index, validation_index), i64, each sorted, together 0..N-1.
    Raises InputError for a fraction outside [0, 1) or labels of another form.
    """
    labels = np.asarray(labels)
    given = f"{labels.dtype} {list(labels.shape)}"
    _require(labels.ndim == 1 and labels.dtype.kind in "iu", "labels cannot be split", "integers [N]", given)
    _require(0 <= fraction < 1, "validation fraction out of range", "0 <= fraction < 1", fraction)
    _require(0 <= seed < 2**32, "validation seed out of range", "0 <= seed < 2**32", seed)
    classes, counts = np.unique(labels, return_counts=True)
    take = np.minimum(np.maximum(np.rint(fraction * counts), fraction > 0), counts - 1)
    chosen = _choose(labels, dict(zip(classes, take.astype(int), strict=True)), seed)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _choose(labels: np.ndarray, take: Mapping[int, int], seed: int) -> np.ndarray:
    """bool[N]: True for `take[k]` examples of each class k."""
    # RandomState's streams are frozen for good, the newer Generator's are not: a split, and with it the
    # fingerprint of `digits`, has to be the same under every numpy.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label, count in take.items():
        chosen[order[labels[order] == label][:count]] = True
    return chosen


def _load_digits(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8, their 17 grey levels spread over 0..255."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)
    labels = source.target
    quotas = np.bincount(labels) * (_DIGITS_TEST / len(labels))
    take = np.floor(quotas).astype(int)
    # Largest remainders, so that the classes' shares add up to the test set's size.
    take[np.argsort(take - quotas, kind="stable")[: _DIGITS_TEST - take.sum()]] += 1
    test = _choose(labels, dict(enumerate(take)), _DIGITS_SEED)
    return _assemble(name, (images[~test], labels[~test], images[test], labels[test]))


def _load_npz(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    """A file of the user's own: the four ARRAYS and, if it likes, class_names."""
    path = Path(os.path.expanduser(name))  # which, unlike Path's, never fails
    held = cache.read_npz(path, ARRAYS, ("class_names",))
    return _assemble(name, [held[key] for key in ARRAYS], held.get("class_names"))


def _load_tfds(name: str, data_dir: Any, cache_dir: Any, progress: Any) -> Dataset:
    """A prepared TFDS set: from the cache of decoded arrays, or decoded and put there."""
    root = tfds.root(data_dir)
    folder = tfds.prepared_folder(name, root)
    if folder is None:
        raise _unknown(name, root)
    label = "-".join(folder.relative_to(root).parts)
    path, source = cache.place(label, folder, cache.files_state(folder), cache_dir)
    held = cache.read(path, source)
    if held is not None:
        return _freeze(name, *held)
    dataset = _assemble(name, *tfds.decode(name, root, folder, progress))
    cache.write(path, source, dataset)
    return dataset


def _load_folder(
    name: str, cache_dir: Any, image_size: int | None, skip_unreadable: bool, progress: Any
) -> Dataset:
    """An image folder: from the cache of decoded arrays, or decoded and put there."""
    _require(image_size is None or image_size > 0, "image_size out of range", "1 or more pixels", image_size)
    root = Path(os.path.expanduser(name))  # which, unlike Path's, never fails
    listing = image_folder.survey(root)
    # A file for each size, so that two sizes in turn are decoded once each.
    label = f"{root.resolve().name[:40]}-{image_size or 'own'}"
    path, source = cache.place(label, root, [listing[1:], image_size], cache_dir)
    held = cache.read(path, source)
    if held is not None and (skip_unreadable or held[-1] == 0):
        return _freeze(name, *held)
    arrays, num_skipped = image_folder.decode(listing, image_size, skip_unreadable, progress)
    dataset = dataclasses.replace(_assemble(name, arrays, listing.class_names), num_skipped=num_skipped)
    cache.write(path, source, dataset)
    return dataset


def _unknown(name: str, root: Path) -> InputError:
    """The error that names the nearest names there are."""
    if os.sep in name or os.path.isdir(name):
        there = os.path.isdir(os.path.expanduser(name))
        given = "a folder without them" if there else f"no such folder{nearest.path(name)}"
        wrong = f"data set {name!r} cannot be read"
        raise InputError(wrong, "an .npz, or a folder of train/ and val/ or test/", given)
    prepared = [folder.name for folder in root.glob("*") if folder.is_dir()]
    own = [path for path in os.listdir() if path.endswith(".npz") or image_folder.is_image_folder(path)]
    known = sorted({*DATASETS, *tfds.known_names(), *prepared, *own})
    near = difflib.get_close_matches(name.lower(), known, n=3) or [*DATASETS]
    paths = "a path ending in .npz, a folder of train/ and val/ or test/"
    expected = f"{', '.join(DATASETS)}, {paths}, or a TFDS name (nearest: {', '.join(near)})"
    return InputError("unknown data set", expected, repr(name))


DATASETS: dict[str, Callable[[str, Any, Any], Dataset]] = {"digits": _load_digits}
"""name -> (name, data_dir, cache_dir) -> Dataset, for the sets that neither a path nor TFDS names."""


# --- checking -------------------------------------------------------------------------------------------


def _require(good: Any, wrong: str, expected: str, given: object) -> None:
    if not good:
        raise InputError(wrong, expected, given)


def _assemble(
    name: str, arrays: Sequence[np.ndarray], class_names: Any = None, num_classes: int | None = None
) -> Dataset:
    """A Dataset of the four ARRAYS as they were found, or InputError.

    num_classes: K where the source declares it; else the largest training label + 1, and then each class
        must have a training example.
    """
    train_images, train_labels = _check_split(f"{name}: train", *arrays[:2])
    test_images, test_labels = _check_split(f"{name}: test", *arrays[2:])
    shapes = f"{list(train_images.shape[1:])} and {list(test_images.shape[1:])}"
    alike = train_images.shape[1:] == test_images.shape[1:]
    _require(alike, f"{name}: training and test images differ in shape", "one shape [h,w,c]", shapes)
    if num_classes is None:
        num_classes = _count_classes(name, train_labels)
    _require(num_classes > 1, f"{name}: too few classes", "at least two", num_classes)
    for split, labels in (("train", train_labels), ("test", test_labels)):
        classes = f"classes 0..{num_classes - 1}"
        _require(labels.max() < num_classes, f"{name}: {split}_labels name no class", classes, labels.max())
    class_names = np.array(list(map(str, range(num_classes))) if class_names is None else class_names)
    given = f"{class_names.dtype} {list(class_names.shape)}"
    fitting = class_names.dtype.kind == "U" and class_names.shape == (num_classes,)
    _require(fitting, f"{name}: class_names do not fit the classes", f"{num_classes} strings", given)
    ready = (train_images, train_labels.astype(np.int32), test_images, test_labels.astype(np.int32))
    return _freeze(name, ready, tuple(class_names.tolist()), cache.fingerprint(ready))


def _check_split(what: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u8[N,h,w,c] and integers [N], none negative, from u8[N,h,w] or u8[N,h,w,c] and [N], or InputError."""
    pixels = "uint8 (x in [0, 1] becomes it by np.rint(255 * x).astype(np.uint8))"
    _require(images.dtype == np.uint8, f"{what}_images are of the wrong type", pixels, images.dtype)
    shape = list(images.shape)
    _require(images.ndim in (3, 4), f"{what}_images are of the wrong shape", "[N,h,w] or [N,h,w,c]", shape)
    _require(images.size, f"{what}_images are empty", "at least one example and one pixel", shape)
    _require(labels.dtype.kind in "iu", f"{what}_labels are of the wrong type", "integers", labels.dtype)
    fitting = labels.shape == images.shape[:1]
    _require(fitting, f"{what}_labels do not fit the images", f"[{shape[0]}]", list(labels.shape))
    _require(labels.min() >= 0, f"{what}_labels hold a negative class", "classes from 0", labels.min())
    return np.ascontiguousarray(images if images.ndim == 4 else images[..., None]), labels


def _count_classes(name: str, train_labels: np.ndarray) -> int:
    """K of labels that are to be exactly 0..K-1, or InputError."""
    present = np.unique(train_labels)
    # Compared with the labels present, so that a label of 2**62 allocates nothing.
    gaps = np.flatnonzero(present != np.arange(len(present)))
    expected = f"an example of each class 0..{present[-1]}"
    given = f"none of class {gaps[0]}{' (labels count from 0)' if gaps[0] == 0 else ''}" if len(gaps) else ""
    _require(not len(gaps), f"{name}: a class has no training example", expected, given)
    return len(present)


def _freeze(
    name: str,
    arrays: Sequence[np.ndarray],
    class_names: tuple[str, ...],
    fingerprint: str,
    num_skipped: int = 0,
) -> Dataset:
    """The Dataset of checked arrays (u8, i32, u8, i32): read-only, so that the fingerprint stays true."""
    for array in arrays:
        array.setflags(write=False)
    named = dict(zip(ARRAYS, arrays, strict=True))
    return Dataset(
        name,
        **named,
        num_classes=len(class_names),
        class_names=class_names,
        fingerprint=fingerprint,
        num_skipped=num_skipped,
    )
