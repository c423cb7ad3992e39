"""The files of an image folder: which lie in which folder, nothing decoded."""

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from kd_jax.data import images

_NAMED = 3
_OPENED = 20  # files without an image's name that are opened to find out whether a folder has images


class Picture(NamedTuple):
    """A file: its path below the root, its size in bytes and mtime in ns (-1 where it cannot be had)."""

    path: str
    size: int
    mtime: int


def class_folders(root: Path, split: str, strays: list[str]) -> dict[str, list[Picture]]:
    """folder name -> the files in it and below it; strays: told of what is left out."""
    found, top = {}, (root / split).resolve()
    for name in visible(root, split):
        path = f"{split}/{name}".lstrip("/")
        if os.path.isdir(root / path) or is_lost(root / path):  # a lost one is a class that is lacking
            files = _pictures(root, path, strays, {top, *top.parents})
            found[name] = [file for file in files if file.path != f"{path}/{name}_boxes.txt"]
        else:
            strays.append(path)
    return found


def files_below(root: Path) -> tuple[list[Picture], list[str]]:
    """(the files in a folder and in those below it, hidden ones left out; paths of what is no file)."""
    strays: list[str] = []
    files = _pictures(root, ".", strays, set())
    relative = lambda path: path.removeprefix("./")  # noqa: E731
    return [file._replace(path=relative(file.path)) for file in files], list(map(relative, strays))


def visible(root: Path, folder: str) -> list[str]:
    """What lies in a folder, without hidden files."""
    return sorted(name for name in os.listdir(root / folder) if not name.startswith("."))


def _pictures(root: Path, folder: str, strays: list[str], above: set[Path]) -> list[Picture]:
    """The files in a folder, then those in each folder below it.

    above: the folders that it lies in; a link to one of them, which would have no end, counts as stray.
    """
    if not os.path.isdir(root / folder):
        return []
    if (here := (root / folder).resolve()) in above:
        strays.append(folder)
        return []
    found, below = [], []
    for path in (f"{folder}/{name}" for name in visible(root, folder)):
        if os.path.isdir(root / path):
            below += _pictures(root, path, strays, {*above, here})
        elif picture := look(root, path):
            found.append(picture)
        else:
            strays.append(path)
    return found + below


def look(root: Path, path: str) -> Picture | None:
    """None if it is no regular file: opening a pipe would block."""
    try:
        status = os.stat(root / path)
    except OSError:  # A link to nowhere or round in circles is an image that is lacking.
        return Picture(path, -1, -1)
    return Picture(path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def shows_image(folder: Path) -> bool:
    """Whether one of a folder's files, those below it apart, is an image."""
    files = [name for name in visible(folder, "") if os.path.isfile(folder / name)]
    return _is_among(folder, files)


def holds_image(root: Path, files: Iterable[Picture]) -> bool:
    """Whether one of the files is an image."""
    return _is_among(root, [file.path for file in files])


def _is_among(root: Path, paths: Sequence[str]) -> bool:
    """Whether one of the files is an image by its name, or one of the first by its content."""
    return any(os.path.splitext(path)[1].lower() in images.endings() for path in paths) or any(
        images.is_image(root / path) for path in paths[:_OPENED]
    )


def is_lost(path: Path) -> bool:
    """Whether it is a link to nowhere."""
    return os.path.islink(path) and not os.path.exists(path)


def has_folders(root: Path, folder: str) -> bool:
    """Whether a folder that is seen lies in it."""
    return any(os.path.isdir(root / folder / name) for name in visible(root, folder))


def as_text(name: str) -> str:
    """A file's name for people: bytes that are no UTF-8 as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def first_few(items: Sequence[str]) -> str:
    """The first few of the items, and how many more there are."""
    return ", ".join(items[:_NAMED]) + (f" and {len(items) - _NAMED} more" if len(items) > _NAMED else "")
