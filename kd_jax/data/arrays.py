"""The four arrays of a dataset as they were found -> u8[N,h,w,c] and labels, or InputError.

Images have their channels last, 1 to 4 of them. The networks would take more, but eight-bit images of 5 or
more channels are in practice channels-first images or volumes, and both would train on nonsense without an
error. What is likely to be a mistake, but may be meant, is a note.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kd_jax.errors import InputError

MOST_CHANNELS = 4
_COLOURS = (3, 4)  # channels of a picture in colour, without and with transparency
_DARK = 64  # an ordinary split of images has a brighter pixel somewhere
_BLOCK = 4096


class Found(NamedTuple):
    """What a source of data holds, as it was found.

    arrays: images u8[N,h,w] or u8[N,h,w,c] and integer labels [N] of the training split, then of the test
        split. class_names: K words; None: there are none.
    num_classes: K where the source declares it; else the largest training label + 1, and then each class
        must have a training example.
    notes: what the user should know of how it was read; repeated in the refusal of images that show nothing.
    num_validation: the last so many training examples are the validation split. num_skipped: files.
    """

    arrays: Sequence[np.ndarray]
    class_names: Any = None
    num_classes: int | None = None
    notes: Sequence[str] = ()
    num_validation: int = 0
    num_skipped: int = 0


def require(good: Any, wrong: str, expected: str, given: object) -> None:
    """InputError unless `good`."""
    if not good:
        raise InputError(wrong, expected, given)


def check(name: str, found: Found) -> tuple[list[np.ndarray], tuple[str, ...], tuple[str, ...]]:
    """(the arrays as training takes them, u8[N,h,w,c] and i32[N] of the training split, then of the test
    split; K words; notes), or InputError."""
    arrays, class_names, num_classes, notes, *_ = found
    train_images, train_labels = check_split(f"{name}: train", *arrays[:2])
    test_images, test_labels = check_split(f"{name}: test", *arrays[2:])
    shapes = f"{list(train_images.shape[1:])} and {list(test_images.shape[1:])}"
    alike = train_images.shape[1:] == test_images.shape[1:]
    require(alike, f"{name}: training and test images differ in shape", "one shape [h,w,c]", shapes)
    if num_classes is None:
        num_classes = _count_classes(name, train_labels)
    require(num_classes > 1, f"{name}: too few classes", "at least two", num_classes)
    for split, labels in (("train", train_labels), ("test", test_labels)):
        classes = f"classes 0..{num_classes - 1}"
        require(labels.max() < num_classes, f"{name}: {split}_labels name no class", classes, labels.max())
    class_names = np.array(list(map(str, range(num_classes))) if class_names is None else class_names)
    given = f"{class_names.dtype} {list(class_names.shape)}"
    fitting = class_names.dtype.kind == "U" and class_names.shape == (num_classes,)
    require(fitting, f"{name}: class_names do not fit the classes", f"{num_classes} strings", given)
    # As half a surrogate pair, or a line break.
    odd = [ascii(word) for word in class_names.tolist() if not word.isprintable()]
    require(not odd, f"{name}: class_names cannot be shown", "printable words", ", ".join(odd[:1]))
    for split, images in (("train", train_images), ("test", test_images)):
        _require_content(f"{name}: {split}_images", images, notes)
    ready = [train_images, train_labels.astype(np.int32), test_images, test_labels.astype(np.int32)]
    ranges = (*_range_notes("training", train_images), *_range_notes("test", test_images))
    return ready, tuple(class_names.tolist()), (*notes, *ranges)


def check_split(what: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u8[N,h,w,c] and integers [N], none negative, from u8[N,h,w] or u8[N,h,w,c] and [N], or InputError."""
    pixels = "uint8 (x in [0, 1] becomes it by np.rint(255 * x).astype(np.uint8))"
    require(images.dtype == np.uint8, f"{what}_images are of the wrong type", pixels, images.dtype)
    shape = list(images.shape)
    require(images.ndim in (3, 4), f"{what}_images are of the wrong shape", "[N,h,w] or [N,h,w,c]", shape)
    require(images.size, f"{what}_images are empty", "at least one example and one pixel", shape)
    require(labels.dtype.kind in "iu", f"{what}_labels are of the wrong type", "integers", labels.dtype)
    fitting = labels.shape == images.shape[:1]
    require(fitting, f"{what}_labels do not fit the images", f"[{shape[0]}]", list(labels.shape))
    require(labels.min() >= 0, f"{what}_labels hold a negative class", "classes from 0", labels.min())
    if images.ndim == 3:
        return np.ascontiguousarray(images[..., None]), labels
    _require_channels_last(f"{what}_images", images.shape)
    return np.ascontiguousarray(images), labels


def _require_channels_last(what: str, shape: tuple[int, ...]) -> None:
    """InputError for more than 4 channels; it names the transpose where the second axis can be theirs."""
    if shape[-1] <= MOST_CHANNELS:
        return
    if shape[1] <= MOST_CHANNELS:
        expected = "channels last, [N,h,w,c]: images.transpose(0, 2, 3, 1)"
        raise InputError(f"{what} have their channels first", expected, list(shape))
    expected = f"[N,h,w,c] of 1 to {MOST_CHANNELS} channels c; volumes are not images"
    raise InputError(f"{what} have too many channels", expected, list(shape))


def _require_content(what: str, images: np.ndarray, notes: Sequence[str]) -> None:
    """InputError where each image is of one colour. An image of one pixel can be nothing else."""
    pixels = images.reshape(len(images), -1, images.shape[-1])
    # In blocks, of which the first one usually answers.
    blocks = (pixels[start : start + _BLOCK] for start in range(0, len(pixels), _BLOCK))
    if pixels.shape[1] > 1 and all((block == block[:, :1]).all() for block in blocks):
        given = "; ".join([f"one colour in each of {len(pixels)}", *notes])
        raise InputError(f"{what} show nothing", "images that are not each of one colour", given)


def layout_notes(shape: tuple[int, ...]) -> list[str]:
    """How a shape is read that has a second meaning: [N,3,3,3] may have its channels first, too."""
    if len(shape) == 4 and shape[1] in _COLOURS and shape[3] > 1:
        meant = f"{shape[1]} x {shape[2]} pixels of {shape[3]} channels, which come last"
    elif len(shape) == 3 and (shape[1] in _COLOURS or shape[2] in _COLOURS) and max(shape[1:]) > 8:
        meant = f"{shape[1]} x {shape[2]} pixels of one channel; images in colour are [N,h,w,c]"
    else:
        return []
    return [f"images {list(shape)} are taken as {meant}"]


def _range_notes(split: str, images: np.ndarray) -> list[str]:
    """Bytes that hold 0..1 or 0..16 are not spread over 0..255, as all else here takes them to be."""
    lowest, highest = int(images.min()), int(images.max())
    if highest >= _DARK:
        return []
    cure = f"np.rint(255 / {highest} * images).astype(np.uint8) spreads them, or normalise by the data"
    return [f"the {split} images hold values {lowest} to {highest} of 0 to 255 alone: {cure}"]


def _count_classes(name: str, train_labels: np.ndarray) -> int:
    """K of labels that are to be exactly 0..K-1, or InputError."""
    present = np.unique(train_labels)
    # Compared with the labels present, so that a label of 2**62 allocates nothing.
    gaps = np.flatnonzero(present != np.arange(len(present)))
    expected = f"an example of each class 0..{present[-1]}"
    given = f"none of class {gaps[0]}{' (labels count from 0)' if gaps[0] == 0 else ''}" if len(gaps) else ""
    require(not len(gaps), f"{name}: a class has no training example", expected, given)
    return len(present)
