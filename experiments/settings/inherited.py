"""What a distillation takes from its teacher's run where the command line does not say it: the dataset, how
its images are read, and the normalisation."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.settings.teachers import split_paths
from kd_jax import data
from kd_jax.errors import InputError
from kd_jax.io import checkpoint


def from_teacher(words: str | None, given: Callable[[str], str | None]) -> dict[str, Any]:
    """Flag -> value, of flags that are not given, as the first of the teachers was trained; nothing where no
    teacher can be read, which is refused elsewhere.

    words: the value of --teacher.  given: the text of a flag on the command line, None where it is not there.
    Errors: InputError for a dataset of the teacher's that lay in a file that is not there.
    """
    metadata: dict[str, Any] = {}
    with contextlib.suppress(InputError):
        parent = Path(os.path.expanduser(split_paths(words)[0])) if words else Path()
        folder = next((parent / name for name in ("teachers", "students") if (parent / name).is_dir()), None)
        metadata = checkpoint.read_manifest(folder)[0] if words and folder else {}
    flags, about = metadata.get("flags"), metadata.get("data")
    if not isinstance(flags, dict) or not isinstance(about, dict) or not isinstance(about.get("name"), str):
        return {}
    asked = given("dataset")
    values = {"dataset": about["name"]} if asked is None else {}
    if asked is None and _is_lost(about["name"]):
        raise InputError("the teacher's dataset is not there", "--dataset=, where it lies now", about["name"])
    if asked is None or _same(asked, about["name"]):
        values |= {name: flags[name] for name in data.Options._fields if name in flags}
    values |= {name: flags[name] for name in ("normalize",) if name in flags}
    return {name: value for name, value in values.items() if given(name) is None}


def _is_lost(name: str) -> bool:
    """Whether it is the path of a file or folder that is not there; one like a/b may be a TFDS name."""
    path = name.lower().endswith((".npz", ".parquet")) or name.startswith((os.sep, ".", "~"))
    return path and not name.startswith("hf:") and not os.path.exists(os.path.expanduser(name))


def _same(one: str, other: str) -> bool:
    return one == other or os.path.realpath(os.path.expanduser(one)) == os.path.realpath(
        os.path.expanduser(other)
    )


def as_flags(values: dict[str, Any], defaults: Callable[[str], Any]) -> str:
    """The flags that are not as by default, as a command line has them; "" where all are."""
    return " ".join(
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in values.items()
        if value != defaults(name)
    )
