"""Image folders: root/SPLIT/<class>/*, as of torchvision, fastai, Roboflow and Kaggle, and the layout of
Tiny-ImageNet (train/<class>/images/*, val/images/* with val/val_annotations.txt); decoded by
image_decoding.py.

The folder of a split has one of the names of SPLITS, in any case. The test split is `test`, and `val` beside
it is the validation split. Where there is no `test`, or it has no class folder because its images have no
labels, the test split is `val`.

Classes are numbered by their folders' names, sorted (Tiny-ImageNet's wnids.txt, in an order of its own, is
not read). A words.txt in the root, lines of such a name, a tab and words, gives them readable names.

An image of a class is any file in its folder, or in a folder below it, that pillow finds an image in; a file
that is none, but whose name ends as an image's, cannot be read. What is left out of a split is noted, but for
hidden files and for Tiny-ImageNet's lists of boxes.

Left out: other ways to resize (images of one size, prepared elsewhere, are taken as they are).
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kd_jax.errors import InputError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""split -> the names that its folder may have, lower case."""

_NAMED = 3


class Picture(NamedTuple):
    """A file: its path below the root, its size in bytes and mtime in ns (-1 where it cannot be had)."""

    path: str
    size: int
    mtime: int


class Listing(NamedTuple):
    """What a folder holds, nothing decoded. train, validation, test: a list of files for each class, K of
    them; of validation all are empty where there is no such split. strays: paths of what belongs to a split,
    but to no class, or is no file. notes: which folder is which split, where it may not be expected."""

    root: Path
    class_names: list[str]
    train: list[list[Picture]]
    validation: list[list[Picture]]
    test: list[list[Picture]]
    strays: list[str]
    notes: list[str]


def is_image_folder(name: str) -> bool:
    """Whether a folder of that name has a folder for training images."""
    return bool(name) and bool(split_folders(Path(os.path.expanduser(name))).get("train"))


def split_folders(root: Path) -> dict[str, list[str]]:
    """split -> the names of its folders in `root`, several where a split has several; none of no folder."""
    try:
        folders = sorted(name for name in os.listdir(root) if os.path.isdir(root / name))
    except OSError:
        return {}
    there = {split: [name for name in folders if name.lower() in names] for split, names in SPLITS.items()}
    return {split: names for split, names in there.items() if names}


def survey(root: Path) -> Listing:
    """The listing of an image folder, or InputError. OSError where a folder in it cannot be read."""
    folders, strays, notes = split_folders(root), [], []  # type: dict[str, list[str]], list[str], list[str]
    for several in folders.values():
        if len(several) > 1:
            raise InputError(f"{root} has one split several times", "one folder a split", ", ".join(several))
    (train_folder,) = folders["train"]
    train = _class_folders(root, train_folder, strays)
    held_out = {split: folders[split][0] for split in ("test", "val") if split in folders}
    annotations = root / "val" / "val_annotations.txt"
    if annotations.is_file() and (root / "val" / "images").is_dir():
        splits = [_annotated(root, annotations, strays)]  # its test images have no labels
    else:
        if "test" in held_out and not _has_classes(root, held_out["test"]):
            unlabelled = f"{held_out.pop('test')}/ has no class folders"
            if not held_out:
                raise InputError(
                    f"{root}: {unlabelled}", "a folder for each class, as in training, or val/", "none"
                )
            notes.append(f"{unlabelled}: the test split is {held_out['val']}/")
        splits = [_class_folders(root, folder, strays) for folder in held_out.values()]
    if not splits:
        expected = f"{train_folder} and val or test, each with a folder for each class"
        raise InputError(f"{root} lacks a split", expected, f"{train_folder} alone")
    classes = sorted(train)
    require_each(root, classes, [len(train[name]) for name in classes])
    if strangers := sorted(set().union(*splits) - set(train)):
        given = f"{first_few(map(as_text, strangers), len(strangers))} not in {train_folder}"
        expected = f"the classes of {train_folder}"
        raise InputError(f"{root}: a test class has no training images", expected, given)
    if len(splits) > 1 and any(splits[1].values()):
        notes.append(f"{held_out['val']}/ is the validation split, {held_out['test']}/ the test split")
    by_class = [[split.get(name, []) for name in classes] for split in (train, *splits[1:], splits[0])]
    empty: list[list[Picture]] = [[] for _ in classes]
    validation = by_class[1] if len(by_class) > 2 else empty
    return Listing(
        root, _readable(root, classes), by_class[0], validation, by_class[-1], sorted(strays), notes
    )


def _has_classes(root: Path, folder: str) -> bool:
    return any(os.path.isdir(root / folder / name) for name in _visible(root, folder))


def _class_folders(root: Path, split: str, strays: list[str]) -> dict[str, list[Picture]]:
    """folder name -> the files in it and below it; strays: told of what is left out."""
    found, top = {}, (root / split).resolve()
    for name in _visible(root, split):
        path = root / split / name
        # A link to nowhere is a class that is lacking.
        if os.path.isdir(path) or (os.path.islink(path) and not os.path.exists(path)):
            files = _pictures(root, f"{split}/{name}", strays, {top, *top.parents})
            found[name] = [file for file in files if file.path != f"{split}/{name}/{name}_boxes.txt"]
        else:
            strays.append(f"{split}/{name}")
    return found


def _visible(root: Path, folder: str) -> list[str]:
    return sorted(name for name in os.listdir(root / folder) if not name.startswith("."))


def files_below(root: Path) -> tuple[list[Picture], list[str]]:
    """(the files in a folder and in those below it, hidden ones left out; paths of what is no file)."""
    strays: list[str] = []
    files = _pictures(root, ".", strays, set())
    relative = lambda path: path.removeprefix("./")  # noqa: E731
    return [file._replace(path=relative(file.path)) for file in files], list(map(relative, strays))


def _pictures(root: Path, folder: str, strays: list[str], above: set[Path]) -> list[Picture]:
    """The files in a folder, then those in each folder below it.

    above: the folders that it lies in; a link to one of them, which would have no end, counts as stray.
    """
    if not os.path.isdir(root / folder):
        return []
    if (here := (root / folder).resolve()) in above:
        strays.append(folder)
        return []
    found, below = [], []
    for path in (f"{folder}/{name}" for name in _visible(root, folder)):
        if os.path.isdir(root / path):
            below += _pictures(root, path, strays, {*above, here})
        elif picture := _look(root, path):
            found.append(picture)
        else:
            strays.append(path)
    return found + below


def _look(root: Path, path: str) -> Picture | None:
    """None if it is no regular file: opening a pipe would block."""
    try:
        status = os.stat(root / path)
    except OSError:  # A link to nowhere or round in circles is an image that is lacking.
        return Picture(path, -1, -1)
    return Picture(path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _annotated(root: Path, annotations: Path, strays: list[str]) -> dict[str, list[Picture]]:
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
        strays += [] if picture else [f"val/images/{name}"]
    strays += [f"val/images/{name}" for name in _visible(root, "val/images") if name not in seen]
    return {name: sorted(pictures) for name, pictures in found.items()}


def _readable(root: Path, classes: Sequence[str]) -> list[str]:
    """The first of each class's words where words.txt has some, the folder's name added where two agree."""
    try:
        words_file = root / "words.txt"  # a pipe would be waited for
        lines = words_file.read_text("utf-8", "replace").splitlines() if words_file.is_file() else []
    except FileNotFoundError:
        lines = []
    words = {name: text.split(",")[0].strip() for name, _, text in (line.partition("\t") for line in lines)}
    names = [words.get(name) or as_text(name) for name in classes]
    count = Counter(names)
    return [n if count[n] == 1 else f"{n} ({as_text(name)})" for n, name in zip(names, classes, strict=True)]


def require_each(root: Path, names: Sequence[str], counts: Sequence[int]) -> None:
    """InputError unless every class has a training image."""
    if empty := [as_text(name) for name, count in zip(names, counts, strict=True) if not count]:
        given = f"none in {first_few(empty, len(empty))}"
        raise InputError(f"{root}: a class has no training image", "one in each folder of train", given)


def as_text(name: str) -> str:
    """A file's name for people: bytes that are no UTF-8 as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def first_few(items: Iterator[str] | Sequence[str], number: int) -> str:
    """The first few of `number` items."""
    first = [item for item, _ in zip(items, range(_NAMED), strict=False)]
    return ", ".join(first) + (f" and {number - _NAMED} more" if number > _NAMED else "")
