"""An .npz of images that were made from a teacher: the arrays of any dataset, who made each image, and how.

Beside the layout of npz.py it has `made_by`, i32[N], for each training image the number of its teacher, and
`provenance`, text: a JSON object that names the teacher's sha256, the method and its settings. As classes may
have no image, class_names say how many there are.
"""

import io
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_jax.data.cache import ARRAYS, read_npz
from kd_jax.errors import InputError


class Origin(NamedTuple):
    """made_by: i32[N], for each training image the number of its teacher. provenance: teacher, method,
    settings. num_teachers: how many made them."""

    made_by: np.ndarray
    provenance: dict[str, Any]
    num_teachers: int


def to_bytes(
    arrays: tuple[np.ndarray, ...], class_names: list[str], made_by: np.ndarray, provenance: dict[str, Any]
) -> bytes:
    """The content of the file.  arrays: as `arrays.check` takes them; made_by, provenance: as of `Origin`,
    the latter with "teacher": {"sha256", "num_teachers", ...} and "method"."""
    members: dict[str, Any] = dict(zip(ARRAYS, arrays, strict=True))
    members["class_names"] = np.array(class_names, str)
    members["made_by"], members["provenance"] = made_by.astype(np.int32), np.array(json.dumps(provenance))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def read_origin(name: str) -> Origin | None:
    """Who made the images of the file `name`, and how; None of a file that says nothing of it.

    Errors: InputError where what it says is damaged; OSError where no file is.
    """
    path = Path(os.path.expanduser(name))
    held = read_npz(path, ("train_labels",), ("made_by", "provenance"))
    if "provenance" not in held:
        return None
    try:
        provenance = json.loads(str(held["provenance"]))
        method, teacher, made_by = provenance["method"], provenance["teacher"], held["made_by"]
        number = teacher["num_teachers"]
        fits = isinstance(method, str) and isinstance(teacher["sha256"], str) and isinstance(number, int)
        fits &= made_by.dtype.kind == "i" and made_by.shape == held["train_labels"].shape
        fits = fits and made_by.size > 0 and made_by.min() >= 0 and made_by.max() < number
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fits = False
    if not fits:
        expected = "made_by and provenance as they were written"
        raise InputError(f"{path}: where its images come from is damaged", expected, "others")
    return Origin(made_by.astype(np.int32), provenance, number)
