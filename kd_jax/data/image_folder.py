"""Image folders: root/{train,val|test}/<class>/*, as fastai ships Imagenette and Imagewoof, and the layout of
Tiny-ImageNet (train/<class>/images/*, val/images/* with val/val_annotations.txt); decoded with pillow.

Classes are numbered by their folders' names, sorted (Tiny-ImageNet's wnids.txt, in an order of its own, is
not read). A words.txt in the root, lines of such a name, a tab and words, gives them readable names. Where
there are both test and val, test is used, as with TFDS; Tiny-ImageNet's test, which has no labels, is not.

An image is a regular file with an image's extension; hidden files and all others are passed over. It is
turned as its EXIF orientation says and made RGB: grey is repeated, a palette looked up, transparency dropped,
16 bits rounded to 8; of several frames it is the first. With an image size s the shorter side is resized to s
and the square in the middle kept, by pillow's bicubic filter, which is antialiased: its support grows with
the reduction. JPEG's own reduction while decoding (`draft`) would be quicker, and other pixels: not used.

Left out: deeper folders, and other ways to resize (images of one size, prepared elsewhere, are taken as they
are).
"""

import contextlib
import math
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kd_jax.data.cache import one_line, require_memory
from kd_jax.types import InputError

Progress = Callable[[int, int], None]
"""(images done, images in all)"""

# torchvision's list and GIF. Pillow knows formats, too, that it hands to other programs: never tried.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
_NAMED = 3


class Picture(NamedTuple):
    """A file: its path below the root, its size in bytes and mtime in ns (-1 where it cannot be had)."""

    path: str
    size: int
    mtime: int


class Listing(NamedTuple):
    """What a folder holds, nothing decoded. train, test: a list of pictures for each class, K of them."""

    root: Path
    class_names: list[str]
    train: list[list[Picture]]
    test: list[list[Picture]]


def is_image_folder(name: str) -> bool:
    """Whether a folder of that name has a folder train."""
    return bool(name) and os.path.isdir(os.path.join(os.path.expanduser(name), "train"))


# --- listing --------------------------------------------------------------------------------------------


def survey(root: Path) -> Listing:
    """The listing of an image folder, or InputError. OSError where a folder in it cannot be read."""
    train, test = _class_folders(root, "train"), _test_split(root)
    classes = sorted(train)
    _require_each(root, classes, [len(train[name]) for name in classes])
    if strangers := sorted(set(test) - set(train)):
        given = f"{_some(map(_text, strangers), len(strangers))} not in train"
        raise InputError(f"{root}: a test class has no training images", "the classes of train", given)
    names = _readable(root, classes)
    return Listing(root, names, [train[name] for name in classes], [test.get(name, []) for name in classes])


def _test_split(root: Path) -> dict[str, list[Picture]]:
    annotations = root / "val" / "val_annotations.txt"
    if annotations.is_file() and (root / "val" / "images").is_dir():
        return _annotated(root, annotations)
    tests = [split for split in ("test", "val") if (root / split).is_dir()]
    if not tests:
        expected = "train and val or test, each with a folder for each class"
        raise InputError(f"{root} lacks a split", expected, "train alone")
    return _class_folders(root, tests[0])


def _class_folders(root: Path, split: str) -> dict[str, list[Picture]]:
    """folder name -> its pictures, sorted; Tiny-ImageNet's lie one folder deeper."""
    with os.scandir(root / split) as entries:
        # A link to nowhere is a class that is lacking.
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and (os.path.isdir(entry) or (entry.is_symlink() and not os.path.exists(entry)))
        ]
    return {
        name: _pictures(root, f"{split}/{name}") + _pictures(root, f"{split}/{name}/images") for name in names
    }


def _pictures(root: Path, folder: str) -> list[Picture]:
    if not (root / folder).is_dir():
        return []
    names = [name for name in os.listdir(root / folder) if name.lower().endswith(_EXTENSIONS)]
    looked = [_look(root, f"{folder}/{name}") for name in sorted(names) if not name.startswith(".")]
    return [picture for picture in looked if picture]


def _look(root: Path, path: str) -> Picture | None:
    """None for what is there and no file: to open a pipe would be to wait for ever."""
    try:
        status = os.stat(root / path)
    except OSError:  # A link to nowhere or round in circles is an image that is lacking.
        return Picture(path, -1, -1)
    return Picture(path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _annotated(root: Path, annotations: Path) -> dict[str, list[Picture]]:
    """Tiny-ImageNet's validation split: lines of file name, tab, class (and a box, which is not used)."""
    found: dict[str, list[Picture]] = {}
    seen = set()
    for number, line in enumerate(annotations.read_bytes().splitlines(), 1):
        line_text = os.fsdecode(line)
        name, *rest = line_text.split("\t")
        odd = name in ("", ".", "..") or "\0" in line_text or os.path.basename(name) != name
        if not rest or odd or name in seen:
            expected = "on each line the name of one more file of images, a tab, a class"
            raise InputError(f"{annotations}, line {number}, cannot be read", expected, line[:80])
        seen.add(name)
        picture = _look(root, f"val/images/{name}")
        found.setdefault(rest[0], []).extend([picture] if picture else [])
    return {name: sorted(pictures) for name, pictures in found.items()}


def _readable(root: Path, classes: Sequence[str]) -> list[str]:
    """The first of each class's words where words.txt has some, the folder's name added where two agree."""
    try:
        words_file = root / "words.txt"  # a pipe would be waited for
        lines = words_file.read_text("utf-8", "replace").splitlines() if words_file.is_file() else []
    except FileNotFoundError:
        lines = []
    words = {name: text.split(",")[0].strip() for name, _, text in (line.partition("\t") for line in lines)}
    names = [words.get(name) or _text(name) for name in classes]
    count = Counter(names)
    return [n if count[n] == 1 else f"{n} ({_text(name)})" for n, name in zip(names, classes, strict=True)]


def _require_each(root: Path, names: Sequence[str], counts: Sequence[int]) -> None:
    """InputError unless every class has a training image."""
    if empty := [_text(name) for name, count in zip(names, counts, strict=True) if not count]:
        given = f"none in {_some(empty, len(empty))}"
        raise InputError(f"{root}: a class has no training image", "one in each folder of train", given)


def _text(name: str) -> str:
    """A file's name for people: bytes that are no UTF-8 as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _some(items: Iterator[str] | Sequence[str], number: int) -> str:
    """The first few of `number` items."""
    first = [item for item, _ in zip(items, range(_NAMED), strict=False)]
    return ", ".join(first) + (f" and {number - _NAMED} more" if number > _NAMED else "")


# --- decoding -------------------------------------------------------------------------------------------


def decode(
    listing: Listing, image_size: int | None, skip_unreadable: bool, progress: Progress | None = None
) -> tuple[list[np.ndarray], int]:
    """(images u8[N,h,w,3] and labels i64[N] of the training split, then of the test split; how many files
    were skipped). The images come by class, then by name. As many threads work as there are cores.

    image_size: h = w; None: the images' own, one for all.
    Raises InputError for images of several sizes or too many for the memory, and for files that cannot be
    read unless they are to be skipped.
    """
    root, classes = listing.root, len(listing.class_names)
    pictures = [picture for group in (*listing.train, *listing.test) for picture in group]
    groups = np.repeat(np.arange(2 * classes), [len(group) for group in (*listing.train, *listing.test)])
    with _pillow():
        images, faults = _decode_all(root, pictures, image_size, progress)
    if faults and not skip_unreadable:
        named = (f"{_text(pictures[index].path)} ({fault})" for index, fault in faults.items())
        wrong = f"{len(faults)} of {len(pictures)} images in {root} cannot be read"
        raise InputError(wrong, "whole images, or --skip_unreadable", _some(named, len(faults)))
    kept = np.delete(np.arange(len(pictures)), list(faults))
    for new, old in enumerate(kept) if faults else ():  # in place: a second copy may not fit into memory
        images[new] = images[old]
    images, groups = images[: len(kept)], groups[kept]
    num_train = int(np.searchsorted(groups, classes))
    _require_each(root, listing.class_names, np.bincount(groups[:num_train], minlength=classes).tolist())
    splits = [images[:num_train], groups[:num_train], images[num_train:], groups[num_train:] - classes]
    return splits, len(faults)


@contextlib.contextmanager
def _pillow() -> Iterator[None]:
    """Pillow's formats ready, its warnings settled: of a decompression bomb an error, of anything else (odd
    metadata) nothing. For all threads at once: what filters there are belongs to the process."""
    from PIL import Image

    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _decode_all(
    root: Path, pictures: Sequence[Picture], image_size: int | None, progress: Progress | None
) -> tuple[np.ndarray, dict[int, str]]:
    """(u8[N,h,w,3], number of a picture -> why it cannot be read)."""
    first, shape = _first_shape(root, pictures, image_size)
    require_memory(root, len(pictures) * math.prod(shape))
    images = np.empty((len(pictures), *shape), np.uint8)

    def fill(index: int) -> str | None:
        path = pictures[index].path
        try:
            pixels = _read(root / path, image_size)
        except Exception as error:  # A malformed file may raise nearly anything.
            return one_line(error).replace(f" {str(root / path)!r}", "")  # it is named beside its reason
        if pixels.shape != shape:
            sizes = (f"{w} x {h} ({_text(p)})" for (h, w, _), p in ((shape, first), (pixels.shape, path)))
            raise InputError(f"{root} has images of several sizes", "--image_size", " and ".join(sizes))
        images[index] = pixels
        return None

    faults = {}
    with ThreadPool(_num_cores()) as pool:
        for index, fault in enumerate(pool.imap(fill, range(len(pictures)), chunksize=8)):
            if fault:
                faults[index] = fault
            if progress:
                progress(index + 1, len(pictures))
    return images, faults


def _first_shape(root: Path, pictures: Sequence[Picture], size: int | None) -> tuple[str, tuple[int, ...]]:
    """(the first image that can be read, the shape that all are to have)."""
    for picture in pictures if size is None else ():
        with contextlib.suppress(Exception):
            return picture.path, _read(root / picture.path, None).shape
    return "", (size or 1, size or 1, 3)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: Path, size: int | None) -> np.ndarray:
    """u8[h,w,3]; whatever pillow raises."""
    from PIL import Image, ImageOps

    with Image.open(path, formats=_FORMATS) as image:
        ImageOps.exif_transpose(image, in_place=True)
        rgb = _to_rgb(image)
    if size:
        # The square is cut out in the very step that resizes, where its edges may lie between two pixels.
        side, (width, height) = min(rgb.size), rgb.size
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        rgb = rgb.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(rgb)


def _to_rgb(image):
    """A PIL image of mode RGB."""
    from PIL import Image

    if image.mode.startswith("I"):  # which pillow would clip at 255
        grey = np.asarray(image, np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey levels beyond 16 bits")
        image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("grey levels of unknown range")
    elif "transparency" in image.info:  # pillow's way to drop it
        image = image.convert("RGBA")
    return image.convert("RGB")
