"""Nothing that is loaded is executed: a malicious pickle in every place where a file is read.

    .venv/bin/python -P -m tests.faults.campaign --parts=loaded

Unpickled, it would write a marker file. Each place is read by the entry point that a user would start; what
is refused must be refused in one line, and what is read as text or passed over must leave no marker. A
checkpoint's manifest is sealed anew each time, as one who plants a pickle would do.
"""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from kd_jax import data
from kd_jax.data import cache
from kd_jax.errors import InputError
from kd_jax.io import checkpoint, confusions, examples
from tests.faults import samples
from tests.faults.tried import Tried

REFUSED = "refused or passed over, nothing executed"
DISTILL = "distill --dataset=digits --model=mlp-8 --epochs=1 --out={home}/foreign"
TEACH = "train_teacher --model=mlp-8 --epochs=1 --out={home}/foreign"


class Trap:
    """Pickled, it makes a file when it is read."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


class Place(NamedTuple):
    """Where something is planted: what the table says of it, the file, what is put there, the command that
    reads it; sealed: the checkpoint whose manifest is made anew."""

    what: str
    path: Path
    content: bytes
    command: str
    sealed: Path | None = None


def member(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def planted_npz(path: Path, trap: Trap) -> Iterator[bytes]:
    """The archive, in each with another member that is an array of objects, or a bare pickle; then a bare
    pickle alone."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in members:
        for evil in (member(np.array([trap], object)), pickle.dumps(trap)):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for other, content in members.items():
                    archive.writestr(other, evil if other == name else content)
            yield buffer.getvalue()
    yield pickle.dumps(trap)


def make(home: Path) -> None:
    """Whole files of each kind, in the folder `home`; its images are decoded where KD_JAX_CACHE says."""
    home.mkdir(exist_ok=True)
    digits = data.load("digits")
    toy = data.load(str(samples.toy(home / "toy.npz")))
    samples.write_run(home / "teacher", digits)
    settings = [samples.setting("labels"), samples.setting("T=4 omit=2", [2], 4.0)]
    samples.write_run(home / "students", toy, settings)
    samples.pictures(home / "pictures")
    (home / "made.npz").write_bytes(samples.synthesised(digits))
    (home / "foreign").mkdir()
    (home / "foreign" / "thesis.tex").touch()
    data.load(str(home / "pictures"))


def places(home: Path, trap: Trap) -> Iterator[Place]:
    """Every place and what is planted there."""
    payload = pickle.dumps(trap)
    for content in planted_npz(home / "toy.npz", trap):
        yield Place("--dataset, an .npz", home / "toy.npz", content, f"{TEACH} --dataset={home}/toy.npz")
    for content in planted_npz(home / "toy.npz", trap):
        command = f"{DISTILL} --teacher={home}/teacher --transfer={home}/toy.npz"
        yield Place("--transfer, an .npz", home / "toy.npz", content, command)
    for content in planted_npz(home / "made.npz", trap):
        command = f"{DISTILL} --teacher={home}/teacher --omit=3 --transfer=own+{home}/made.npz"
        yield Place("--transfer=own+, synthesised images", home / "made.npz", content, command)
    (held,) = cache.root().glob("pictures-own-*.npz")
    for content in planted_npz(held, trap):
        yield Place("the cache of decoded images", held, content, f"{TEACH} --dataset={home}/pictures")
    for content in planted_npz(home / "toy.npz", trap):
        command = f"predict {home}/students --setting=labels --images={home}/toy.npz --out={home}/new.csv"
        yield Place("--images, an .npz", home / "toy.npz", content, command)
    for name in (examples.NAME, confusions.NAME):
        for content in planted_npz(home / "students" / name, trap):
            yield Place(f"{name} of a run", home / "students" / name, content, f"report {home}/students")
    for part in sorted(path for path in (home / "teacher" / "teachers").rglob("*") if path.is_file()):
        sealed = home / "teacher" / "teachers" if part.name != "manifest.json" else None
        command = f"{DISTILL} --teacher={home}/teacher"
        yield Place("a teacher's checkpoint, sealed anew", part, payload, command, sealed)
        yield Place(
            "models read for their costs, sealed anew", part, payload, f"compression {home}/teacher", sealed
        )
        command = f"synthesize {home}/teacher --classes=99 --out={home}/foreign/new.npz"
        yield Place("models read to make images, sealed anew", part, payload, command, sealed)
    for name in ("weights.pt", "weights.pth", "weights.safetensors"):
        given = _torch_file(trap) if name.endswith(("pt", "pth")) else payload
        for content in (payload, given):
            command = f"{TEACH} --model=resnet-18 --dataset={home}/pictures --pretrained={home}/{name}"
            yield Place("--pretrained, .pt, .pth and .safetensors", home / name, content, command)
    for name in ("train/cat/0.png", "train/cat/evil.png", "train/cat/0.pkl", "words.txt", "val/dog/1.png"):
        command = f"{TEACH} --dataset={home}/pictures"
        yield Place("files of an image folder", home / "pictures" / name, payload, command)
    run = ("config.json", "results.csv", "history.csv", "bias_curve.csv", "representation.csv")
    for name in run:
        yield Place(
            "json and csv files of a run", home / "students" / name, payload, f"report {home}/students"
        )
    for name in ("config.json", "summary.json"):
        yield Place(
            "files copied into the tables", home / "students" / name, payload, "tables --add={home}/students"
        )
    yield Place("--flagfile", home / "evil.flags", payload, f"{TEACH} --flagfile={home}/evil.flags")
    comparison = home / "foreign" / "comparison.json"
    yield Place(
        "comparison.json in --out",
        comparison,
        payload,
        f"report {home}/students {home}/teacher --out={home}/foreign",
    )


def _torch_file(trap: Trap) -> bytes:
    """As torch.save writes it, or nothing where there is no PyTorch."""
    try:
        import torch
    except ImportError:
        return b""
    buffer = io.BytesIO()
    torch.save({"fc.bias": trap}, buffer)
    return buffer.getvalue()


def attempt(launch: Any, home: Path, place: Place, marker: Path) -> str:
    """What is wrong with one place; nothing where all is well. All is as before afterwards."""
    before = place.path.read_bytes() if place.path.exists() else None
    manifest = place.sealed / "manifest.json" if place.sealed else None
    whole = manifest.read_bytes() if manifest else b""
    place.path.write_bytes(place.content)
    try:
        if place.sealed and manifest:
            metadata, _ = checkpoint.read_manifest(place.sealed)
            manifest.unlink()
            checkpoint._seal_folder(place.sealed, metadata)
        name, *words = place.command.format(home=home).split()
        done = launch(name, *words, draw=False)
    finally:
        place.path.unlink()
        if before is not None:
            place.path.write_bytes(before)
        if manifest:
            manifest.write_bytes(whole)
    if marker.exists():
        marker.unlink()
        return f"{place.path.name}: executed"
    # Where Orbax fails, its own threads may tell of it beside the refusal.
    told = re.search("^error: ", done.err, re.MULTILINE) or done.status == 0
    alone = place.sealed or re.fullmatch("((note|error): .*\n)*", done.err)
    if done.status not in (0, 2) or not told or not alone:
        return f"{place.path.name}: status {done.status}: {done.err[-300:]!r}"
    return ""


def traps(launch: Any, home: Path, wanted: Callable[[int, Place], bool]) -> list[Tried]:
    """A row for each kind of place, of those that are wanted by their number and themselves."""
    make(home)
    marker = home / "executed"
    trap = Trap(marker)
    pickle.loads(pickle.dumps(trap)).close()
    assert marker.exists(), "the trap works"
    marker.unlink()
    found: dict[str, list[str]] = {}
    for number, place in enumerate(places(home, trap)):
        if wanted(number, place):
            found.setdefault(place.what, []).append(attempt(launch, home, place, marker))
    rows = []
    for what, each in found.items():
        failures = tuple(filter(None, each))
        rows.append(
            Tried(f"a pickle planted in {what}", len(each), len(each) - len(failures), REFUSED, failures)
        )
    return rows


# --- paths that lead outside ----------------------------------------------------------------------------


def outside(home: Path) -> Tried:
    """A checkpoint that names or links to files elsewhere is refused."""
    teacher, secret = home / "teacher" / "teachers", home / "secret"
    secret.write_text("of somebody else")
    failures = []
    names = ("../../secret", str(secret), "arrays/../../../secret", "..", "/", "", "arrays", "a\0b")
    for name in names:
        with _copy(teacher) as copy:
            manifest = json.loads((copy / "manifest.json").read_text())
            del manifest["sha256"]
            manifest["files"][name] = checkpoint._sha256(secret)
            sealed = manifest | {"sha256": checkpoint._seal(manifest)}
            (copy / "manifest.json").write_text(json.dumps(sealed))
            failures += [] if refused(copy) else [f"{name!r} is loaded"]
    links = {"arrays": teacher / "arrays", "arrays/_CHECKPOINT_METADATA": secret, "arrays/more": secret}
    for name, target in links.items():
        with _copy(teacher) as copy:
            path = copy / name
            if path.exists():
                path.rename(copy.parent / "moved")
            path.symlink_to(target)
            failures += [] if refused(copy) else [f"a link {name} to {target} is loaded"]
    times, what = len(names) + len(links), "a manifest that names, or links that lead to, files elsewhere"
    return Tried(what, times, times - len(failures), "refused", tuple(failures))


@contextlib.contextmanager
def _copy(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(shutil.copytree(folder, Path(name) / "copy"))


def refused(folder: Path) -> bool:
    try:
        checkpoint.load(folder)
    except InputError:
        return True
    return False


def campaign() -> list[Tried]:
    from tests.experiments.launcher import Launcher

    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        given = {"XLA_FLAGS": "", "KD_JAX_CACHE": str(home / "decoded")}
        with mock.patch.dict(os.environ, given), Launcher(home) as launch:
            rows = traps(launch, home, lambda number, place: True)
        return [*rows, outside(home)]
