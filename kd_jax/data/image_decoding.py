"""Many images -> uint8 arrays: the files of an image folder's listing, or the contents of files that lie in
others; each is read by images.py."""

import contextlib
import math
import os
import re
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kd_jax.data import images
from kd_jax.data.arrays import Found
from kd_jax.data.cache import one_line, require_memory
from kd_jax.data.folder_files import as_text, first_few
from kd_jax.data.image_folder import Listing, require_each
from kd_jax.errors import InputError

Progress = Callable[[int, int], None]
"""(images done, images in all)"""


_ADDRESS = re.compile(" <_io.BytesIO object at 0x[0-9a-f]+>")


class Read(NamedTuple):
    """Images that were read. pixels: u8[n,h,w,3]; seen: i64[n], which of the sources they are, in order;
    num_skipped: of the sources; remarks: of images.py -> the names of the images."""

    pixels: np.ndarray
    seen: np.ndarray
    num_skipped: int
    remarks: dict[int, list[str]]


def decode(
    listing: Listing, image_size: int | None, skip_unreadable: bool, progress: Progress | None = None
) -> Found:
    """What the files hold, images u8[N,h,w,3] of their own classes; notes on what was left out and on
    conversions. The images of a split come by class, then by name.

    image_size: h = w; None: the images' own, one for all.
    Raises InputError as `read_all`, and for a class that is left without a training image.
    """
    root, classes = listing.root, len(listing.class_names)
    every = (*listing.train, *listing.validation, *listing.test)
    files = [file for group in every for file in group]
    groups = np.repeat(np.arange(3 * classes), [len(group) for group in every])
    with images.ready():
        is_image = np.array([images.may_be_image(root / file.path) for file in files], bool)
    paths = [file.path for file, good in zip(files, is_image, strict=True) if good]
    names = list(map(as_text, paths))
    read = read_all(root, names, [root / path for path in paths], image_size, skip_unreadable, progress)
    groups = groups[is_image][read.seen]
    ends = np.searchsorted(groups, (classes, 2 * classes)).tolist()  # of training, of validation
    require_each(root, listing.class_names, np.bincount(groups[: ends[0]], minlength=classes).tolist())
    labels = groups % classes
    splits = [read.pixels[: ends[1]], labels[: ends[1]], read.pixels[ends[1] :], labels[ends[1] :]]
    others = [file.path for file, good in zip(files, is_image, strict=True) if not good]
    notes = listing.notes + _left_out(listing, others, paths) + remarked(read.remarks, len(paths))
    return Found(splits, listing.class_names, None, notes, ends[1] - ends[0], read.num_skipped)


def read_all(
    root: object,
    names: Sequence[str],
    sources: Sequence[Path | bytes],
    image_size: int | None,
    skip_unreadable: bool,
    progress: Progress | None = None,
) -> Read:
    """The images of files, or of their contents. As many threads work as there are cores.

    root: what holds them, and names: of each, for the errors.
    Raises InputError for images of several sizes or too many for the memory, and for those that cannot be
    read unless they are to be skipped.
    """
    with images.ready():
        pixels, faults, remarks = decode_all(root, names, sources, image_size, progress)
    if faults and not skip_unreadable:
        named = [f"{names[index]} ({fault})" for index, fault in faults.items()]
        wrong = f"{len(faults)} of {len(names)} images in {root} cannot be read"
        raise InputError(wrong, "whole images, or skip_unreadable", first_few(named))
    seen = np.delete(np.arange(len(names)), list(faults))
    for new, old in enumerate(seen) if faults else ():  # in place: a second copy may not fit into memory
        pixels[new] = pixels[old]
    return Read(pixels[: len(seen)], seen, len(faults), remarks)


def _left_out(listing: Listing, others: list[str], pictures: list[str]) -> list[str]:
    """Notes.  others: files in which no image is found."""
    parts = [path.split("/") for path in pictures]  # split, class, file
    deeper = [
        path for path, part in zip(pictures, parts, strict=True) if len(part) > 3 + (part[2:3] == ["images"])
    ]
    found = [
        ("left out: {} in which pillow finds no image", others, "files"),
        ("left out: {} that belong to no class", listing.strays, "files or folders"),
        ("counted as the class whose folder they lie below: {}", deeper, "images"),
    ]
    return [
        _note(text, list(map(as_text, paths)), what, len(pictures)) for text, paths, what in found if paths
    ]


def remarked(remarks: dict[int, list[str]], total: int) -> list[str]:
    """Notes.  remarks: as of `Read`; total: number of images."""
    return [
        _note(text, remarks[remark], "images", total)
        for remark, text in images.REMARKS.items()
        if remark in remarks
    ]


def _note(text: str, names: list[str], what: str, total: int) -> str:
    number = f"{len(names)} {what}" + f" of {total}" * (what == "images")
    return text.format(number) + f" ({first_few(names)})"


def decode_all(
    root: object,
    names: Sequence[str],
    sources: Sequence[Path | bytes],
    image_size: int | None,
    progress: Progress | None = None,
    like: tuple[str, tuple[int, ...]] | None = None,
) -> tuple[np.ndarray, dict[int, str], dict[int, list[str]]]:
    """(u8[N,h,w,3], number of an image -> why it cannot be read, remark -> the names of its images).

    like: what has the shape that all are to have, and that shape (h, w, 3); None: the first image.
    """
    first, shape = like or _first_shape(names, sources, image_size)
    require_memory(root, len(names) * math.prod(shape))
    pixels = np.empty((len(names), *shape), np.uint8)

    def fill(index: int) -> str | frozenset[int]:
        source = sources[index]
        try:
            image = images.read(source, image_size)
        except Exception as error:  # A malformed file may raise nearly anything.
            if isinstance(source, bytes):  # pillow names the object in memory
                return _ADDRESS.sub("", one_line(error)) if source else "no content"
            return one_line(error).replace(f" {str(source)!r}", "")  # it is named beside its reason
        if image.pixels.shape != shape:
            both = ((shape, first), (image.pixels.shape, names[index]))
            sizes = (f"{w} x {h} ({name})" for (h, w, _), name in both)
            raise InputError(
                f"{root} has images of several sizes", "one size, or an image_size", " and ".join(sizes)
            )
        pixels[index] = image.pixels
        return image.remarks

    faults: dict[int, str] = {}
    remarks: dict[int, list[str]] = {}
    with ThreadPool(_num_cores()) as pool:
        for index, found in enumerate(pool.imap(fill, range(len(names)), chunksize=8)):
            if isinstance(found, str):
                faults[index] = found
            else:
                for remark in found:
                    remarks.setdefault(remark, []).append(names[index])
            if progress:
                progress(index + 1, len(names))
    return pixels, faults, remarks


def _first_shape(
    names: Sequence[str], sources: Sequence[Path | bytes], size: int | None
) -> tuple[str, tuple[int, ...]]:
    """(the first image that can be read, the shape that all are to have)."""
    for name, source in zip(names, sources, strict=True) if size is None else ():
        with contextlib.suppress(Exception):
            return name, images.read(source, None).pixels.shape
    return "", (size or 1, size or 1, 3)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
