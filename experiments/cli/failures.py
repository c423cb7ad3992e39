"""What an error that ends an entry point means for its user: something to mend, or a fault to report."""

import errno
import importlib.metadata
import platform
import re
import shlex
import sys
import tempfile
import traceback
from pathlib import Path

import kd_jax

MEMORY = "a computation that fits into the memory of this device"
_READABLE, _ROOM = "files and folders that this user may use", "room on the disk"
_THERE, _PATH = "files and folders that are there", "paths that this system can use"
_FEWER, _WHOLE = "fewer files open at a time (see `ulimit -n`)", "a disk that can be read and written"
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
MENDABLE = {
    errno.ENOMEM: MEMORY,
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.ETXTBSY), _READABLE),
    **dict.fromkeys(_ABSENT, _THERE),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), _PATH),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _FEWER),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO), _WHOLE),
}
"""By the number of an OSError, what is expected instead."""
_OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|out of memory|CUDA_ERROR_OUT_OF_MEMORY", re.IGNORECASE)
LONGEST = 200  # characters of an unexpected error in its line; all of it is in the file


def expected(error: BaseException) -> str:
    """What is expected instead, of an error that its user can mend; "" of any other, which is a fault of the
    program or of what it stands on."""
    if isinstance(error, MemoryError):
        return MEMORY
    import jax  # which the computation has loaded

    if isinstance(error, jax.errors.JaxRuntimeError):
        return MEMORY if _OUT_OF_MEMORY.search(str(error)) else ""
    if not isinstance(error, OSError) or (error.errno in _ABSENT and _is_ours(error.filename)):
        return ""
    return MENDABLE.get(error.errno or 0, "")


def _is_ours(path: object) -> bool:
    """Whether a file that is absent belongs to the program or to Python: no user can mend that."""
    ours = (Path(__file__).parents[1], Path(kd_jax.__file__).parent, Path(sys.prefix))
    return isinstance(path, str) and any(Path(path).absolute().is_relative_to(folder) for folder in ours)


def record(error: BaseException) -> str:
    """The line for stderr of an unexpected error, and the file that it names: command, versions, traceback.
    Where no file can be written, the traceback follows the line."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    short = words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."
    report = _report(error)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="kd_jax_error_", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(report)
    except OSError:
        return f"error: unexpected, please report it with all that follows: {short}\n{report}"
    return f"error: unexpected, please report it with the file {file.name}: {short}"


def _report(error: BaseException) -> str:
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "flax", "numpy")]
    about = f"command: {shlex.join(sys.argv)}\nversions: {', '.join(versions)}\nsystem: {platform.platform()}"
    return f"{about}\n\n{''.join(traceback.format_exception(error))}"
