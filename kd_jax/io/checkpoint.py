"""Trees of arrays on disk: Orbax for the arrays, a sha256 manifest for trust. The only importer of orbax.

A checkpoint is a folder: `arrays/` (Orbax) and `manifest.json` with metadata and the sha256 of every file.
Orbax notices a truncated file but loads a flipped byte as a wrong weight; the manifest notices both. The
folder appears whole or not at all: it is written under a temporary name and renamed. Nothing loaded is
executed.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np

from kd_jax.errors import InputError

FORMAT = 2


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jax.dtypes.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _plain(leaf):
    """A key as its data; in numpy, but for an array of which other processes hold a part."""
    leaf = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return leaf if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable else np.asarray(leaf)


def _everyone(point: str) -> None:
    """Waits until every process has come to this point."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(point)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def save(path: str | os.PathLike, tree: Any, metadata: dict) -> str:
    """Writes `tree` and `metadata` (JSON) to a new folder `path`, which must not exist yet.

    Of several processes all must call it: each writes what it holds, process 0 the rest.
    tree: any pytree of arrays that flax.serialization knows (dicts, NamedTuples, flax.struct); typed PRNG
        keys are stored as their data.
    Returns: the sha256 of the manifest, which stands for the whole checkpoint. Errors: OSError, as where the
        disk is full; then there is no folder `path`. KeyboardInterrupt, or what else a signal raises, is
        raised when the checkpoint is whole.
    """
    path = Path(path).absolute()
    if path.exists():
        raise InputError("checkpoint folder is taken", "a path that does not exist", path)
    arrays = flax.serialization.to_state_dict(jax.tree.map(_plain, tree))
    _require_room(path, arrays)
    with _signals_deferred():
        _write(path, arrays, metadata)
    return read_manifest(path)[1]


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM that arrive inside are raised again when it ends. The exception that a signal raises
    would leave Orbax's threads writing into a folder that is removed. Python runs handlers in the main thread
    alone: elsewhere there is nothing to defer."""
    received: list[int] = []
    with contextlib.ExitStack() as handlers:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before is not None:  # installed outside Python, which could not install it again
                    handlers.callback(signal.signal, number, before)
                    signal.signal(number, lambda number, frame: received.append(number))
        yield
    for signal_number in received:
        signal.raise_signal(signal_number)


def _write(path: Path, arrays: dict, metadata: dict) -> None:
    temporary = path.with_name(f".{path.name}.incomplete")
    if first := jax.process_index() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    _everyone(f"{path} begun")
    try:
        _save_arrays(temporary / "arrays", arrays)
        if first:
            _seal_folder(temporary, metadata)
            os.replace(temporary, path)
    except BaseException:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    _everyone(f"{path} written")


def _save_arrays(path: Path, arrays: dict) -> None:
    from orbax.checkpoint import v1 as ocp

    try:
        ocp.save(path, arrays)
    except ValueError as error:  # what TensorStore makes of an error of the disk
        if not (code := re.search(r"\[os_error_code='(\d+)'\]", str(error))):
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def _require_room(path: Path, arrays: dict) -> None:
    """OSError where the arrays, uncompressed, and what Orbax says of them (about 50 KB, and below 1 KB each)
    do not fit: where the disk becomes full on the way, its threads fill the screen with tracebacks."""
    leaves = jax.tree.leaves(arrays)
    needed = sum(leaf.nbytes for leaf in leaves) + 2**17 + 2**10 * len(leaves)
    there = next(parent for parent in path.parents if parent.exists())
    if shutil.disk_usage(there).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _seal_folder(folder: Path, metadata: dict) -> None:
    """Writes the manifest of what the folder holds."""
    files = {str(file.relative_to(folder)): _sha256(file) for file in _files(folder)}
    content = {"format": FORMAT, "metadata": metadata, "files": files}
    manifest = json.dumps(content | {"sha256": _seal(content)}, indent=1, sort_keys=True)
    (folder / "manifest.json").write_text(manifest)


def _seal(content: dict) -> str:
    """The sha256 with which a manifest vouches for itself."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(path: str | os.PathLike) -> tuple[dict, str]:
    """(metadata, sha256 of the manifest) of a checkpoint, its files not yet checked."""
    file = Path(path) / "manifest.json"
    try:
        text = file.read_bytes()
        manifest = json.loads(text)
        version, metadata, seal = manifest["format"], manifest["metadata"], manifest.pop("sha256", None)
        sound = isinstance(metadata, dict) and seal == _seal(manifest)
        sound = sound and all(isinstance(digest, str) for digest in manifest["files"].values())
    except FileNotFoundError:
        raise InputError("no checkpoint here", "a folder with a manifest.json", path) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError("damaged checkpoint", f"a readable {file}", repr(error)) from None
    if version != FORMAT:
        raise InputError(f"checkpoint {path} has another format", f"format {FORMAT}", version)
    if not sound:
        raise InputError("damaged checkpoint", f"a {file} as it was written", "one that has changed since")
    return metadata, hashlib.sha256(text).hexdigest()


def verify(path: str | os.PathLike) -> None:
    """Compares every file with the manifest's sha256. Errors: InputError that names the file."""
    path = Path(path)
    read_manifest(path)
    expected = json.loads((path / "manifest.json").read_text())["files"]
    present = {str(file.relative_to(path)) for file in _files(path)} - {"manifest.json"}
    for name in sorted(present | set(expected)):
        if name not in present:
            raise InputError("damaged checkpoint", f"the file {path / name}", "nothing there")
        if name not in expected and Path(name).name.startswith("."):
            continue  # of the file manager
        if name not in expected:
            raise InputError("damaged checkpoint", f"only the files of {path / 'manifest.json'}", name)
        if (actual := _sha256(path / name)) != expected[name]:
            raise InputError(
                "damaged checkpoint", f"sha256 {expected[name][:12]}... of {path / name}", f"{actual[:12]}..."
            )


def load(path: str | os.PathLike) -> tuple[dict, dict]:
    """(tree of nested dicts of numpy arrays, metadata), every file verified first."""
    from orbax.checkpoint import v1 as ocp

    path = Path(path).absolute()
    metadata, _ = read_manifest(path)
    verify(path)
    try:
        shapes = ocp.metadata(path / "arrays").metadata
        template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
        arrays = ocp.load(path / "arrays", template)
    except Exception as error:  # Orbax does not say what it may raise
        expected = f"arrays in {path} that Orbax can read"
        raise InputError("damaged checkpoint", expected, repr(error)) from None
    return arrays, metadata


@contextlib.contextmanager
def refuse_damaged(what: str, folder: Path) -> Iterator[None]:
    """Refuses a checkpoint whose metadata do not hold what the block reads from them.

    what: it holds, for the error.  Errors: InputError that names the manifest.
    """
    try:
        yield
    except InputError:
        raise
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        expected = f"{folder / 'manifest.json'} as it was written"
        raise InputError(f"damaged {what}", expected, repr(error)) from None


def rebuild(template: Any, arrays: dict) -> Any:
    """Loaded arrays in the structure of `template` (arrays, or their jax.ShapeDtypeStruct), whose typed keys
    become typed keys again."""
    plain = flax.serialization.from_state_dict(template, arrays)
    rewrap = lambda old, new: jax.random.wrap_key_data(new) if _is_key(old) else new  # noqa: E731
    return jax.tree.map(rewrap, template, plain)
