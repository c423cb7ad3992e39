"""A byte flipped, a file cut off, a file missing: in a teacher, a finished run, a run half-way, the cache.

Whatever is read afterwards is refused with the file named, or is to the bit what it was; of a run half-way
the checkpoint before the damaged one is used, and the cache is made anew. Neither goes without a line.
"""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from experiments.reporting import content
from experiments.settings import teachers
from kd_jax import data
from kd_jax.errors import InputError
from kd_jax.io import examples
from tests.faults.children import Children
from tests.faults.killed import COMMANDS, RUN, Whole, differences
from tests.faults.tried import Tried

KINDS = ("flipped", "cut off", "missing")
SAID = {"flipped": "one byte changed", "cut off": "cut off", "missing": "missing"}
REFUSED = "refused, the file named, or read to the bit as it was"


def damages(path: Path, kind: str, draw: random.Random, times: int) -> Iterator[str]:
    """Damages the file in another way each time, says how, and makes it whole again."""
    whole = path.read_bytes()
    for _ in range(min(times, 1 if kind == "missing" else len(whole))):
        place = draw.randrange(len(whole)) if whole else 0
        if kind == "flipped":
            other = whole[place] ^ draw.randrange(1, 256)
            path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
        elif kind == "cut off":
            path.write_bytes(whole[:place])
        else:
            path.unlink()
        try:
            yield f"{path.name}, {kind} at {place}"
        finally:
            path.write_bytes(whole)


def same(one: Any, other: Any) -> bool:
    """Of trees: the same structure, every leaf the same to the bit."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).dtype == np.asarray(b).dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(leaves, others, strict=True)
    )


def read_damaged(
    files: list[Path], read: Callable[[], Any], what: str, draw: random.Random, times: int
) -> list[Tried]:
    """Of each kind of damage, what comes of reading after it, in each of the files.  times: a file."""
    sound, rows = read(), []
    for kind in KINDS:
        failures, count = [], 0
        for path in files:
            for how in damages(path, kind, draw, times):
                count += 1
                try:
                    if not same(read(), sound):
                        failures.append(f"{how}: read as something else")
                except InputError as error:
                    if path.name not in str(error):
                        failures.append(f"{how}: not named: {error}")
                except Exception as error:
                    failures.append(f"{how}: {error!r}")
        said = f"{what}: {SAID[kind]}"
        rows.append(Tried(said, count, count - len(failures), REFUSED, tuple(failures)))
    return rows


def teacher_rows(folder: Path, draw: random.Random, times: int) -> list[Tried]:
    """As a student's --teacher reads it.  folder: of a finished train_teacher."""
    dataset = data.load("digits")
    _, validation = data.split_validation(dataset.train_labels, 0.1)

    def read() -> Any:
        return teachers.load(str(folder), None, "paired", dataset, validation).variables

    files = sorted(path for path in (folder / "teachers").rglob("*") if path.is_file())
    return read_damaged(files, read, "a file of a teacher's checkpoint", draw, times)


def run_rows(folder: Path, draw: random.Random, times: int) -> list[Tried]:
    """As the report reads it.  folder: of a finished distill."""

    def read() -> Any:
        found = content.read(folder)
        shown = examples.read(folder, found.run.description.data.num_classes)
        return {"run": repr(found), "examples": shown and shown._asdict()}

    read_anew = {"report.md", "report.html", "summary.json"}
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in read_anew)
    return read_damaged(files, read, "a file of a finished run", draw, times)


def report_rows(whole: Whole, draw: random.Random) -> list[Tried]:
    """What the report writes is not read, but made anew."""
    failures, count = [], 0
    for path in ("report.md", "report.html", "summary.json", "figures/class_bars.png"):
        for kind in KINDS:
            whole.begin("report")
            for how in damages(whole.folder / "run" / path, kind, draw, 1):
                wrong = whole.wrong("report")
                count += 1
                failures += [f"{how}: {', '.join(wrong)}"] if wrong else []
    what = "a file that the report wrote: changed, cut off or missing"
    return [Tried(what, count, count - len(failures), "written again, to the bit as it was", tuple(failures))]


def checkpoint_rows(whole: Whole, name: str, draw: random.Random, times: int) -> list[Tried]:
    """Of a run half-way, the newer of its two checkpoints damaged, then both.  times: each kind of damage."""
    run, kept, rows = whole.folder / "run", whole.folder / "half_way", []
    whole.clear()
    whole.children(name, *COMMANDS[name], step="epoch_000003.incomplete/manifest.json", signal="SIGKILL")
    run.rename(kept)
    for first, which, promise in (
        (1, "the newest checkpoint", "the one before is used, with a line that says so; then as undisturbed"),
        (0, "all checkpoints", "refused, a file named"),
    ):
        failures = []
        for kind in KINDS * times:
            whole.clear()
            shutil.copytree(kept, run)
            saved = sorted(run.glob("checkpoints/epoch_*"))[first:]
            names = [_damage(checkpoint, kind, draw) for checkpoint in saved]
            wrong = _wrong_answer(whole, name, names[0], passed_over=len(saved) == 1)
            failures += [f"{kind} {names}: {', '.join(wrong)}"] if wrong else []
        what = f"a file of {which} of a run of `{name}` half-way: changed, cut off or missing"
        count = len(KINDS) * times
        rows.append(Tried(what, count, count - len(failures), promise, tuple(failures)))
    shutil.rmtree(kept)
    return rows


def _wrong_answer(whole: Whole, name: str, named: str, passed_over: bool) -> list[str]:
    """What is wrong with how the run goes on, where `named` is the name of a damaged file."""
    ended = whole.children(name, *COMMANDS[name])
    if not passed_over:
        return [] if ended.status == 2 and named in ended.err else [str(ended)]
    told = "epoch_000002 is passed over for the one before it" in ended.err and named in ended.err
    return differences(whole.of(name), whole.folder / "run") if ended.status == 0 and told else [str(ended)]


def _damage(folder: Path, kind: str, draw: random.Random) -> str:
    """Damages one of its files for good; returns its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = draw.choice(files)
    for _ in damages(path, kind, draw, 1):
        damaged = path.read_bytes() if path.exists() else None
    path.write_bytes(damaged) if damaged is not None else path.unlink()
    return path.name


def cache_rows(folder: Path, draw: random.Random, times: int) -> list[Tried]:
    """The decoded images of a folder of images, by an entry point: what it prints and what it trains on."""
    pixels = np.random.RandomState(0)
    for split, number in (("train", 20), ("val", 6)):
        for image in range(number):
            place = folder / "images" / split / str(image % 2)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.randint(0, 256, (4, 4), np.uint8)).save(place / f"{image}.png")
    words, failures = ["--dataset=images", "--batch_size=4", *RUN], []
    run, undisturbed = folder / "run", folder / "undisturbed"
    with Children(folder, KD_JAX_CACHE=str(folder / "cache")) as children:
        assert children("train_teacher", *words).status == 0
        run.rename(undisturbed)
        (file,) = (folder / "cache").iterdir()
        sound = file.read_bytes()
        for number in range(times):
            for how in damages(file, KINDS[number % 2], draw, 1):
                ended = children("train_teacher", *words)
                told = f"{file} are damaged and are made anew" in ended.err
                wrong = [] if ended.status == 0 and told else [str(ended)]
                wrong = wrong or differences(undisturbed, run)
                wrong += [] if file.read_bytes() == sound else ["the cache is not as it was"]
                failures += [f"{how}: {', '.join(wrong)}"] if wrong else []
            shutil.rmtree(run)
    what = "the cache of decoded images: one byte changed, or cut off"
    return [Tried(what, times, times - len(failures), "made anew, with a line that says so", tuple(failures))]


def campaign() -> list[Tried]:
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name, Children(Path(name)) as children:
        whole = Whole(children)
        rows = teacher_rows(whole.of("train_teacher"), draw, 40)
        rows += run_rows(whole.of("distill"), draw, 40)
        rows += report_rows(whole, draw)
        for command in ("train_teacher", "distill"):
            rows += checkpoint_rows(whole, command, draw, 4)
        (whole.folder / "of_cache").mkdir()
        return rows + cache_rows(whole.folder / "of_cache", draw, 10)
