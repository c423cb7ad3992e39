"""The files of an image folder's listing -> uint8 arrays; each file is read by images.py."""

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from kd_jax.data import images
from kd_jax.data.cache import one_line, require_memory
from kd_jax.data.image_folder import Listing, Picture, as_text, first_few, require_each
from kd_jax.errors import InputError

Progress = Callable[[int, int], None]
"""(images done, images in all)"""


def decode(
    listing: Listing, image_size: int | None, skip_unreadable: bool, progress: Progress | None = None
) -> tuple[list[np.ndarray], int, int, list[str]]:
    """(images u8[N,h,w,3] and labels i64[N] of the training split with the validation split behind it, then
    of the test split; the number of validation images; the number of files that were skipped; notes on what
    was left out and on conversions). The images of a split come by class, then by name. As many threads work
    as there are cores.

    image_size: h = w; None: the images' own, one for all.
    Raises InputError for images of several sizes or too many for the memory, and for files that cannot be
    read unless they are to be skipped.
    """
    root, classes = listing.root, len(listing.class_names)
    every = (*listing.train, *listing.validation, *listing.test)
    files = [file for group in every for file in group]
    groups = np.repeat(np.arange(3 * classes), [len(group) for group in every])
    with images.ready():
        is_image = np.array([is_picture(root, file.path) for file in files], bool)
        pictures, groups = (
            [file for file, good in zip(files, is_image, strict=True) if good],
            groups[is_image],
        )
        pixels, faults, remarks = read_pictures(root, pictures, image_size, progress)
    if faults and not skip_unreadable:
        named = (f"{as_text(pictures[index].path)} ({fault})" for index, fault in faults.items())
        wrong = f"{len(faults)} of {len(pictures)} images in {root} cannot be read"
        raise InputError(wrong, "whole images, or skip_unreadable", first_few(named, len(faults)))
    seen = np.delete(np.arange(len(pictures)), list(faults))
    for new, old in enumerate(seen) if faults else ():  # in place: a second copy may not fit into memory
        pixels[new] = pixels[old]
    pixels, groups = pixels[: len(seen)], groups[seen]
    ends = np.searchsorted(groups, (classes, 2 * classes)).tolist()  # of training, of validation
    require_each(root, listing.class_names, np.bincount(groups[: ends[0]], minlength=classes).tolist())
    labels = groups % classes
    splits = [pixels[: ends[1]], labels[: ends[1]], pixels[ends[1] :], labels[ends[1] :]]
    others = [file.path for file, good in zip(files, is_image, strict=True) if not good]
    return (
        splits,
        ends[1] - ends[0],
        len(faults),
        listing.notes + _notes(listing, others, [picture.path for picture in pictures], remarks),
    )


def is_picture(root: Path, path: str) -> bool:
    """Whether a file is one of a class's images, readable or not."""
    return os.path.splitext(path)[1].lower() in images.endings() or images.is_image(root / path)


def _notes(
    listing: Listing, others: list[str], pictures: list[str], remarks: dict[int, list[str]]
) -> list[str]:
    """others: files in which no image is found.  remarks: remark of an image -> the paths of those images."""
    deeper = [path for path in pictures if path.count("/") > 2 + (path.split("/")[2] == "images")]
    found = [
        ("left out: {} in which pillow finds no image", others, "files"),
        ("left out: {} that belong to no class", listing.strays, "files or folders"),
        ("counted as the class whose folder they lie below: {}", deeper, "images"),
        *((text, remarks.get(remark, []), "images") for remark, text in images.REMARKS.items()),
    ]
    total = len(pictures)
    return [
        text.format(f"{len(paths)} {what}" + f" of {total}" * (what == "images"))
        + f" ({first_few(map(as_text, paths), len(paths))})"
        for text, paths, what in found
        if paths
    ]


def read_pictures(
    root: Path,
    pictures: Sequence[Picture],
    image_size: int | None,
    progress: Progress | None,
    like: tuple[str, tuple[int, ...]] | None = None,
) -> tuple[np.ndarray, dict[int, str], dict[int, list[str]]]:
    """(u8[N,h,w,3], number of a picture -> why it cannot be read, remark -> the paths of its pictures).

    like: what has the shape that all are to have, and that shape (h, w, 3); None: the first picture.
    """
    first, shape = like or _first_shape(root, pictures, image_size)
    require_memory(root, len(pictures) * math.prod(shape))
    pixels = np.empty((len(pictures), *shape), np.uint8)

    def fill(index: int) -> str | frozenset[int]:
        path = pictures[index].path
        try:
            image = images.read(root / path, image_size)
        except Exception as error:  # A malformed file may raise nearly anything.
            return one_line(error).replace(f" {str(root / path)!r}", "")  # it is named beside its reason
        if image.pixels.shape != shape:
            both = ((shape, first), (image.pixels.shape, path))
            sizes = (f"{w} x {h} ({as_text(p)})" for (h, w, _), p in both)
            raise InputError(
                f"{root} has images of several sizes", "one size, or an image_size", " and ".join(sizes)
            )
        pixels[index] = image.pixels
        return image.remarks

    faults: dict[int, str] = {}
    remarks: dict[int, list[str]] = {}
    with ThreadPool(_num_cores()) as pool:
        for index, found in enumerate(pool.imap(fill, range(len(pictures)), chunksize=8)):
            if isinstance(found, str):
                faults[index] = found
            else:
                for remark in found:
                    remarks.setdefault(remark, []).append(pictures[index].path)
            if progress:
                progress(index + 1, len(pictures))
    return pixels, faults, remarks


def _first_shape(root: Path, pictures: Sequence[Picture], size: int | None) -> tuple[str, tuple[int, ...]]:
    """(the first image that can be read, the shape that all are to have)."""
    for picture in pictures if size is None else ():
        with contextlib.suppress(Exception):
            return picture.path, images.read(root / picture.path, None).pixels.shape
    return "", (size or 1, size or 1, 3)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
