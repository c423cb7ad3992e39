"""Data sets by name: names -> uint8 arrays on the host.

A name is an entry of DATASETS, a path ending in .npz, or a TFDS image-classification set that has been
prepared on this machine. TFDS sets are read without TensorFlow, and their decoded arrays are cached.

Left out: downloading (the error names the command that prepares a set), normalisation (it belongs to the
compiled step: one byte a pixel travels), and shuffling (the order of an epoch is a function of its key).
Nothing read here is ever unpickled, and no file read here names code to run.
"""

import dataclasses
import difflib
import hashlib
import json
import logging
import os
import re
import shlex
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax.types import InputError

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

_CACHE_FORMAT = 1
_DIGITS_SEED = 0
_DIGITS_TEST = 500
_DECODE_BLOCK = 4096
_TFDS_NAME = re.compile(r"(?P<dataset>[a-zA-Z]\w*)(/(?P<config>\w[\w+\-.]*))?(:(?P<version>\d+\.\d+\.\d+))?")
_TFDS_FEATURES = "tensorflow_datasets.core.features."
_VERSION = re.compile(r"\d+\.\d+\.\d+")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split; the arrays are read-only.

    name: as it was asked for, so that the same name loads it again.
    train_images, test_images: u8[N,h,w,c], one h, w, c for both.
    train_labels, test_labels: i32[N], each in 0..K-1.
    num_classes: K >= 2.  class_names: K words.
    fingerprint: sha256 (hex) of the four arrays with their shapes, whatever their source.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str


def load(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Dataset:
    """The data set called `name`.

    data_dir: where TFDS sets lie; else TFDS_DATA_DIR, else TFDS's own default.
    cache_dir: where decoded arrays are kept; else KD_JAX_CACHE, else the user's cache folder. A folder that
        cannot be written is no error.
    Raises InputError for an unknown, unprepared, unreadable or unsuitable data set.
    """
    name = os.fspath(name)
    loader = DATASETS.get(name) or (_load_npz if name.endswith(".npz") else _load_tfds)
    try:
        return loader(name, data_dir, cache_dir)
    except OSError as error:
        wrong = f"data set {name!r} cannot be read"
        raise InputError(wrong, "files that this user may read", error) from error


def split_validation(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A stratified split of examples into training and validation, a function of its arguments alone.

    labels: integers [N].
    Each class gives round(fraction * count) examples to validation: at least one where it has two and
    fraction > 0, and never its last one.
    Returns (train_index, validation_index), i64, each sorted, together 0..N-1.
    Raises InputError for a fraction outside [0, 1) or labels of another form.
    """
    labels = np.asarray(labels)
    given = f"{labels.dtype} {list(labels.shape)}"
    _require(labels.ndim == 1 and labels.dtype.kind in "iu", "labels cannot be split", "integers [N]", given)
    _require(0 <= fraction < 1, "validation fraction out of range", "0 <= fraction < 1", fraction)
    _require(0 <= seed < 2**32, "validation seed out of range", "0 <= seed < 2**32", seed)
    classes, counts = np.unique(labels, return_counts=True)
    take = np.minimum(np.maximum(np.rint(fraction * counts), fraction > 0), counts - 1)
    chosen = _choose(labels, dict(zip(classes, take.astype(int), strict=True)), seed)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _choose(labels: np.ndarray, take: Mapping[int, int], seed: int) -> np.ndarray:
    """bool[N]: True for `take[k]` examples of each class k."""
    # RandomState's streams are frozen for good, the newer Generator's are not: a split, and with it the
    # fingerprint of `digits`, has to be the same under every numpy.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label, count in take.items():
        chosen[order[labels[order] == label][:count]] = True
    return chosen


def _load_digits(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8, their 17 grey levels spread over 0..255."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)
    labels = source.target
    quotas = np.bincount(labels) * (_DIGITS_TEST / len(labels))
    take = np.floor(quotas).astype(int)
    # Largest remainders, so that the classes' shares add up to the test set's size.
    take[np.argsort(take - quotas, kind="stable")[: _DIGITS_TEST - take.sum()]] += 1
    test = _choose(labels, dict(enumerate(take)), _DIGITS_SEED)
    return _assemble(name, (images[~test], labels[~test], images[test], labels[test]))


def _load_npz(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    """A file of the user's own: the four ARRAYS and, if it likes, class_names."""
    path = Path(name).expanduser()
    held = _read_npz(path, ARRAYS, ("class_names",))
    return _assemble(name, [held[key] for key in ARRAYS], held.get("class_names"))


def _load_tfds(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    """A prepared TFDS set: from the cache of decoded arrays, or decoded and put there."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(root).expanduser().absolute()
    folder = _prepared_folder(name, root)
    path = str(folder.resolve())
    stats = sorted((file.name, file.stat()) for file in folder.iterdir() if file.is_file())
    source = json.dumps(
        [_CACHE_FORMAT, path, [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]]
    )
    # Named by its place alone, so that a source prepared anew takes over the file of the old one.
    place = hashlib.sha256(path.encode()).hexdigest()[:16]
    cache = _cache_folder(cache_dir) / f"{'-'.join(folder.relative_to(root).parts)}-{place}.npz"
    dataset = _read_cache(cache, name, source)
    if dataset is None:
        dataset = _decode_tfds(name, root, folder)
        _write_cache(cache, dataset, source)
    return dataset


DATASETS: dict[str, Callable[[str, Any, Any], Dataset]] = {"digits": _load_digits}
"""name -> (name, data_dir, cache_dir) -> Dataset, for the sets that neither a path nor TFDS names."""


# --- checking -------------------------------------------------------------------------------------------


def _require(good: Any, wrong: str, expected: str, given: object) -> None:
    if not good:
        raise InputError(wrong, expected, given)


def _assemble(
    name: str, arrays: Sequence[np.ndarray], class_names: Any = None, num_classes: int | None = None
) -> Dataset:
    """A Dataset of the four ARRAYS as they were found, or InputError.

    num_classes: K where the source declares it; else the largest training label + 1, and then each class
        must have a training example.
    """
    train_images, train_labels = _check_split(f"{name}: train", *arrays[:2])
    test_images, test_labels = _check_split(f"{name}: test", *arrays[2:])
    shapes = f"{list(train_images.shape[1:])} and {list(test_images.shape[1:])}"
    alike = train_images.shape[1:] == test_images.shape[1:]
    _require(alike, f"{name}: training and test images differ in shape", "one shape [h,w,c]", shapes)
    if num_classes is None:
        num_classes = _count_classes(name, train_labels)
    _require(num_classes > 1, f"{name}: too few classes", "at least two", num_classes)
    for split, labels in (("train", train_labels), ("test", test_labels)):
        classes = f"classes 0..{num_classes - 1}"
        _require(labels.max() < num_classes, f"{name}: {split}_labels name no class", classes, labels.max())
    class_names = np.array(list(map(str, range(num_classes))) if class_names is None else class_names)
    given = f"{class_names.dtype} {list(class_names.shape)}"
    fitting = class_names.dtype.kind == "U" and class_names.shape == (num_classes,)
    _require(fitting, f"{name}: class_names do not fit the classes", f"{num_classes} strings", given)
    ready = (train_images, train_labels.astype(np.int32), test_images, test_labels.astype(np.int32))
    return _freeze(name, ready, tuple(class_names.tolist()))


def _check_split(what: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u8[N,h,w,c] and integers [N], none negative, from u8[N,h,w] or u8[N,h,w,c] and [N], or InputError."""
    pixels = "uint8 (x in [0, 1] becomes it by np.rint(255 * x).astype(np.uint8))"
    _require(images.dtype == np.uint8, f"{what}_images are of the wrong type", pixels, images.dtype)
    shape = list(images.shape)
    _require(images.ndim in (3, 4), f"{what}_images are of the wrong shape", "[N,h,w] or [N,h,w,c]", shape)
    _require(images.size, f"{what}_images are empty", "at least one example and one pixel", shape)
    _require(labels.dtype.kind in "iu", f"{what}_labels are of the wrong type", "integers", labels.dtype)
    fitting = labels.shape == images.shape[:1]
    _require(fitting, f"{what}_labels do not fit the images", f"[{shape[0]}]", list(labels.shape))
    _require(labels.min() >= 0, f"{what}_labels hold a negative class", "classes from 0", labels.min())
    return np.ascontiguousarray(images if images.ndim == 4 else images[..., None]), labels


def _count_classes(name: str, train_labels: np.ndarray) -> int:
    """K of labels that are to be exactly 0..K-1, or InputError."""
    present = np.unique(train_labels)
    # Compared with the labels present, so that a label of 2**62 allocates nothing.
    gaps = np.flatnonzero(present != np.arange(len(present)))
    expected = f"an example of each class 0..{present[-1]}"
    given = f"none of class {gaps[0]}" if len(gaps) else ""
    _require(not len(gaps), f"{name}: a class has no training example", expected, given)
    return len(present)


def _freeze(name: str, arrays: Sequence[np.ndarray], class_names: tuple[str, ...]) -> Dataset:
    """The Dataset of checked arrays (u8, i32, u8, i32): read-only, so that the fingerprint stays true."""
    for array in arrays:
        array.setflags(write=False)
    named = dict(zip(ARRAYS, arrays, strict=True))
    return Dataset(
        name, **named, num_classes=len(class_names), class_names=class_names, fingerprint=_fingerprint(arrays)
    )


def _fingerprint(arrays: Sequence[np.ndarray]) -> str:
    """sha256 (hex) over dtype, shape and bytes in C order of each array in turn."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.reshape(-1).data)
    return digest.hexdigest()


# --- files of arrays ------------------------------------------------------------------------------------


def _read_npz(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of `keys`, and those of `optional` that are there, nothing unpickled; or InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = ", ".join(key for key in keys if key not in members)
            _require(not missing, f"{path} lacks {missing}", ", ".join(keys), ", ".join(members) or "nothing")
            wanted = {key: members[key] for key in (*keys, *optional) if key in members}
            # zipfile never hands out more than the declared size, so this bounds what is unpacked.
            _require_memory(path, sum(info.file_size for info in wanted.values()))
            arrays = {}
            for key, info in wanted.items():
                with archive.open(info) as file:
                    arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
            return arrays
    except (InputError, OSError):
        raise
    except Exception as error:  # A malformed file may raise nearly anything.
        expected = "a file as np.savez writes it, of plain arrays (no pickled objects)"
        raise InputError(f"{path} cannot be read", expected, _one_line(error)) from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _require_memory(what: object, needed: int) -> None:
    """InputError unless `needed` bytes fit into memory."""
    free, gib = _available_memory(), 2**30
    expected = f"at most the {free / gib:.1f} GiB that are free"
    _require(needed <= free, f"{what} is too large for the memory", expected, f"{needed / gib:.1f} GiB")


def _available_memory() -> int:
    """Bytes that are free; where the system does not say, bytes that there are."""
    try:
        return 1024 * int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0])
    except (OSError, IndexError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# --- the cache of decoded arrays ------------------------------------------------------------------------


def _cache_folder(cache_dir: Any) -> Path:
    given = cache_dir or os.environ.get("KD_JAX_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kd_jax" / "data"


def _digest(dataset: Dataset, source: str) -> str:
    """sha256 (hex) of all that a cache file holds: the fingerprint stands for the arrays."""
    return hashlib.sha256(json.dumps([source, dataset.fingerprint, dataset.class_names]).encode()).hexdigest()


def _read_cache(path: Path, name: str, source: str) -> Dataset | None:
    """What `_write_cache` wrote for the same source, or None where there is no such thing, whole."""
    try:
        held = _read_npz(path, (*ARRAYS, "class_names", "source", "digest"))
        if str(held["source"]) != source:
            return None
        dataset = _freeze(name, [held[key] for key in ARRAYS], tuple(held["class_names"].tolist()))
        if _digest(dataset, source) == str(held["digest"]):
            return dataset
        damage: object = "the stored sha256 differs"
    except FileNotFoundError:
        return None
    except Exception as error:  # As with any file, a damaged one may raise nearly anything.
        damage = error
    _log.warning("the cached arrays of %s are damaged and are made anew (%s): %s", name, path, damage)
    return None


def _write_cache(path: Path, dataset: Dataset, source: str) -> None:
    """Writes a cache file whole or not at all; a folder that takes none is no error."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            held: dict[str, Any] = {key: getattr(dataset, key) for key in (*ARRAYS, "class_names")}
            np.savez(file, **held, source=np.array(source), digest=np.array(_digest(dataset, source)))
        os.replace(temporary, path)
    except OSError as error:
        _log.info("the decoded arrays of %s are not cached: %s", dataset.name, error)
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


# --- TFDS -----------------------------------------------------------------------------------------------


def _prepared_folder(name: str, root: Path) -> Path:
    """The folder of the highest prepared version, or of the version asked for; or InputError.

    Found without importing TFDS, so that a cached set loads at once and nothing can reach the network.
    """
    parts = _TFDS_NAME.fullmatch(name)
    if parts is None:
        raise _unknown(name, root)
    base = root / parts["dataset"] / (parts["config"] or "")
    versions = _versions(base)
    wanted = [folder for folder in versions if parts["version"] in (None, folder.name)]
    if wanted:
        return max(wanted, key=lambda folder: tuple(map(int, folder.name.split("."))))
    if parts["config"] is None and not versions:
        # To choose for the user would be to train on other data than TFDS means by the bare name.
        configs = ", ".join(f"{base.name}/{f.name}" for f in sorted(base.glob("*")) if _versions(f))
        _require(not configs, f"data set {name!r} comes in configurations", f"one of {configs}", repr(name))
    known = _tfds_names()
    if known and parts["dataset"] not in known and not base.is_dir():
        raise _unknown(name, root)
    there = "version " + ", ".join(sorted(f.name for f in versions)) if versions else "no finished version"
    expected = f"it put there by: {_prepare(name, root)}"
    raise InputError(f"data set {name!r} is not prepared in {root}", expected, f"{there} there")


def _versions(base: Path) -> list[Path]:
    """The version folders of a data set that TFDS has finished writing."""
    folders = [folder for folder in base.glob("*.*.*") if _VERSION.fullmatch(folder.name)]
    return [
        f for f in folders if all((f / file).is_file() for file in ("dataset_info.json", "features.json"))
    ]


def _prepare(name: str, root: Path) -> str:
    """The shell command that prepares a TFDS set."""
    prepare = "download_and_prepare(file_format='array_record')"
    code = f"import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir={str(root)!r}).{prepare}"
    quoted = shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
    return f"pip install 'kd_jax[prepare]' && python -c {quoted}"


def _tfds_names() -> list[str]:
    """The names that TFDS knows; none where it is not installed."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        return []
    # The community's sets would be listed from the network.
    return tfds.list_builders(with_community_datasets=False)


def _unknown(name: str, root: Path) -> InputError:
    """The error that names the nearest names there are."""
    prepared = [folder.name for folder in root.glob("*") if folder.is_dir()]
    known = sorted({*DATASETS, *_tfds_names(), *prepared})
    near = difflib.get_close_matches(name.lower(), known, n=3) or [*DATASETS]
    expected = f"{', '.join(DATASETS)}, a path ending in .npz, or a TFDS name (nearest: {', '.join(near)})"
    return InputError("unknown data set", expected, repr(name))


def _decode_tfds(name: str, root: Path, folder: Path) -> Dataset:
    """The decoded arrays of one version folder, or InputError."""
    try:
        import tensorflow_datasets as tfds

        _refuse_foreign_code(folder / "features.json")
        builder = tfds.builder_from_directory(os.fspath(folder))
        image_key, label_key = _feature_keys(name, builder.info, tfds.features)
        sources = [builder.as_data_source(split=split) for split in _splits(name, builder.info.splits)]
        arrays = [array for source in sources for array in _decode_split(name, source, image_key, label_key)]
        label = builder.info.features[label_key]
        return _assemble(name, arrays, label.names, label.num_classes)
    except InputError:
        raise
    except ImportError as error:
        expected = "pip install tensorflow-datasets array-record pillow"
        raise InputError(f"data set {name!r} cannot be read by what is installed", expected, error) from error
    except Exception as error:  # Neither TFDS nor its record reader says what it may raise.
        expected = f"a whole set prepared as array_record (remove that folder, then: {_prepare(name, root)})"
        raise InputError(f"{folder} cannot be read", expected, _one_line(error)) from error


def _refuse_foreign_code(path: Path) -> None:
    """InputError where a features.json names a class outside TFDS, whose module it would import and run."""

    def check(item: dict[str, Any]) -> None:
        for key in ("pythonClassName", "python_class_name", "type"):
            known = str(item.get(key, _TFDS_FEATURES)).startswith(_TFDS_FEATURES)
            _require(known, f"{path} names code to import", "features of TFDS itself", repr(item.get(key)))

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
    fitting = len(images) == len(labels) == 1 and features[images[0]].np_dtype == np.uint8
    wrong = f"data set {name!r} is no image classification"
    _require(fitting, wrong, "one uint8 Image and one ClassLabel", found)
    return images[0], labels[0]


def _splits(name: str, splits: Any) -> tuple[str, str]:
    """The names of the training and the test split, or InputError."""
    tests = [split for split in ("test", "validation") if split in splits]
    expected, found = "a split train, and test or validation", ", ".join(splits) or "none"
    _require("train" in splits and tests, f"data set {name!r} lacks a split", expected, found)
    return "train", tests[0]


def _decode_split(name: str, source: Any, image_key: str, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """u8[N,h,w,c] and i64[N] of a TFDS data source, in its own order; InputError where sizes differ."""
    num_examples = len(source)
    shape = source[0][image_key].shape
    _require_memory(name, num_examples * int(np.prod(shape)))
    images = np.empty((num_examples, *shape), np.uint8)
    labels = np.empty(num_examples, np.int64)
    for start in range(0, num_examples, _DECODE_BLOCK):
        # One call reads a block twice as fast as one by one; a whole split at once takes twice the memory.
        keys = list(range(start, min(start + _DECODE_BLOCK, num_examples)))
        for index, example in zip(keys, source.__getitems__(keys), strict=True):
            if example[image_key].shape != shape:
                sizes = f"{list(shape)} and {list(example[image_key].shape)}"
                raise InputError(f"data set {name!r} has images of several sizes", "one shape [h,w,c]", sizes)
            images[index], labels[index] = example[image_key], example[label_key]
    return images, labels
