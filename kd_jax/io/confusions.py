"""Confusion matrices of a run, written and read (host side).

The file, confusions.npz, is documented in run_folder.py. As rows of a csv they would grow with the square of
the number of classes.
"""

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kd_jax.data import cache
from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import TEACHER, Confusion

NAME = "confusions.npz"
KINDS = {"setting": np.str_, "seed": np.int64, "correction": np.str_}  # of the arrays that name the rows


def write(folder: Path, rows: Sequence[Confusion], num_classes: int) -> None:
    """Matrix by matrix: a copy of all of them at once could be larger than all else of a report."""
    largest = max((int(row.counts.max()) for row in rows), default=0)
    dtype = np.dtype(np.int16 if largest < 2**15 else np.int32 if largest < 2**31 else np.int64)
    keys: dict[str, np.ndarray] = {
        key: np.array([getattr(row, key) for row in rows], kind) for key, kind in KINDS.items()
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, array in keys.items():
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        with archive.open("counts.npy", "w", force_zip64=True) as file:
            shape = (len(rows), num_classes, num_classes)
            about = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, about)
            for row in rows:
                beyond = num_classes - len(row.counts)
                file.write(np.pad(row.counts.astype(dtype), (0, beyond)).tobytes())
    run_files.write(Path(folder) / NAME, buffer.getvalue())


def read(folder: Path, description: RunDescription, corrections: Iterable[str]) -> list[Confusion]:
    """The rows in the order in which they were written; their counts are views of one array.

    Errors: InputError that names the file when it is not there, damaged, or of another run than config.json.
    """
    path = Path(folder) / NAME
    if run_files.read(path) is None:
        raise InputError(f"{folder} is not a whole run folder", f"a file {NAME} in it", "no such file")
    try:
        arrays = cache.read_npz(path, (*KINDS, "counts"))
    except (InputError, OSError) as error:
        raise InputError(f"{path} is damaged", "the file as the experiment wrote it", error) from None
    counts, classes = arrays["counts"], description.data.num_classes
    words = {key: arrays[key] for key in ("setting", "correction")}
    fits = (
        counts.dtype.kind == "i"
        and counts.shape[1:] == (classes, classes)
        and counts.ndim == 3
        and arrays["seed"].dtype.kind == "i"
        and all(array.dtype.kind == "U" for array in words.values())
        and all(arrays[key].shape == counts.shape[:1] for key in KINDS)
        and int(counts.min(initial=0)) >= 0
        and int(arrays["seed"].min(initial=0)) >= 0
    )
    if not fits:
        given = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
        expected = f"setting, seed and correction of each row, and its counts [{classes},{classes}]"
        raise InputError(f"{path} is damaged", expected, given)
    settings = {*description.setting_names(), TEACHER}
    for key, known in (("setting", settings), ("correction", set(corrections))):
        if strange := set(arrays[key].tolist()) - known:
            raise InputError(f"{path}: {key}", " | ".join(sorted(known)), repr(min(strange)))
    rows = list(map(Confusion, *(arrays[key].tolist() for key in KINDS), counts))
    if len({row[:3] for row in rows}) < len(rows):
        raise InputError(f"{path}", f"each {', '.join(KINDS)} once", "one of them again")
    return rows
