"""Datasets by name: names -> uint8 arrays on the host.

A name is an entry of DATASETS, a path ending in .npz (npz.py), an image folder (image_folder.py), a folder or
a file of parquet (parquet.py), hf:owner/name (hub.py), or a TFDS image-classification set that has been
prepared on this machine (tfds.py). All but arrays are decoded once, then come from a cache (cache.py).

Left out: normalisation (it belongs to the compiled step: one byte a pixel travels) and shuffling (the order
of an epoch is a function of its key). Nothing read here is ever unpickled, and no file read here names code
to run.
"""

import contextlib
import difflib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_jax.data import cache, digits, hub, image_decoding, image_folder, npz, parquet, tfds
from kd_jax.data.arrays import Found, require
from kd_jax.data.dataset import Dataset as Dataset
from kd_jax.data.dataset import assemble, freeze
from kd_jax.data.splits import split_validation as split_validation
from kd_jax.errors import InputError, nearest_path

_log = logging.getLogger(__name__)


class Options(NamedTuple):
    """How images that lie in files are read, as of `load`; None and False: not given."""

    image_size: int | None = None
    skip_unreadable: bool = False
    test_fraction: float | None = None
    image_column: str | None = None
    label_column: str | None = None


def load(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    *,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    test_fraction: float | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    progress: image_decoding.Progress | None = None,
) -> Dataset:
    """The dataset called `name`.

    data_dir: where TFDS sets lie; else TFDS_DATA_DIR, else TFDS's own default.
    cache_dir: where decoded arrays are kept; else KD_JAX_CACHE, else the user's cache folder. A folder that
        cannot be written is no error.
    image_size, skip_unreadable: of image folders and parquet alone: h = w (None: the images' own), and
        whether images that cannot be read are left out (else they are an error).
    test_fraction: of image folders and parquet without a test split alone: the share of each class that is
        it; None: splits.TEST_FRACTION.
    image_column, label_column: of parquet alone; None: they are found.
    progress: called while images are decoded.
    What was left out, or taken in a way that the user may not expect, is logged as a warning.
    Raises InputError for an unknown, unprepared, unreadable or unsuitable dataset.
    """
    name = os.fspath(name)
    options = Options(image_size, skip_unreadable, test_fraction, image_column, label_column)
    try:
        dataset = _load(name, data_dir, cache_dir, options, progress)
    except OSError as error:
        wrong = f"dataset {name!r} cannot be read"
        expected = "a file that is there and that this user may read"
        given = " ".join(str(error).split())  # pyarrow's have several lines
        raise InputError(wrong, expected, f"{given}{nearest_path(name)}") from error
    for note in (*_namesakes(name, data_dir), *dataset.notes):
        _log.warning("%s: %s", name, note)
    return dataset


def kind(name: str, data_dir: str | os.PathLike | None = None) -> str:
    """What a name names: "own" (an entry of DATASETS), "npz", "parquet", "folder" (of images) or "tfds",
    which it is, too, where it names nothing."""
    if name in DATASETS:
        return "own"
    if name.lower().endswith(".npz"):
        return "npz"
    if name.startswith(hub.PREFIX) or name.lower().endswith(".parquet"):
        return "parquet"
    root = Path(os.path.expanduser(name))  # which, unlike Path's, never fails
    there = bool(name) and os.path.isdir(root)
    if there and parquet.find_files(root, deep=False):
        return "parquet"
    if image_folder.is_image_folder(name):
        return "folder"
    if there and parquet.find_files(root):
        return "parquet"
    # A folder of classes has no mark of its own: TFDS's names stay TFDS's.
    if there and image_folder.is_class_folder(name) and not tfds.is_name(name, tfds.root(data_dir)):
        return "folder"
    return "tfds"


def takes_image_size(name: str, data_dir: str | os.PathLike | None = None) -> bool:
    """Whether that dataset's images lie in files, of any size."""
    return kind(name, data_dir) in ("folder", "parquet")


def _namesakes(name: str, data_dir: Any) -> list[str]:
    """What else has the name of a dataset that has been loaded."""
    if not image_folder.is_image_folder(name):
        return []
    if name in DATASETS:
        return [f"taken is the set that comes with scikit-learn; the folder of that name is ./{name}"]
    with contextlib.suppress(InputError):  # a folder's name need not be one of TFDS
        if tfds.prepared_folder(name, tfds.root(data_dir)):
            return ["taken is the folder of images, not the prepared TFDS set of that name"]
    return []


_FOR = {
    "image_size": ("image folders and parquet", ("folder", "parquet")),
    "skip_unreadable": ("image folders and parquet", ("folder", "parquet")),
    "test_fraction": ("image folders and parquet", ("folder", "parquet")),
    "image_column": ("parquet", ("parquet",)),
    "label_column": ("parquet", ("parquet",)),
}
"""Option -> what it is for, in words and as of `kind`."""


def _load(name: str, data_dir: Any, cache_dir: Any, options: Options, progress: Any) -> Dataset:
    what = kind(name, data_dir)
    for option, given in options._asdict().items():
        words, kinds = _FOR[option]
        if given is not None and given is not False and what not in kinds:
            if what == "tfds" and (os.sep in name or os.path.isdir(name)):
                raise _unknown(name, Path())  # its path is wrong, not the option
            raise InputError(f"{option} is for {words}", f"none with dataset {name!r}", f"{option}={given}")
    size = options.image_size
    require(size is None or size > 0, "image_size out of range", "1 or more pixels", size)
    if what == "folder":
        return _load_folder(name, cache_dir, options, progress)
    if what == "parquet":
        return _load_parquet(name, cache_dir, options, progress)
    if what == "tfds":
        return _load_tfds(name, data_dir, cache_dir, progress)
    return DATASETS.get(name, _load_npz)(name, data_dir, cache_dir)


def split_training(dataset: Dataset, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """(indices of training examples, of validation examples), each i64, sorted, together 0..N-1: the
    validation split that comes with the dataset, else that of `split_validation`, whose errors it has."""
    if not dataset.num_validation:
        return split_validation(dataset.train_labels, fraction)
    index = np.arange(len(dataset.train_labels))
    return index[: -dataset.num_validation], index[-dataset.num_validation :]


def _load_digits(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    return assemble(name, Found(digits.read()))


def _load_npz(name: str, data_dir: Any, cache_dir: Any) -> Dataset:
    """A file of the user's own, in one of the layouts of npz.py."""
    return assemble(name, npz.read(name))


def _load_tfds(name: str, data_dir: Any, cache_dir: Any, progress: Any) -> Dataset:
    root = tfds.root(data_dir)
    folder = tfds.prepared_folder(name, root)
    if folder is None:
        raise _unknown(name, root)
    label = "-".join(folder.relative_to(root).parts)
    decode = lambda: tfds.decode(name, root, folder, progress)  # noqa: E731
    return _cached(name, label, folder, cache.files_state(folder), cache_dir, False, decode)


def _load_folder(name: str, cache_dir: Any, options: Options, progress: Any) -> Dataset:
    root = Path(os.path.expanduser(name))
    listing = image_folder.survey(root, options.test_fraction)
    size, may_skip = options.image_size, options.skip_unreadable
    decode = lambda: image_decoding.decode(listing, size, may_skip, progress)  # noqa: E731
    return _cached(name, _label(root, size), root, [listing[1:], size], cache_dir, may_skip, decode)


def _load_parquet(name: str, cache_dir: Any, options: Options, progress: Any) -> Dataset:
    local = Path(os.path.expanduser(name))
    root = hub.download(name) if name.startswith(hub.PREFIX) else local
    files = parquet.find_files(root)
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    size, may_skip, fraction = options.image_size, options.skip_unreadable, options.test_fraction
    columns = options.image_column, options.label_column
    state = [stats, options._replace(skip_unreadable=False)]

    def decode() -> Found:
        return parquet.decode(name, root, files, columns, size, may_skip, fraction, progress)

    return _cached(name, _label(root, size), root, state, cache_dir, may_skip, decode)


def _label(root: Path, size: int | None) -> str:
    """A cache file for each size, so that two sizes in turn are decoded once each."""
    return f"{root.resolve().name[:40]}-{size or 'own'}"


def _cached(
    name: str, label: str, root: Path, state: Any, cache_dir: Any, may_skip: bool, decode: Callable[[], Found]
) -> Dataset:
    """The dataset that was decoded before from the same state of `root`, else what `decode` makes of it.

    label, state: as of `cache.place`.  may_skip: whether images may be left out.
    """
    path, source = cache.place(label, root, state, cache_dir)
    held = cache.read(path, source)
    if held is not None and (may_skip or held.num_skipped == 0):
        return freeze(name, held)
    dataset = assemble(name, decode())
    cache.write(path, source, dataset)
    return dataset


def _unknown(name: str, root: Path) -> InputError:
    """The error that names the nearest names there are."""
    paths = "an .npz or a .parquet, a folder of train/ and val/ or test/, of classes or of parquet files"
    if os.sep in name or os.path.isdir(name):
        folder = os.path.expanduser(name)
        there = os.path.isdir(folder)
        given = f"a folder without them{_inner(folder)}" if there else f"no such folder{nearest_path(name)}"
        given = f"a file, {os.path.basename(name)}" if os.path.isfile(folder) else given
        return InputError(f"dataset {name!r} cannot be read", paths, given)
    prepared = [folder.name for folder in root.glob("*") if folder.is_dir()]
    own = [path for path in os.listdir() if kind(path) not in ("own", "tfds")]
    known = sorted({*DATASETS, *tfds.known_names(), *prepared, *own})
    near = difflib.get_close_matches(name.lower(), known, n=3) or [*DATASETS]
    expected = f"{', '.join(DATASETS)}, {paths}, hf:owner/name, or a TFDS name (nearest: {', '.join(near)})"
    return InputError("unknown dataset", expected, repr(name))


def _inner(folder: str) -> str:
    """The only dataset that lies in a folder, as archives have it."""
    with contextlib.suppress(OSError):
        paths = [os.path.join(folder, one) for one in sorted(os.listdir(folder)) if not one.startswith(".")]
        found = [path for path in paths if kind(path) in ("npz", "folder", "parquet")]
        return f" (did you mean {found[0]}?)" if len(found) == 1 else ""
    return ""


DATASETS: dict[str, Callable[[str, Any, Any], Dataset]] = {"digits": _load_digits}
"""name -> (name, data_dir, cache_dir) -> Dataset, for the sets that neither a path nor TFDS names."""
