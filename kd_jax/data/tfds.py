"""TFDS image-classification sets that lie prepared on this machine, read without TensorFlow.

Left out: downloading (the error names the command that prepares a set). TFDS is imported only to decode and
to list the names it knows, so that a cached set loads at once and nothing can reach the network.
"""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax.data.arrays import Found
from kd_jax.data.cache import one_line, require_memory
from kd_jax.errors import InputError

_DECODE_BLOCK = 4096
_NAME = re.compile(r"(?P<dataset>[a-zA-Z]\w*)(/(?P<config>\w[\w+\-.]*))?(:(?P<version>\d+\.\d+\.\d+))?")
_FEATURES = "tensorflow_datasets.core.features."
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def root(data_dir: str | os.PathLike | None) -> Path:
    """The folder that prepared sets lie in: `data_dir`, else TFDS_DATA_DIR, else TFDS's own default."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(os.path.expanduser(chosen)).absolute()


def prepared(root: Path) -> Iterator[tuple[str, Path]]:
    """(name, folder) of each finished version in `root`, as in ("mnist:3.0.1", root/mnist/3.0.1)."""
    for base in sorted([*root.glob("*"), *root.glob("*/*")]):
        for folder in sorted(_versions(base)):
            yield f"{base.relative_to(root)}:{folder.name}", folder


def counts(folder: Path) -> dict[str, int]:
    """Split -> its number of examples, as TFDS wrote down when it prepared the version folder. Nothing where
    that cannot be read."""
    try:
        splits = json.loads((folder / "dataset_info.json").read_text())["splits"]
        return {split["name"]: sum(map(int, split["shardLengths"])) for split in splits}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def prepared_folder(name: str, root: Path) -> Path | None:
    """The folder of the highest prepared version, or of the version asked for.

    None where `name` names nothing; InputError where it does, but not one version that is prepared.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    base = root / parts["dataset"] / (parts["config"] or "")
    versions = _versions(base)
    wanted = [folder for folder in versions if parts["version"] in (None, folder.name)]
    if wanted:
        return max(wanted, key=lambda folder: tuple(map(int, folder.name.split("."))))
    if parts["config"] is None and not versions:
        # To choose for the user would be to train on other data than TFDS means by the bare name.
        configs = ", ".join(f"{base.name}/{f.name}" for f in sorted(base.glob("*")) if _versions(f))
        if configs:
            raise InputError(f"dataset {name!r} comes in configurations", f"one of {configs}", repr(name))
    known = known_names()
    if known and parts["dataset"] not in known and not base.is_dir():
        return None
    there = "version " + ", ".join(sorted(f.name for f in versions)) if versions else "no finished version"
    expected = f"it put there by: {_prepare(name, root)}"
    raise InputError(f"dataset {name!r} is not prepared in {root}", expected, f"{there} there")


def is_name(name: str, root: Path) -> bool:
    """Whether a name is one of TFDS's, or of a set that lies in `root`."""
    try:
        return prepared_folder(name, root) is not None
    except InputError:
        return True


def _versions(base: Path) -> list[Path]:
    """The version folders of a dataset that TFDS has finished writing."""
    needed = ("dataset_info.json", "features.json")
    folders = [folder for folder in base.glob("*.*.*") if _VERSION.fullmatch(folder.name)]
    return [folder for folder in folders if all((folder / file).is_file() for file in needed)]


def _prepare(name: str, root: Path) -> str:
    """The shell command that prepares a TFDS set; it needs TensorFlow, which the extra `prepare` installs."""
    prepare = "download_and_prepare(file_format='array_record')"
    code = f"import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir={str(root)!r}).{prepare}"
    quoted = shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
    return f"python -c {quoted} (with TensorFlow: the extra prepare)"


def known_names() -> list[str]:
    """The names that TFDS knows; none where it is not installed."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        return []
    # The community's sets would be listed from the network.
    return tfds.list_builders(with_community_datasets=False)


def decode(name: str, root: Path, folder: Path, progress: Callable[[int, int], None] | None = None) -> Found:
    """What a version folder holds, or InputError.

    progress: called with (images decoded, images in all).
    """
    try:
        import tensorflow_datasets as tfds

        _refuse_foreign_code(folder / "features.json")
        builder = tfds.builder_from_directory(os.fspath(folder))
        image_key, label_key = _feature_keys(name, builder.info, tfds.features)
        sources = [builder.as_data_source(split=split) for split in _splits(name, builder.info.splits)]
        total = sum(map(len, sources))
        arrays: list[np.ndarray] = []
        for source in sources:
            before = sum(map(len, arrays[::2]))
            report = lambda done, before=before: progress and progress(before + done, total)  # noqa: E731
            arrays += _decode_split(name, source, image_key, label_key, report)
        label = builder.info.features[label_key]
        return Found(arrays, label.names, label.num_classes)
    except InputError:
        raise
    except ImportError as error:
        expected = "pip install tensorflow-datasets array-record pillow"
        raise InputError(f"dataset {name!r} cannot be read by what is installed", expected, error) from error
    except Exception as error:  # Neither TFDS nor its record reader says what it may raise.
        expected = f"a whole set prepared as array_record (remove that folder, then: {_prepare(name, root)})"
        raise InputError(f"{folder} cannot be read", expected, one_line(error)) from error


def _refuse_foreign_code(path: Path) -> None:
    """InputError where a features.json names a class outside TFDS, whose module it would import and run."""

    def check(item: dict[str, Any]) -> None:
        for key in ("pythonClassName", "python_class_name", "type"):
            if not str(item.get(key, _FEATURES)).startswith(_FEATURES):
                raise InputError(f"{path} names code to import", "features of TFDS itself", repr(item[key]))

    json.loads(path.read_text(), object_hook=check)


def _feature_keys(name: str, info: Any, types: Any) -> tuple[str, str]:
    """The names of the uint8 image and of the class label, or InputError."""
    features = dict(info.features) if isinstance(info.features, types.FeaturesDict) else {}
    # Exact for the image: its subclass LabeledImage holds a segmentation.
    images = [key for key, feature in features.items() if type(feature) is types.Image]
    labels = [key for key, feature in features.items() if isinstance(feature, types.ClassLabel)]
    supervised = info.supervised_keys or ()
    images, labels = ([key for key in keys if key in supervised] or keys for keys in (images, labels))
    found = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in features.items())
    if not (len(images) == len(labels) == 1 and features[images[0]].np_dtype == np.uint8):
        wrong = f"dataset {name!r} is no image classification"
        raise InputError(wrong, "one uint8 Image and one ClassLabel", found)
    return images[0], labels[0]


def _splits(name: str, splits: Any) -> tuple[str, str]:
    """The names of the training and the test split, or InputError."""
    tests = [split for split in ("test", "validation") if split in splits]
    if "train" not in splits or not tests:
        expected, found = "a split train, and test or validation", ", ".join(splits) or "none"
        raise InputError(f"dataset {name!r} lacks a split", expected, found)
    return "train", tests[0]


def _decode_split(
    name: str, source: Any, image_key: str, label_key: str, report: Callable[[int], object]
) -> tuple[np.ndarray, np.ndarray]:
    """u8[N,h,w,c] and i64[N] of a TFDS data source, in its own order; InputError where sizes differ.

    report: called with the number that are done.
    """
    num_examples = len(source)
    shape = source[0][image_key].shape
    require_memory(name, num_examples * int(np.prod(shape)))
    images = np.empty((num_examples, *shape), np.uint8)
    labels = np.empty(num_examples, np.int64)
    for start in range(0, num_examples, _DECODE_BLOCK):
        # One call reads a block twice as fast as one by one; a whole split at once takes twice the memory.
        keys = list(range(start, min(start + _DECODE_BLOCK, num_examples)))
        for index, example in zip(keys, source.__getitems__(keys), strict=True):
            if example[image_key].shape != shape:
                sizes = f"{list(shape)} and {list(example[image_key].shape)}"
                raise InputError(f"dataset {name!r} has images of several sizes", "one shape [h,w,c]", sizes)
            images[index], labels[index] = example[image_key], example[label_key]
        report(min(start + _DECODE_BLOCK, num_examples))
    return images, labels
