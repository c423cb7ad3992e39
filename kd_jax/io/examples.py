"""Test images of omitted classes that a student gets wrong as trained, written and read (host side).

The file, examples.npz, is documented in run_folder.py; it is read without executing anything.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_jax.data import cache
from kd_jax.errors import InputError
from kd_jax.io import run_files

NAME = "examples.npz"


class Examples(NamedTuple):
    """n images that one student gets wrong as trained. images: u8[n,h,w,c]; labels, before, after, number:
    i32[n], true classes, classes called as trained and under the correction, places in the test split."""

    images: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
    number: np.ndarray
    setting: str
    seed: int
    correction: str


def write(folder: Path, examples: Examples) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **examples._asdict())
    run_files.write(Path(folder) / NAME, buffer.getvalue())


def read(folder: Path, num_classes: int) -> Examples | None:
    """None where the run has no such file. Errors: InputError that names the file when it is damaged."""
    path = Path(folder) / NAME
    if run_files.read(path) is None and not path.exists():
        return None
    try:
        arrays: dict[str, Any] = cache.read_npz(path, Examples._fields)
    except (InputError, OSError) as error:
        raise InputError(f"{path} is damaged", "the file as the experiment wrote it", error) from None
    words = {name: arrays[name] for name in ("setting", "correction")}
    numbers = {name: arrays[name] for name in ("labels", "before", "after")}
    whole = {**numbers, **{name: arrays[name] for name in ("number", "seed")}}
    count, images = arrays["labels"].size, arrays["images"]
    fits = (
        images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[0] == count
        and min(images.shape[1:]) > 0
        and all(array.dtype.kind == "U" and array.ndim == 0 for array in words.values())
        and all(array.dtype.kind == "i" for array in whole.values())
        and all(array.shape == (count,) for name, array in whole.items() if name != "seed")
        and arrays["seed"].ndim == 0
        and all(np.all((array >= 0) & (array < num_classes)) for array in numbers.values())
    )
    if not fits:
        given = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
        raise InputError(f"{path} is damaged", f"arrays of images, and classes below {num_classes}", given)
    return Examples(**arrays)._replace(**{name: arrays[name].item() for name in (*words, "seed")})
