"""Random and spoilt input against every reader: it is read, or refused in one line, and nothing else happens.

    .venv/bin/python -P -m tests.faults.campaign --parts=fuzz

Whatever a reader is given, it may return or raise InputError: any other exception, a warning, more than
SECONDS, a file written, or a file read that lies beside the one it was given does not hold. What is spoilt
is valid at first, and the manifest of a spoilt checkpoint is sealed anew, so that what lies behind the first
check is met as well.
"""

import contextlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from experiments.cli import main
from experiments.gallery import committed
from experiments.reporting import report
from experiments.reporting.content import read
from experiments.settings import synthesis, teachers
from experiments.studies import compression
from kd_jax import data, plots
from kd_jax.data import cache, synthetic
from kd_jax.errors import InputError
from kd_jax.io import checkpoint, run_files
from tests.faults import fuzz_flags, samples
from tests.faults.mutations import csv_bytes, json_bytes, npz_bytes, spoil_bytes, spoil_json
from tests.faults.tried import Tried

SECONDS = 20
LONGEST = 600  # characters of a refusal, which an entry point prints as a line
REFUSED = "read, or refused in one line; no other error, no file touched"

Reader = Callable[[], object]


# --- watching a reader ----------------------------------------------------------------------------------

_watched: list[tuple[Path, list[str]]] = []


def _heard(event: str, arguments: tuple) -> None:
    """An audit hook: which of the files below the watched folder, but for the one given, are opened, and
    what is written or started anywhere."""
    if not _watched:
        return
    given, seen = _watched[-1]
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"):
        seen.append(f"{event} {arguments[:1]}")
    if event == "open" and isinstance(arguments[0], str | bytes):
        path, flags = Path(os.path.realpath(os.fsdecode(arguments[0]))), arguments[2] or 0
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        beside = path.is_relative_to(given.parent) and not path.is_relative_to(given)
        compiled = jax.config.jax_compilation_cache_dir  # what is compiled on the way is kept there
        of_python = "__pycache__" in path.parts or path == Path(os.devnull)
        if beside or (writes and not of_python and not (compiled and path.is_relative_to(compiled))):
            seen.append(f"opened {path}")
    if event in ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree"):
        seen.append(f"{event} {arguments[0]}")


sys.addaudithook(_heard)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """TimeoutError after SECONDS."""

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(given: Path, read: Reader) -> str:
    """What is wrong with how `read` ended; nothing where all is well.  given: what it may read."""
    seen: list[str] = []
    _watched.append((given, seen))
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("error")
            read()
    except InputError as error:
        if len(str(error)) > LONGEST:
            return f"a refusal of {len(str(error))} characters: {str(error)[:150]}"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = {"kd_jax", "experiments"}
        own = [frame for frame in frames if ours & set(Path(frame.filename).parts[-3:-1])]
        where = (own or frames)[-1]
        return f"{type(error).__name__}: {str(error)[:150]!a} ({Path(where.filename).name}:{where.lineno})"
    finally:
        _watched.pop()
    return seen[0] if seen else ""


# --- what is spoilt, and who reads it -------------------------------------------------------------------


Spoil = Callable[[random.Random, Path], None]
"""Puts something spoilt in a folder."""

Mutate = Callable[[random.Random, bytes], bytes]


class Target(NamedTuple):
    """A kind of thing that is spoilt: what the table says of it; whole: the folder of valid input, of which a
    copy is made; spoil, read: of the copy; times: of the campaign."""

    what: str
    whole: Path
    spoil: Spoil
    read: Callable[[Path], object]
    times: int


def render(folder: Path) -> None:
    """The whole report, nothing written; its figures are not drawn."""
    with mock.patch.object(report, "draw", lambda content, options: {}):
        report.render(folder)


def render_figures(folder: Path) -> None:
    """The whole report with its figures, but for their files."""
    with mock.patch.object(plots, "render", lambda figure, kind="png": b""):
        report.render(folder)


def replace(path: Path, content: bytes) -> None:
    """The copy's files are links: the whole one stays."""
    path.unlink()
    path.write_bytes(content)


def one_of(names: Sequence[str], how: Mutate | None = None) -> Spoil:
    """One of these files, by `how` or as its kind is spoilt."""

    def spoil(draw: random.Random, folder: Path) -> None:
        path = folder / draw.choice(names)
        mutate = how or (json_bytes if path.suffix == ".json" else csv_bytes)
        replace(path, mutate(draw, path.read_bytes()))

    return spoil


def spoil_metadata(draw: random.Random, folder: Path) -> None:
    """Of a run's checkpoint; its manifest vouches for itself again."""
    (file,) = folder.glob("*/manifest.json")
    manifest = json.loads(file.read_text())
    part = draw.choice(("metadata", "metadata", "metadata", "files"))
    content = manifest | {part: spoil_json(draw, manifest[part])}
    del content["sha256"]
    replace(file, json.dumps(content | {"sha256": checkpoint._seal(content)}).encode())


def spoil_arrays(draw: random.Random, folder: Path) -> None:
    """A file of a run's checkpoint, whose manifest is made anew as if it had been written so."""
    (file,) = folder.glob("*/manifest.json")
    metadata = json.loads(file.read_text())["metadata"]
    path = draw.choice(sorted(path for path in (file.parent / "arrays").rglob("*") if path.is_file()))
    how = json_bytes if path.read_bytes()[:1] == b"{" else spoil_bytes
    replace(path, how(draw, path.read_bytes()))
    file.unlink()
    checkpoint._seal_folder(file.parent, metadata)


TABLES = ("results.csv", "history.csv", "bias_curve.csv", "representation.csv")


def targets(home: Path) -> list[Target]:
    """All kinds, their valid input made in the folder `home`."""
    dataset = data.load(str(samples.toy(home / "npz" / "toy.npz")))
    settings = [samples.setting("labels"), samples.setting("T=4 omit=2", [2], 4.0)]
    students = samples.write_run(home / "students", dataset, settings)
    teacher = samples.write_run(home / "teacher", dataset)
    render_figures(students)  # what is imported when it is first used is imported
    run_files.write(students / "summary.json", run_files.to_json(read(students).summary.to_json()))
    (home / "cached").mkdir()
    run_files.write(home / "made" / "made.npz", samples.synthesised(dataset, 1))
    cache.write(home / "cached" / "toy.npz", "source", dataset)

    def load_teacher(folder: Path) -> None:
        teachers.load(str(folder), None, "paired", dataset, np.arange(10))

    def load_cached(folder: Path) -> None:
        held = cache.read(folder / "toy.npz", "source")
        for name, array in zip(cache.ARRAYS, held[0], strict=True) if held else ():
            np.testing.assert_array_equal(array, getattr(dataset, name))

    def load_maker(folder: Path) -> None:
        synthesis.load_teacher(str(folder), untrained=False)

    def load_made(folder: Path) -> None:
        data.load(str(folder / "made.npz"))
        synthetic.read_origin(str(folder / "made.npz"))

    config, npz = one_of(["config.json"]), one_of(["toy.npz"], npz_bytes)
    manifest, shown = one_of(["teachers/manifest.json"]), one_of(["examples.npz"], npz_bytes)
    called = one_of(["confusions.npz"], npz_bytes)
    summary, every = one_of(["config.json", "summary.json"]), one_of(["config.json", *TABLES])
    load = lambda folder: checkpoint.load(folder / "teachers")  # noqa: E731
    load_npz = lambda folder: data.load(str(folder / "toy.npz"))  # noqa: E731
    return [
        Target("config.json of a run, read for its report", students, config, render, 4000),
        Target("csv files of a run, read for its report", students, one_of(TABLES), render, 3000),
        Target("config.json and csv files, read for figures", students, every, render_figures, 300),
        Target("examples.npz of a run", students, shown, render, 1500),
        Target("config.json and summary.json, read for tables", students, summary, committed.outcome, 3000),
        Target("confusions.npz of a run", students, called, render, 1500),
        Target("manifest of a checkpoint", teacher, manifest, load, 4000),
        Target("metadata of a teacher, sealed anew", teacher, spoil_metadata, load_teacher, 1500),
        Target("metadata, sealed anew, read for costs", teacher, spoil_metadata, compression.read, 1000),
        Target("metadata, sealed anew, read to make images", teacher, spoil_metadata, load_maker, 1000),
        Target("arrays of a teacher, sealed anew", teacher, spoil_arrays, load_teacher, 1000),
        Target(".npz of a dataset", home / "npz", npz, load_npz, 6000),
        Target(".npz of synthesised images", home / "made", one_of(["made.npz"], npz_bytes), load_made, 2000),
        Target("cache of decoded images", home / "cached", npz, load_cached, 3000),
    ]


def attack(target: Target, times: int, seed: int = 0) -> Tried:
    """The target spoilt so often, each time from a fresh copy."""
    draw, failures = random.Random(f"{seed} {target.what}"), []
    with tempfile.TemporaryDirectory() as name:
        for number in range(times):
            copy = Path(name) / str(number) / "given"
            shutil.copytree(target.whole, copy, copy_function=os.link)
            (copy.parent / "outside").write_text("not to be read")
            target.spoil(draw, copy)
            if found := fault(copy, lambda copy=copy: target.read(copy)):  # type: ignore[misc]
                failures.append(f"number {number}: {found}")
            shutil.rmtree(copy.parent)
    return Tried(f"spoilt {target.what}", times, times - len(failures), REFUSED, tuple(failures))


def campaign() -> list[Tried]:
    logging.disable()  # Orbax tells of each file that it cannot read
    with tempfile.TemporaryDirectory() as name, mock.patch.object(main, "log_note", lambda line: None):
        rows = [attack(target, target.times) for target in targets(Path(name))]
    logging.disable(logging.NOTSET)
    return rows + fuzz_flags.campaign()
