"""Image folders: root/SPLIT/<class>/*, as of torchvision, fastai, Roboflow and Kaggle; root/<class>/* without
splits; and the layout of Tiny-ImageNet (train/<class>/images/*, val/images/* with val/val_annotations.txt).
Decoded by image_decoding.py.

The folder of a split has one of the names of SPLITS, in any case. The test split is `test`, and `val` beside
it is the validation split. Where there is no `test`, or it holds no image of a class of training because its
images have no labels, the test split is `val`. Without splits, a share of each class is the test split
(splits.py); then the images lie in the folders of the classes themselves, so that splits by other names are
not taken for classes.

Classes are numbered by their folders' names, sorted (Tiny-ImageNet's wnids.txt, in an order of its own, is
not read). A words.txt in the root, lines of such a name, a tab and words, gives them readable names.

An image of a class is any file in its folder, or in a folder below it, that pillow finds an image in; a file
that is none, but whose name ends as an image's, cannot be read. What is left out of a split is noted, but for
hidden files and for Tiny-ImageNet's lists of boxes; a folder without an image in any split is left out.

Left out: other ways to resize (images of one size, prepared elsewhere, are taken as they are).
"""

import os
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kd_jax.data import images
from kd_jax.data.folder_files import (
    Picture,
    as_text,
    class_folders,
    first_few,
    has_folders,
    holds_image,
    is_lost,
    look,
    shows_image,
    visible,
)
from kd_jax.data.splits import split_test
from kd_jax.errors import InputError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""split -> the names that its folder may have, lower case."""


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
    return bool(name) and has_splits(Path(os.path.expanduser(name)))


def is_class_folder(name: str) -> bool:
    """Whether a folder of that name has no splits, and folders of images, two or more."""
    root = Path(os.path.expanduser(name))
    try:
        if not name or has_splits(root):
            return False
        folders = (root / folder for folder in visible(root, "") if os.path.isdir(root / folder))
        return len(list(islice(filter(shows_image, folders), 2))) == 2
    except (OSError, ValueError):  # a name that no system has
        return False


def has_splits(root: Path) -> bool:
    """Whether a folder has one for training images. A class, too, may be called train, as of vehicles: then
    no folder lies in it, and folders that are no splits lie beside it."""
    splits = split_folders(root)
    try:
        beside = [name for name in visible(root, "") if os.path.isdir(root / name)]
        return "train" in splits and (
            len(splits) > 1 or len(beside) == 1 or any(has_folders(root, name) for name in splits["train"])
        )
    except (OSError, ValueError):
        return False


def split_folders(root: Path) -> dict[str, list[str]]:
    """split -> the names of its folders in `root`, several where a split has several; none of no folder."""
    try:
        folders = sorted(name for name in os.listdir(root) if os.path.isdir(root / name))
    except OSError:
        return {}
    there = {split: [name for name in folders if name.lower() in names] for split, names in SPLITS.items()}
    return {split: names for split, names in there.items() if names}


def survey(root: Path, test_fraction: float | None = None) -> Listing:
    """The listing of an image folder, or InputError. OSError where a folder in it cannot be read.

    test_fraction: as of `split_test`, of a folder without splits alone.
    """
    if not has_splits(root):
        return _survey_classes(root, test_fraction)
    if test_fraction is not None:
        expected = "none with an image folder that has splits"
        raise InputError(f"test_fraction is for data without a test split: {root}", expected, test_fraction)
    folders, strays, notes = split_folders(root), [], []  # type: dict[str, list[str]], list[str], list[str]
    for several in folders.values():
        if len(several) > 1:
            raise InputError(f"{root} has one split several times", "one folder a split", ", ".join(several))
    (train_folder,) = folders["train"]
    train = class_folders(root, train_folder, strays)
    if not train:
        given = first_few(strays) or "nothing in it"
        raise InputError(f"{root}: {train_folder}/ has no class folders", "a folder for each class", given)
    held_out: dict[str, str] = {split: folders[split][0] for split in ("test", "val") if split in folders}
    annotations = root / "val" / "val_annotations.txt"
    if annotations.is_file() and (root / "val" / "images").is_dir():
        held_out = {"val": "val"}  # the test images have no labels
        splits = [_annotated(root, annotations, strays)]
    else:
        splits = _held_out(root, held_out, train, strays, notes)
    if not splits:
        expected = f"{train_folder} and val or test, each with a folder for each class; or "
        expected += f"{root / train_folder} itself, of which a share is then the test split"
        raise InputError(f"{root} lacks a split", expected, f"{train_folder} alone")
    strays += _drop_empty(root, {train_folder: train} | dict(zip(held_out.values(), splits, strict=False)))
    classes = sorted(train)
    require_each(root, classes, [len(train[name]) for name in classes])
    if strangers := list(map(as_text, sorted(set().union(*splits) - set(train)))):
        given = f"{first_few(strangers)} not in {train_folder}"
        expected = f"the classes of {train_folder}"
        raise InputError(f"{root}: a test class has no training images", expected, given)
    if not any(splits[0].values()):
        expected = f"an image in the folder of a class, as in {train_folder}"
        (folder, *_) = held_out.values()
        raise InputError(f"{root}: the test split is empty", expected, f"none in {folder}")
    if len(splits) > 1 and any(splits[1].values()):
        notes.append(f"{held_out['val']}/ is the validation split, {held_out['test']}/ the test split")
    by_class = [[split.get(name, []) for name in classes] for split in (train, *splits[1:], splits[0])]
    empty: list[list[Picture]] = [[] for _ in classes]
    validation = by_class[1] if len(by_class) > 2 else empty
    return Listing(
        root, _readable(root, classes), by_class[0], validation, by_class[-1], sorted(strays), notes
    )


def _held_out(
    root: Path, folders: dict[str, str], train: dict[str, list[Picture]], strays: list[str], notes: list[str]
) -> list[dict[str, list[Picture]]]:
    """The test split, and where there is another the validation split; none without a folder of either.

    folders: of `test` and `val`, where they are; that of test images without labels is taken out.
    """
    beside: dict[str, list[str]] = {split: [] for split in folders}
    found = {split: class_folders(root, folder, beside[split]) for split, folder in folders.items()}
    if "test" in found and not any(found["test"].get(name) for name in train):
        given = f"{folders['test']}/ has no {'images of a class' if found['test'] else 'class folders'}"
        if "val" not in folders:
            expected = "a folder for each class, as in training, or val/"
            raise InputError(f"{root}: {given}", expected, first_few(list(found["test"])) or "none")
        notes.append(f"{given}: the test split is {folders['val']}/")
        for held in (found, folders, beside):
            del held["test"]
    strays += [path for paths in beside.values() for path in paths]
    return list(found.values())


def _drop_empty(root: Path, splits: dict[str, dict[str, list[Picture]]]) -> list[str]:
    """Takes out the folders of classes of which no split has an image; returns their paths.

    splits: folder -> class -> files.
    """
    dropped = []
    for name in sorted(set().union(*splits.values())):
        there = {folder: split[name] for folder, split in splits.items() if name in split}
        if any(is_lost(root / folder / name) or holds_image(root, files) for folder, files in there.items()):
            continue
        for folder in there:
            del splits[folder][name]
            dropped.append(f"{folder}/{name}")
    return dropped


def _survey_classes(root: Path, test_fraction: float | None) -> Listing:
    """The listing of root/<class>/*."""
    strays: list[str] = []
    found = class_folders(root, "", strays)
    strays = [path for path in strays if os.path.splitext(path)[1].lower() in images.endings()]
    strays += [name for name, files in found.items() if not holds_image(root, files)]
    classes = sorted(name for name in found if name not in strays)
    for name in classes:
        if deeper := [file.path for file in found[name] if file.path.count("/") > 1]:
            expected = "images in the folders of the classes themselves, or train/ and val/ or test/"
            raise InputError(f"{root} has no splits that are known", expected, as_text(deeper[0]))
    # What is no image is left out when it is decoded, and counts in no share.
    seen = [[file for file in found[name] if images.may_be_image(root / file.path)] for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in seen])
    _, chosen, note = split_test(root, labels, test_fraction)
    in_order = [file for files in seen for file in files]
    held_out = {in_order[index] for index in chosen}
    train = [[file for file in found[name] if file not in held_out] for name in classes]
    test = [[file for file in files if file in held_out] for files in seen]
    empty: list[list[Picture]] = [[] for _ in classes]
    return Listing(root, _readable(root, classes), train, empty, test, sorted(strays), [note])


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
        picture = look(root, f"val/images/{name}")
        found.setdefault(rest[0], []).extend([picture] if picture else [])
        strays += [] if picture else [f"val/images/{name}"]
    strays += [f"val/images/{name}" for name in visible(root, "val/images") if name not in seen]
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
        given = f"none in {first_few(empty)}"
        raise InputError(f"{root}: a class has no training image", "one in each folder of train", given)
