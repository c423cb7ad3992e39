"""Datasets by name: names -> uint8 arrays on the host.

A name is an entry of DATASETS, a path ending in .npz (npz.py), an image folder (image_folder.py), or a TFDS
image-classification set that has been prepared on this machine (tfds.py). Folders and TFDS sets are decoded
once, then come from a cache (cache.py).

Left out: normalisation (it belongs to the compiled step: one byte a pixel travels) and shuffling (the order
of an epoch is a function of its key). Nothing read here is ever unpickled, and no file read here names code
to run.
"""

import contextlib
import dataclasses
import difflib
import gzip
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax.data import cache, image_decoding, image_folder, npz, tfds
from kd_jax.data.arrays import check, require
from kd_jax.data.cache import Held
from kd_jax.errors import InputError, nearest_path

_DIGITS_SEED = 0
_DIGITS_TEST = 500

_log = logging.getLogger(__name__)


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


def load(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    *,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    progress: image_decoding.Progress | None = None,
) -> Dataset:
    """The dataset called `name`.

    data_dir: where TFDS sets lie; else TFDS_DATA_DIR, else TFDS's own default.
    cache_dir: where decoded arrays are kept; else KD_JAX_CACHE, else the user's cache folder. A folder that
        cannot be written is no error.
    image_size, skip_unreadable: of an image folder alone: h = w (None: the images' own), and whether files
        that cannot be read are left out (else they are an error).
    progress: called while an image folder or a TFDS set is decoded.
    What was left out, or taken in a way that the user may not expect, is logged as a warning.
    Raises InputError for an unknown, unprepared, unreadable or unsuitable dataset.
    """
    name = os.fspath(name)
    dataset = _load(name, data_dir, cache_dir, image_size, skip_unreadable, progress)
    for note in (*_namesakes(name, data_dir), *dataset.notes):
        _log.warning("%s: %s", name, note)
    return dataset


def _namesakes(name: str, data_dir: Any) -> list[str]:
    """What else has the name of a dataset that has been loaded."""
    if not image_folder.is_image_folder(name):
        return []
    if name in DATASETS:
        return [f"taken is the set that comes with scikit-learn; the folder of that name is ./{name}"]
    with contextlib.suppress(InputError):  # a folder's name need not be one of TFDS
        if tfds.prepared_folder(name, tfds.root(data_dir)):
            return ["taken is the folder of images, not the prepared TFDS set of that name"]
    return []


def _load(
    name: str,
    data_dir: Any,
    cache_dir: Any,
    image_size: int | None,
    skip_unreadable: bool,
    progress: image_decoding.Progress | None,
) -> Dataset:
    loader = DATASETS.get(name) or (_load_npz if name.endswith(".npz") else None)
    try:
        if loader is None and image_folder.is_image_folder(name):
            return _load_folder(name, cache_dir, image_size, skip_unreadable, progress)
        for option, given in (("image_size", image_size), ("skip_unreadable", skip_unreadable)):
            if given and loader is None and (os.sep in name or os.path.isdir(name)):
                raise _unknown(name, Path())  # its path is wrong, not the option
            wrong = f"{option} is for image folders"
            require(not given, wrong, f"none with dataset {name!r}", f"{option}={given}")
        if loader is None:
            return _load_tfds(name, data_dir, cache_dir, progress)
        return loader(name, data_dir, cache_dir)
    except OSError as error:
        wrong = f"dataset {name!r} cannot be read"
        expected = "a file that is there and that this user may read"
        raise InputError(wrong, expected, f"{error}{nearest_path(name)}") from error


def split_training(dataset: Dataset, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """(indices of training examples, of validation examples), each i64, sorted, together 0..N-1: the
    validation split that comes with the dataset, else that of `split_validation`, whose errors it has."""
    if not dataset.num_validation:
        return split_validation(dataset.train_labels, fraction)
    index = np.arange(len(dataset.train_labels))
    return index[: -dataset.num_validation], index[-dataset.num_validation :]


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
    require(labels.ndim == 1 and labels.dtype.kind in "iu", "labels cannot be split", "integers [N]", given)
    require(0 <= fraction < 1, "validation fraction out of range", "0 <= fraction < 1", fraction)
    require(0 <= seed < 2**32, "validation seed out of range", "0 <= seed < 2**32", seed)
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


def _digits_table() -> np.ndarray:
    """i64[1797,65]: 64 grey levels and the label. The file is read without scikit-learn, whose import takes
    longer than all else; a version that keeps it elsewhere is asked for its arrays."""
    package = importlib.util.find_spec("sklearn")
    path = Path(package.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if package else Path()
    if path.is_file():
        with gzip.open(path, "rt") as file:
            return np.loadtxt(file, np.int64, delimiter=",")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels]).astype(np.int64)


def _load_digits(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8, their 17 grey levels spread over 0..255."""
    table = _digits_table()
    images = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, -1]
    quotas = np.bincount(labels) * (_DIGITS_TEST / len(labels))
    take = np.floor(quotas).astype(int)
    # Largest remainders, so that the classes' shares add up to the test set's size.
    take[np.argsort(take - quotas, kind="stable")[: _DIGITS_TEST - take.sum()]] += 1
    test = _choose(labels, dict(enumerate(take)), _DIGITS_SEED)
    return _assemble(name, (images[~test], labels[~test], images[test], labels[test]))


def _load_npz(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    """A file of the user's own, in one of the layouts of npz.py."""
    content = npz.read(name)
    return _assemble(
        name, content.arrays, content.class_names, content.num_classes, content.notes, content.num_validation
    )


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
        return _freeze(name, held)
    dataset = _assemble(name, *tfds.decode(name, root, folder, progress))
    cache.write(path, source, dataset)
    return dataset


def _load_folder(
    name: str, cache_dir: Any, image_size: int | None, skip_unreadable: bool, progress: Any
) -> Dataset:
    """An image folder: from the cache of decoded arrays, or decoded and put there."""
    require(image_size is None or image_size > 0, "image_size out of range", "1 or more pixels", image_size)
    root = Path(os.path.expanduser(name))  # which, unlike Path's, never fails
    listing = image_folder.survey(root)
    # A file for each size, so that two sizes in turn are decoded once each.
    label = f"{root.resolve().name[:40]}-{image_size or 'own'}"
    path, source = cache.place(label, root, [listing[1:], image_size], cache_dir)
    held = cache.read(path, source)
    if held is not None and (skip_unreadable or held.num_skipped == 0):
        return _freeze(name, held)
    decoded = image_decoding.decode(listing, image_size, skip_unreadable, progress)
    arrays, num_validation, num_skipped, notes = decoded
    dataset = _assemble(name, arrays, listing.class_names, None, notes, num_validation, num_skipped)
    cache.write(path, source, dataset)
    return dataset


def _unknown(name: str, root: Path) -> InputError:
    """The error that names the nearest names there are."""
    if os.sep in name or os.path.isdir(name):
        there = os.path.isdir(os.path.expanduser(name))
        given = "a folder without them" if there else f"no such folder{nearest_path(name)}"
        wrong = f"dataset {name!r} cannot be read"
        raise InputError(wrong, "an .npz, or a folder of train/ and val/ or test/", given)
    prepared = [folder.name for folder in root.glob("*") if folder.is_dir()]
    own = [path for path in os.listdir() if path.endswith(".npz") or image_folder.is_image_folder(path)]
    known = sorted({*DATASETS, *tfds.known_names(), *prepared, *own})
    near = difflib.get_close_matches(name.lower(), known, n=3) or [*DATASETS]
    paths = "a path ending in .npz, a folder of train/ and val/ or test/"
    expected = f"{', '.join(DATASETS)}, {paths}, or a TFDS name (nearest: {', '.join(near)})"
    return InputError("unknown dataset", expected, repr(name))


DATASETS: dict[str, Callable[[str, Any, Any], Dataset]] = {"digits": _load_digits}
"""name -> (name, data_dir, cache_dir) -> Dataset, for the sets that neither a path nor TFDS names."""


# --- making ---------------------------------------------------------------------------------------------


def _assemble(
    name: str,
    arrays: Sequence[np.ndarray],
    class_names: Any = None,
    num_classes: int | None = None,
    notes: Sequence[str] = (),
    num_validation: int = 0,
    num_skipped: int = 0,
) -> Dataset:
    """A Dataset of four arrays as they were found, or InputError; arguments as of `check` and `Dataset`."""
    ready, names, notes = check(name, arrays, class_names, num_classes, notes)
    stamp = cache.fingerprint(ready, num_validation)
    return _freeze(name, Held(list(ready), names, stamp, num_validation, num_skipped, notes))


def _freeze(name: str, held: Held) -> Dataset:
    """The Dataset of checked arrays (u8, i32, u8, i32): read-only, so that the fingerprint stays true."""
    for array in held.arrays:
        array.setflags(write=False)
    train_images, train_labels, test_images, test_labels = held.arrays
    return Dataset(
        name,
        train_images,
        train_labels,
        test_images,
        test_labels,
        num_classes=len(held.class_names),
        class_names=held.class_names,
        fingerprint=held.fingerprint,
        num_validation=held.num_validation,
        num_skipped=held.num_skipped,
        notes=held.notes,
    )
