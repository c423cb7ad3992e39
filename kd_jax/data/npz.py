"""An .npz file in the layouts that people have -> the arrays of a dataset.

| layout | training and test split | validation split, optional |
|---|---|---|
| this library, MedMNIST | train_images, train_labels, test_images, test_labels | val_images, val_labels |
| Keras | x_train, y_train, x_test, y_test | x_val, y_val |

Labels are integers (or whole real numbers, or truth values) [N] or [N,1], one-hot [N,K], or words, whose
sorted order numbers the classes where class_names does not. Images are [N,h,w] or [N,h,w,c], or [N,c,h,w]
where no other reading is possible. Their values are bytes, or real numbers in [0, 1] or [0, 255]. Each
conversion is a note, and so are arrays that are not read.

Source of MedMNIST's layout: Yang et al. 2023, "MedMNIST v2". Its volumes and multi-label sets are refused.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kd_jax.data import arrays
from kd_jax.data.cache import ARRAYS, npz_names, read_npz
from kd_jax.errors import InputError

LAYOUTS = (
    (*ARRAYS, "val_images", "val_labels"),
    ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val"),
)
"""Names of the images and labels of the training, the test and the validation split."""

_BESIDE = ("class_names", "provenance", "made_by")  # what synthetic.py writes, too
_DARK = 64  # real numbers above 1, of which none is above this, are on neither of the two scales
_BLOCK = 4096


def read(name: str) -> arrays.Found:
    """The content of the file `name`; ~ is the user's home. It declares the number of classes where it is of
    synthetic.py: a class may have no image there.

    Errors: InputError for arrays that are missing, damaged or of another kind; OSError where no file is.
    """
    path = Path(os.path.expanduser(name))  # which, unlike Path's, never fails
    held = read_npz(path, (), [*itertools.chain(*LAYOUTS), *_BESIDE])
    layout = max(LAYOUTS, key=lambda names: len(held.keys() & {*names[:4]}))
    if not held.keys() >= {*layout[:4]}:
        read_npz(path, layout[:4])  # raises, and names what is missing
    there = [key for key in layout[4:] if key in held]
    lone = len(there) == 1
    arrays.require(not lone, f"{path} lacks an array", f"both of {', '.join(layout[4:])}", ", ".join(there))
    if there and not held[there[0]].size:
        raise InputError(f"{name}: {there[0]} are empty", "a validation image, or no such arrays", "none")
    keys = layout[: 4 + len(there)]
    unread = [key for key in npz_names(path) if key not in (*keys, *_BESIDE)]
    images, notes = as_bytes(name, {key: held[key] for key in keys[::2]})
    labels = [class_numbers(f"{name}: {key}", held[key]) for key in keys[1::2]]
    notes += dict.fromkeys(note for _, note in labels if note)
    classes, class_names = [label for label, _ in labels], held.get("class_names")
    if all(label.ndim == 1 and label.dtype.kind in "US" for label in classes):
        classes, class_names = _of_words(name, keys[1::2], classes, class_names)
        notes.append(f"labels are words: classes in their order, from 0, {class_names[0]}")
    found = [array for pair in zip(images, classes, strict=True) for array in pair]
    notes += [f"not read: {', '.join(unread)}"] if unread else []
    if not there:
        names = class_names if "provenance" in held else None
        return arrays.Found(found, class_names, None if names is None else names.size, notes)
    notes.append(f"{there[0]} are the validation split")
    joined = [*_joined(name, there, found), *found[2:4]]
    return arrays.Found(joined, class_names, None, notes, len(found[5]))


def _of_words(
    name: str, keys: Sequence[str], labels: list[np.ndarray], class_names: np.ndarray | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """(classes i64[N] of each split, K words) of labels that are words, those of training first."""
    try:
        words = [label.astype(str) for label in labels]  # bytes in ASCII
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: labels are no words", "text, or bytes in ASCII", error) from None
    known = np.unique(words[0]) if class_names is None else class_names
    fitting = known.ndim == 1 and known.dtype.kind == "U" and len(np.unique(known)) == len(known)
    arrays.require(fitting, f"{name}: class_names do not name the classes", "different words", known.dtype)
    for key, split in zip(keys, words, strict=True):
        strangers = np.setdiff1d(split, known)
        expected = "the words of training" if class_names is None else "the words of class_names"
        arrays.require(not len(strangers), f"{name}: {key} name no class", expected, strangers[:1])
    order = np.argsort(known)
    return [order[np.searchsorted(known[order], split)] for split in words], known


def _joined(name: str, keys: list[str], found: list[np.ndarray]) -> list[np.ndarray]:
    """Images and labels of the training split, followed by those of the validation split, or InputError."""
    images, labels, _, _, held_out, held_out_labels = found
    arrays.check_split(f"{name}: train", images, labels)  # first: else validation takes the blame for it
    shapes = [str(list(split.shape[1:])) for split in (images, held_out)]
    alike = shapes[0] == shapes[1]
    arrays.require(alike, f"{name}: {keys[0]} differ in shape from those of training", shapes[0], shapes[1])
    fitting = held_out_labels.shape == held_out.shape[:1]
    arrays.require(
        fitting, f"{name}: {keys[1]} do not fit the images", f"[{len(held_out)}]", [*held_out_labels.shape]
    )
    for key, one, other in zip(keys, (held_out, held_out_labels), (images, labels), strict=True):
        same = one.dtype.kind == other.dtype.kind or {one.dtype.kind, other.dtype.kind} <= set("iu")
        arrays.require(
            same, f"{name}: {key} are of another type", f"{other.dtype}, as in training", one.dtype
        )
    strangers = np.setdiff1d(held_out_labels, labels)
    given = f"class {strangers[:1].tolist()}"
    arrays.require(not len(strangers), f"{name}: {keys[1]} name no class of training", "its classes", given)
    # Of u8 and i64 numpy would make f64.
    whole = [of.astype(np.int64) if of.dtype.kind == "u" else of for of in (labels, held_out_labels)]
    return [np.concatenate([images, held_out]), np.concatenate(whole)]


def class_numbers(what: str, labels: np.ndarray) -> tuple[np.ndarray, str]:
    """(labels [N], a note or nothing) of labels [N], [N,1] or one-hot [N,K], as integers where they are whole
    numbers or truth values; others are left to `check`.

    Errors: InputError where an example has several classes.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind == "b":
        return labels.astype(np.int64), "labels are truth values: class 1 is True"
    if labels.ndim == 1 and labels.dtype.kind == "f":
        wide = labels.astype(np.float64)
        if np.all(np.abs(wide) < 2**31) and np.array_equal(wide, np.rint(wide)):
            return labels.astype(np.int64), f"labels of {labels.dtype} are whole"
    if labels.ndim != 2 or labels.dtype.kind not in "iufb":
        return labels, ""
    one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    expected = "one class an example: integers [N] or [N,1], or one-hot [N,K]"
    arrays.require(one_hot, f"{what} are multi-label", expected, f"{labels.dtype} {list(labels.shape)}")
    return labels.argmax(axis=1), "one-hot labels: the class is the column that holds 1"


def as_bytes(name: str, images: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], list[str]]:
    """(images of each split, u8 and channels last, notes); others are left to `check`.

    images: by their arrays' names, all of one file: one scale and one order of the axes holds for all.
    Errors: InputError where the values are on no known scale.
    """
    splits = list(images.values())
    notes: list[str] = []
    if all(_is_channels_first(split.shape) for split in splits):
        notes.append(f"images {list(splits[0].shape)} have their channels first and are transposed")
        splits = [split.transpose(0, 2, 3, 1) for split in splits]
    notes += arrays.layout_notes(splits[0].shape)
    dtypes = {split.dtype for split in splits}
    convertible = len(dtypes) == 1 and splits[0].dtype != np.uint8 and splits[0].dtype.kind in "iufb"
    if not convertible or not all(split.size and split.ndim in (3, 4) for split in splits):
        return splits, notes
    low, high = float(min(split.min() for split in splits)), float(max(split.max() for split in splits))
    given = f"{splits[0].dtype} from {low:.9g} to {high:.9g}"
    expected = "values in [0, 1] or in [0, 255]; the model normalises them"
    strange = [key for key in images if not np.isfinite(images[key]).all()]
    if strange:
        place = np.argwhere(~np.isfinite(images[strange[0]]))[0][0]
        given = f"nan or infinite values in {strange[0]}, first in image {place}"
        raise InputError(f"{name}: images hold what is no number", expected, given)
    known = low >= 0 and high <= 255 and not 1 < high < _DARK
    arrays.require(known, f"{name}: images are on no known scale", expected, given)
    scale, meaning = (255, "shares of 255") if high <= 1 else (1, "bytes")
    return [_scaled(split, scale) for split in splits], [*notes, f"images, {given}, are taken as {meaning}"]


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether no other reading is possible: 1, 3 or 4 channels, and more rows and columns than channels."""
    most = arrays.MOST_CHANNELS
    return len(shape) == 4 and shape[1] in (1, 3, 4) and shape[2] > most and shape[3] > most


def _scaled(images: np.ndarray, scale: int) -> np.ndarray:
    """round(scale * images) as bytes, a block at a time: the whole as f64 would take 8 times the memory."""
    scaled = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        scaled[block] = np.rint(images[block].astype(np.float64) * scale)
    return scaled
