"""Parquet files as the Hugging Face hub and `datasets` have them -> uint8 arrays.

A file belongs to the split that its name or its folder names, with one of the words of SPLITS: data/
train-00000-of-00002.parquet, test.parquet, validation/0000.parquet. `validation` beside `test` is the
validation split; without a test split, or where its labels are unknown (-1), validation is the test split;
without both a share of each class is (splits.py).

Images are encoded files: {"bytes", "path"}, as the feature Image has them, or bytes alone. Labels are
integers from 0, with names where the feature ClassLabel declares some, or words, whose sorted order numbers
the classes. pyarrow reads the files, and nothing in them is executed.

Left out: images as lists of numbers, images by their path alone, splits by other names.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_jax.data.arrays import Found
from kd_jax.data.cache import one_line, require_memory
from kd_jax.data.folder_files import first_few
from kd_jax.data.image_decoding import Progress, read_all, remarked
from kd_jax.data.splits import split_test
from kd_jax.errors import InputError, import_extra, nearest_name

SPLITS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""split -> the words of which a file's or its folder's name has one, in any case."""

_IMAGES, _LABELS = ("image", "img"), ("label", "labels")  # preferred where a file has several columns


class Columns(NamedTuple):
    """image, label: names of columns. class_names: as declared, or None."""

    image: str
    label: str
    class_names: list[str] | None


def find_files(root: Path, deep: bool = True) -> list[Path]:
    """The parquet files of a folder, or the one of that name: those in it, and below it, down to three
    levels, those of data/ and those of a split. Without `deep`, down to two levels."""
    if root.suffix.lower() == ".parquet" and not root.is_dir():
        return [root]
    levels = ("*", "*/*", "*/*/*")[: 3 if deep else 2]
    found = [path for level in levels for path in root.glob(f"{level}.parquet") if path.is_file()]
    return sorted(path for path in found if _is_meant(path.relative_to(root).parts))


def _is_meant(parts: Sequence[str]) -> bool:
    """Whether a file of that path below a folder is a part of the dataset of the folder."""
    named = len(parts) == 1 or parts[0] == "data" or any(map(_split_word, parts))
    return named and not any(part.startswith(".") for part in parts)


def split_files(root: Path, files: Sequence[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """(split -> its files, those of no known split); files without any split are all of training.

    Errors: InputError for files of several configurations.
    """
    found: dict[str, list[Path]] = {}
    configurations, others = set(), []
    for path in files:
        *folders, name = path.relative_to(root).parts if path != root else (path.name,)
        words = [_split_word(part) for part in (*folders, name.removesuffix(path.suffix))]
        known = [word for word in words if word]
        if known:
            found.setdefault(known[-1], []).append(path)
            apart = [folder for folder, word in zip(folders, words, strict=False) if not word]
            configurations.add("/".join(apart))
        else:
            others.append(path)
    if len(configurations) > 1:
        expected = f"one of {', '.join(os.path.join(root, one) for one in sorted(configurations))}"
        raise InputError(f"{root} holds several configurations", expected, root)
    if not found:
        return {"train": others}, []
    return found, [str(path.relative_to(root)) for path in others]


def _split_word(text: str) -> str | None:
    """The split that a name has a word of."""
    words = re.split(r"[-_. ]", text.lower())
    return next((split for split, names in SPLITS.items() if set(words) & set(names)), None)


def decode(
    name: str,
    root: Path,
    files: Sequence[Path],
    columns: tuple[str | None, str | None],
    image_size: int | None,
    skip_unreadable: bool,
    test_fraction: float | None,
    progress: Progress | None = None,
) -> Found:
    """What the files hold.

    columns: of images and of labels, None where they are to be found.  image_size, skip_unreadable: as of
    `read_all`.  test_fraction: as of `split_test`, of files without a test split alone.
    Raises InputError for what is missing, damaged or of another kind.
    """
    parquet = import_extra("pyarrow.parquet", "parquet files need", "the extra hub (pyarrow)", name)
    splits, others = split_files(root, files)
    left_out = f"left out: {len(others)} files of no known split ({first_few(others)})"
    notes = [left_out] if others else []
    if "train" not in splits:
        raise InputError(f"{name} lacks a training split", "train, of which files bear the word", "none")
    held: dict[str, tuple[list[bytes | None], list[Any]]] = {}
    try:
        chosen = _columns(name, parquet.read_schema(splits["train"][0]), *columns)
        require_memory(root, sum(path.stat().st_size for paths in splits.values() for path in paths))
        for split, paths in splits.items():
            held[split] = _rows(parquet, paths, chosen)
    except (InputError, OSError):
        raise
    except Exception as error:  # pyarrow's, of many kinds
        raise InputError(f"{name} cannot be read", "whole parquet files", one_line(error)) from None
    notes += _choose_test(name, held)
    order = [split for split in ("train", "val", "test") if split in held]
    labels, names = _numbers(name, [held[split][1] for split in order], chosen)
    sizes = [len(held[split][0]) for split in order]
    sources = [content or b"" for split in order for content in held[split][0]]
    titles = [f"{split} row {row}" for split, size in zip(order, sizes, strict=True) for row in range(size)]
    read = read_all(name, titles, sources, image_size, skip_unreadable, progress)
    every = np.concatenate(labels)[read.seen]
    part = np.repeat(np.arange(len(order)), sizes)[read.seen]
    notes += remarked(read.remarks, len(titles))
    if len(order) > 1:
        if test_fraction is not None:
            expected = "none with files of a test or a validation split"
            raise InputError("test_fraction is for data without a test split", expected, test_fraction)
        test = int(np.searchsorted(part, len(order) - 1))  # the first row of the last split
        arrays = [read.pixels[:test], every[:test], read.pixels[test:], every[test:]]
        num_validation = int(np.count_nonzero(part[:test] == 1))
    else:
        train_index, test_index, note = split_test(name, every, test_fraction)
        arrays = [x[index] for index in (train_index, test_index) for x in (read.pixels, every)]
        num_validation = 0
        notes.append(note)
    declared = chosen.class_names and len(chosen.class_names)
    return Found(arrays, names, declared or None, notes, num_validation, read.num_skipped)


def _choose_test(name: str, held: dict[str, tuple[list[bytes | None], list[Any]]]) -> list[str]:
    """Notes on which split is the test split. One without labels is taken out where there is a validation
    split; refused elsewhere.  held: split -> (images, labels)."""
    labels = held["test"][1] if "test" in held else []
    if "test" in held and all(label in (None, -1) for label in labels):
        if "val" in held:
            del held["test"]
            return ["the test split has no labels: the validation split is the test split"]
        if labels:
            expected = "labels, or a validation split"
            raise InputError(f"{name}: the test split has no labels", expected, "neither")
    if "val" in held and "test" in held:
        return ["validation is the validation split, test the test split"]
    return []


def _columns(name: str, schema: Any, image: str | None, label: str | None) -> Columns:
    """The columns of images and of labels: those that are named, declared, or alone of their type."""
    features = _features(schema)
    kinds = {field.name: _kind(field.type, features.get(field.name, {})) for field in schema}
    image = _choose(name, "image", image, [k for k, kind in kinds.items() if kind == "image"], kinds, _IMAGES)
    declared = [key for key, kind in kinds.items() if kind == "declared"]
    others = [key for key, kind in kinds.items() if kind == "label"]
    label = _choose(name, "label", label, declared or others, kinds, _LABELS)
    class_names = features.get(label, {}).get("names")
    good = isinstance(class_names, list) and all(isinstance(word, str) for word in class_names)
    return Columns(image, label, class_names if good else None)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` declares of the columns; nothing where it declares nothing that can be read."""
    try:
        declared = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {key: feature for key, feature in declared.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _kind(arrow: Any, feature: dict[str, Any]) -> str:
    """ "image", "declared" (a ClassLabel), "label" (integers or words), "number" or ""."""
    from pyarrow import types

    if types.is_struct(arrow) and any(arrow.field(i).name == "bytes" for i in range(arrow.num_fields)):
        return "image"
    if types.is_binary(arrow) or types.is_large_binary(arrow):
        return "image"
    if feature.get("_type") == "ClassLabel" and types.is_integer(arrow):
        return "declared"
    if types.is_floating(arrow):
        return "number"
    words = types.is_string(arrow) or types.is_large_string(arrow) or types.is_dictionary(arrow)
    return "label" if types.is_integer(arrow) or types.is_boolean(arrow) or words else ""


def _choose(
    name: str, what: str, asked: str | None, found: list[str], kinds: dict[str, str], preferred: Sequence[str]
) -> str:
    """The column of images or of labels.  asked: as it was named; found: those that it may be."""
    if asked is not None:
        if asked not in kinds:
            there = f"{asked!r}{nearest_name(asked, kinds)}"
            raise InputError(f"{name} has no such {what}_column", f"one of {', '.join(kinds)}", there)
        if kinds[asked] == "" or (kinds[asked] == "image") != (what == "image"):
            expected = "encoded images (bytes)" if what == "image" else "integers, whole numbers or words"
            raise InputError(f"{name}: the {what}_column cannot be this", expected, asked)
        return asked
    best = [key for key in preferred if key in found]
    if len(found) != 1 and not best:
        expected = f"one column of {what}s, or {what}_column, one of {', '.join(found or kinds)}"
        raise InputError(f"{name}: which column has the {what}s", expected, f"{len(found)} that may")
    return (best or found)[0]


def _rows(parquet: Any, paths: Sequence[Path], columns: Columns) -> tuple[list[bytes | None], list[Any]]:
    """(encoded images, labels) of a split."""
    contents: list[bytes | None] = []
    labels: list[Any] = []
    for path in paths:
        schema = parquet.read_schema(path)
        if lacking := [key for key in columns[:2] if key not in schema.names]:
            raise InputError(f"{path} lacks a column", ", ".join(lacking), ", ".join(schema.names) or "none")
        declared = _features(schema).get(columns.label, {}).get("names")
        if declared != columns.class_names and columns.class_names and declared:
            expected = f"as in the first file, {', '.join(columns.class_names[:3])}, ..."
            raise InputError(f"{path} names its classes otherwise", expected, f"{declared!s:.80}")
        table = parquet.ParquetFile(path).read(columns=[columns.image, columns.label])
        for one in table.column(columns.image).to_pylist():
            contents.append(one.get("bytes") if isinstance(one, dict) else one)
        labels += table.column(columns.label).to_pylist()
    return contents, labels


def _numbers(
    name: str, labels: Sequence[list[Any]], columns: Columns
) -> tuple[list[np.ndarray], list[str] | None]:
    """(classes i64[n] of each split, names of the classes)."""
    unknown = sum(label is None for split in labels for label in split)
    if unknown:
        raise InputError(
            f"{name}: examples without a label", f"{columns.label} of each", f"{unknown} without"
        )
    if not any(isinstance(label, str) for split in labels for label in split):
        broken = [
            label
            for split in labels
            for label in split
            if not float(label).is_integer() or abs(label) >= 2**31
        ]
        if broken:
            raise InputError(f"{name}: labels are no classes", "integers, or whole numbers", broken[0])
        return [np.array(split, np.int64) for split in labels], columns.class_names
    words = sorted({str(label) for label in labels[0]})
    number = {word: index for index, word in enumerate(words)}
    strangers = sorted({str(label) for split in labels for label in split} - set(words))
    if strangers:
        expected = "the classes of the training split"
        raise InputError(f"{name}: a class has no training image", expected, first_few(strangers))
    return [np.array([number[str(label)] for label in split], np.int64) for split in labels], words
