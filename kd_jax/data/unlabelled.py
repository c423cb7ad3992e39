"""Images without labels, for a trained network: a file, a folder of files, or an .npz -> uint8 arrays.

Image files are decoded as those of an image folder are (images.py), arrays as those of a dataset (npz.py). Of
a folder all images count, those in folders below it included, in the order of their paths; hidden files and
files in which pillow finds no image are left out. Of an .npz the first array of ARRAYS counts.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kd_jax.data import folder_files, image_decoding, images, npz
from kd_jax.data.arrays import require
from kd_jax.data.cache import read_npz
from kd_jax.data.folder_files import Picture, as_text, first_few
from kd_jax.errors import InputError, nearest_path

ARRAYS = ("images", *(layout[2] for layout in npz.LAYOUTS))

_EXPECTED = "a folder of images, an image file or an .npz"


class Decoded(NamedTuple):
    """pixels: u8[n,h,w,c], of the images that can be read. faults: name of an image -> why it cannot be read.
    remarks: key of `images.REMARKS` -> names of images."""

    pixels: np.ndarray
    faults: dict[str, str]
    remarks: dict[int, list[str]]


class Images(NamedTuple):
    """names: of each image, its path below the folder or its number in the array. decode: (first, end) -> the
    images of names[first:end]. notes: how they are taken, where that may not be expected."""

    names: list[str]
    decode: Callable[[int, int], Decoded]
    notes: list[str]


def find(name: str, image_shape: tuple[int, int, int], image_size: int | None) -> Images:
    """The images of that name. Files are not decoded yet.

    image_shape: (h, w, c) of the images that the network was trained on.
    image_size: image files are resized and cropped to such a square; None: they are taken as they are.
    Errors: InputError where there is no image, and for arrays of another shape; `decode` raises it for files
        of another size and, where c = 1, for files in colours. OSError for what this user may not read.
    """
    path = Path(os.path.expanduser(name))  # which, unlike Path's, never fails
    require(os.path.exists(path), "no such images", _EXPECTED, f"{name or 'nothing'}{nearest_path(name)}")
    if name.lower().endswith(".npz"):
        require(image_size is None, "image_size is for image files", f"none with {name}", image_size)
        return _of_npz(name, path, image_shape)
    height, width, _ = image_shape
    fitting = image_size is None or image_size == height == width
    require(fitting, "image_size is not that of the network", f"{height} x {width} pixels", image_size)
    if not os.path.isdir(path):
        require(os.path.isfile(path), "no such images", _EXPECTED, f"{name}, a pipe or a device")
        return _of_files(path.parent, [Picture(path.name, 0, 0)], image_shape, image_size, [])
    files, strays = folder_files.files_below(path)
    with images.ready():
        is_image = [images.may_be_image(path / file.path) for file in files]
    pictures = [file for file, good in zip(files, is_image, strict=True) if good]
    strays += [file.path for file, good in zip(files, is_image, strict=True) if not good]
    given = f"{len(strays)} other files" if strays else "an empty folder"
    require(pictures, f"{name} holds no image", "image files in it or in folders below it", given)
    left = f"left out: {len(strays)} files in which pillow finds no image"
    notes = [f"{left} ({first_few(list(map(as_text, strays)))})"] if strays else []
    return _of_files(path, sorted(pictures), image_shape, image_size, notes)


def _of_files(
    root: Path, pictures: list[Picture], image_shape: tuple[int, int, int], size: int | None, notes: list[str]
) -> Images:
    height, width, channels = image_shape
    expected = "images of 1 or 3 channels, as files have them; an .npz holds others"
    require(channels in (1, 3), f"the network takes images of {channels} channels", expected, root)
    names = [as_text(picture.path) for picture in pictures]
    paths = [root / picture.path for picture in pictures]
    like = "the images of the training", (height, width, 3)

    def decode(first: int, end: int) -> Decoded:
        with images.ready():
            pixels, faults, remarks = image_decoding.decode_all(
                root, names[first:end], paths[first:end], size, None, like
            )
        seen = np.delete(np.arange(len(pixels)), list(faults))
        pixels = pixels[seen] if faults else pixels
        if channels == 1:
            grey = (pixels == pixels[..., :1]).all(axis=(1, 2, 3))
            where = names[first + seen[np.argmin(grey)]] if len(seen) else ""
            one = "grey images: the network was trained on images of one channel"
            require(grey.all(), "an image is in colours", one, where)
            pixels = pixels[..., :1]
        named = {names[first + place]: fault for place, fault in faults.items()}
        return Decoded(pixels, named, remarks)

    return Images(names, decode, notes)


def _of_npz(name: str, path: Path, image_shape: tuple[int, int, int]) -> Images:
    held = read_npz(path, (), [ARRAYS[0], *(key for layout in npz.LAYOUTS for key in layout[::2])])
    key = next((key for key in ARRAYS if key in held), None)
    if key is None:
        raise InputError(f"{name} holds no images", f"an array called {' or '.join(ARRAYS)}", "none of them")
    # One scale and one order of the axes holds for all splits, as in training.
    splits = {other: held[other] for other in held if key != ARRAYS[0] or other == key}
    found, notes = npz.as_bytes(name, splits)
    pixels = found[list(splits).index(key)]
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    what = f"{name}: {key}"
    expected = "bytes or real numbers, of one type in all splits"
    require(pixels.dtype == np.uint8, f"{what} are of the wrong type", expected, pixels.dtype)
    given = "x".join(map(str, held[key].shape))
    shape = "x".join(map(str, image_shape))
    require(
        pixels.shape[1:] == image_shape, f"{what} are of another shape", f"Nx{shape}, as in training", given
    )
    require(len(pixels), f"{what} are empty", "an image", given)
    notes = [f"{key} are classified", *notes] if key != ARRAYS[0] else notes
    names = list(map(str, range(len(pixels))))
    return Images(names, lambda first, end: Decoded(pixels[first:end], {}, {}), notes)
