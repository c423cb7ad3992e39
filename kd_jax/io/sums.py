"""SHA256SUMS of a run folder: what its files were when they were written, as `sha256sum --check` reads it.

A digit of a csv that changed on the disk would be a wrong figure that reads well. A folder without the file,
of an older version or a copy of some files, is read as it is.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from kd_jax.errors import InputError

NAME = "SHA256SUMS"


def read(folder: Path) -> dict[str, str]:
    """The sha256 (hex) of each file that is named; none where there is no such file.

    Errors: InputError that names the line.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    sums = {}
    for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
        words = re.fullmatch(r"([0-9a-f]{64})  ([\w.]+)", line)
        if not words:
            raise InputError(f"{path}, line {number}", "a sha256, two spaces and a file's name", repr(line))
        sums[words[2]] = words[1]
    return sums


def of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The sha256 (hex) of each of these files that is there."""
    paths = [folder / name for name in names if (folder / name).exists()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def render(sums: dict[str, str]) -> bytes:
    """The content of the file."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()


def check(path: Path, content: bytes | None) -> None:
    """Refuses a file whose content (None: it is not there) is not what its folder's SHA256SUMS says."""
    expected = read(path.parent).get(path.name)
    actual = None if content is None else hashlib.sha256(content).hexdigest()
    if expected not in (None, actual):
        was = f"sha256 {expected[:12]}..., as {path.parent / NAME} has it (if it was changed on purpose, "
        was += "remove its line there)"
        given = "no such file" if actual is None else f"{actual[:12]}..."
        raise InputError(f"{path} is not as it was written", was, given)
