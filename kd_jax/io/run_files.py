"""Files of a run folder: written whole or not at all, and read as their sums vouch for (host side)."""

import glob
import json
import os
import re
from pathlib import Path
from typing import Any

from kd_jax.errors import InputError, nearest_path
from kd_jax.io import sums


def write(path: Path, content: bytes) -> None:
    """Writes all of the file or nothing: a reader never sees half of it, and a failure leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        for left in filter(_is_abandoned, path.parent.glob(f".{glob.escape(path.name)}.*.tmp")):
            left.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    """Whether a file that is half written has lost the process that its name names."""
    pid = path.suffixes[-2].removeprefix(".")
    try:
        if re.fullmatch(r"[1-9]\d{0,8}", pid):
            os.kill(int(pid), 0)  # asks, and sends nothing
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    return False


def to_json(content: dict[str, Any]) -> bytes:
    """Errors: ValueError for a nan or an infinity, which JSON cannot say."""
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read(path: Path) -> bytes | None:
    """The content of a run folder's file; None where it is not there.

    Errors: InputError where SHA256SUMS says that it was something else.
    """
    content = path.read_bytes() if path.is_file() else None
    sums.check(path, content)
    return content


def read_text(path: Path) -> str:
    content = read(path)
    if content is None:
        given = "no such file" if path.parent.is_dir() else f"no such folder{nearest_path(path.parent)}"
        expected = f"a file {path.name} in it"
        if (path.parent / "checkpoints").is_dir():
            expected += "; the run is unfinished, the command in its config.json continues it"
        raise InputError(f"{path.parent} is not a whole run folder", expected, given)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text", "UTF-8", f"byte {error.start} is not") from None
