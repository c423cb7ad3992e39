"""Files of arrays on the host: .npz read without trust, and the cache of arrays that were costly to decode.

A cache file counts only where it names the very source at hand and still holds what was sealed in it.
Left out: eviction (one file a source; a source prepared anew takes over the file of the old one).
"""

import hashlib
import json
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_jax.errors import InputError

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

_NUMBERS = ("num_validation", "num_skipped")
_FORMAT = 4  # also what decoding makes of a file: another way of it is another format

_log = logging.getLogger(__name__)


class Held(NamedTuple):
    """What a cache file holds, as in `data.Dataset`. arrays: the ARRAYS, u8[N,h,w,c] and i32[N]."""

    arrays: list[np.ndarray]
    class_names: tuple[str, ...]
    fingerprint: str
    num_validation: int
    num_skipped: int
    notes: tuple[str, ...]


def read_npz(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of `keys`, and those of `optional` that are there, nothing unpickled.

    Errors: InputError that names what the file lacks, or why it cannot be read; OSError where it is absent.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} cannot be read", "a regular file", "a folder, a pipe or a device")
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            members = dict(zip(names, archive.infolist(), strict=True))
            if twice := [key for key in (*keys, *optional) if names.count(key) > 1]:
                raise InputError(f"{path} holds an array twice", "each name once", ", ".join(twice))
            omitted = ", ".join(key for key in keys if key not in members)
            if omitted:
                raise InputError(f"{path} lacks {omitted}", ", ".join(keys), ", ".join(members) or "nothing")
            wanted = {key: members[key] for key in (*keys, *optional) if key in members}
            # zipfile never hands out more than the declared size, so this bounds what is unpacked.
            require_memory(path, sum(info.file_size for info in wanted.values()))
            arrays = {}
            for key, info in wanted.items():
                with archive.open(info) as file:
                    arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
            return arrays
    except (InputError, OSError):
        raise
    except Exception as error:  # A malformed file may raise nearly anything.
        expected = "a file as np.savez writes it, of plain arrays (no pickled objects)"
        raise InputError(f"{path} cannot be read", expected, one_line(error)) from error


def npz_names(path: Path) -> list[str]:
    """The names of all arrays of a file that `read_npz` has read."""
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def one_line(error: Exception) -> str:
    """Its kind and its words, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def require_memory(what: object, needed: int) -> None:
    """InputError unless `needed` bytes fit into memory."""
    free, gib = _available_memory(), 2**30
    if needed > free:
        expected = f"at most the {free / gib:.1f} GiB that are free"
        raise InputError(f"{what} is too large for the memory", expected, f"{needed / gib:.1f} GiB")


def _available_memory() -> int:
    """Bytes that are free; where the system does not say, bytes that there are."""
    try:
        return 1024 * int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0])
    except (OSError, IndexError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def fingerprint(arrays: Sequence[np.ndarray], num_validation: int = 0) -> str:
    """sha256 (hex) over dtype, shape and bytes in C order of each array in turn, and over the number of
    validation examples where there are some."""
    digest = hashlib.sha256()
    for array in (*arrays, np.array(num_validation)) if num_validation else arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.reshape(-1).data)
    return digest.hexdigest()


def place(name: str, folder: Path, state: object, cache_dir: str | os.PathLike | None) -> tuple[Path, str]:
    """The cache file for what is decoded from `folder`, and a sha256 (hex) that changes with its source.

    name: what the file's name begins with.  state: all that decoding depends on, as JSON has it.
    cache_dir: else KD_JAX_CACHE, else the user's cache folder.
    """
    path = str(folder.resolve())
    source = hashlib.sha256(json.dumps([_FORMAT, path, state]).encode()).hexdigest()
    # Named by its place alone, so that a source prepared anew takes over the file of the old one.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return root(cache_dir) / f"{name}-{digest}.npz", source


def files_state(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size in bytes and mtime in ns of each file in a folder."""
    stats = sorted((file.name, file.stat()) for file in folder.iterdir() if file.is_file())
    return [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def root(cache_dir: str | os.PathLike | None = None) -> Path:
    """Where decoded datasets are kept: `cache_dir`, else KD_JAX_CACHE, else the user's cache folder."""
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache_dir or os.environ.get("KD_JAX_CACHE") or f"{user}/kd_jax/data"))


def _seal(source: str, held: Held) -> str:
    """sha256 (hex) of all that a cache file holds; the fingerprint stands for the arrays."""
    return hashlib.sha256(json.dumps([source, *held[1:]]).encode()).hexdigest()


def read(path: Path, source: str) -> Held | None:
    """What was written for the same source; None where it is not there whole."""
    try:
        if str(read_npz(path, ("source",))["source"]) != source:
            return None
        found = read_npz(path, (*ARRAYS, "class_names", *_NUMBERS, "notes", "digest"))
        arrays, names = [found[key] for key in ARRAYS], tuple(found["class_names"].tolist())
        notes = tuple(found["notes"].tolist())
        num_validation, num_skipped = (int(found[key]) for key in _NUMBERS)
        stamp = fingerprint(arrays, num_validation)
        held = Held(arrays, names, stamp, num_validation, num_skipped, notes)
        if _seal(source, held) != str(found["digest"]):
            raise ValueError("the stored sha256 differs")
        return held
    except FileNotFoundError:
        return None
    except Exception as error:  # As with any file, a damaged one may raise nearly anything.
        _log.warning("the cached arrays in %s are damaged and are made anew: %s", path, error)
        return None


def write(path: Path, source: str, dataset: Any) -> None:
    """Writes a cache file whole or not at all; a folder that takes none is no error.

    dataset: anything with the fields of a `data.Dataset`.
    """
    held = Held(
        [getattr(dataset, key) for key in ARRAYS], *(getattr(dataset, key) for key in Held._fields[1:])
    )
    members: dict[str, Any] = dict(zip(ARRAYS, held.arrays, strict=True))
    members |= {key: getattr(held, key) for key in _NUMBERS}
    members |= {"class_names": np.array(held.class_names, str), "notes": np.array(held.notes, str)}
    digest = _seal(source, held)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **members, source=source, digest=digest)
        os.replace(temporary, path)
    except OSError as error:
        _log.info("the decoded arrays are not cached in %s: %s", path, error)
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
