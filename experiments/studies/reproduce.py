"""Studies by name: which recipes they need, in which order; their runs as processes; the comparison."""

import fnmatch
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.cli import places
from experiments.gallery import pages, recipes, reproduction
from experiments.gallery.recipes import OTHERS, STUDIES, Recipe
from experiments.reporting.text import wrapped
from kd_jax.data import DATASETS, image_folder, tfds
from kd_jax.errors import InputError, nearest_name
from kd_jax.io import run_files

QUICK_SEEDS = 2
"""With --quick, the most seeds; the epochs are 1."""

QUICK_UPDATES = 20
"""With --quick, the updates of each synthesised image."""

REPORT = "reproduced.md"

LIST_NOTE = (
    "The time is that of the recipe alone, without its teachers. Reduced: with fewer epochs, seeds or "
    "examples, as the head of the recipe says."
)


def run(names: Sequence[str], out: Path, quick: bool, data_dir: str | None) -> None:
    """Runs the recipes of these names and what they need, then prints the comparison and writes it to
    `out`/reproduced.md.

    out: the folder of the run folders.  quick: whether everything is reduced.
    Errors: InputError, for data that are not there before anything is run. SystemExit with the status of a
    run that failed or was stopped.
    """
    known = {recipe.name: recipe for recipe in recipes.read_all(pages.RECIPES)}
    chosen = choose(names, known)
    order = with_teachers(chosen, known)
    require_data(order, data_dir)
    places.refuse_inside(out / REPORT)
    if quick and any(out.absolute() == Path(recipe.flags["out"]).absolute().parent for recipe in order):
        raise InputError("--quick is no reproduction", "a folder beside the runs, as --out=runs/quick", out)
    for number, recipe in enumerate(order, 1):
        print(f"[{number}/{len(order)}] {recipe.name}: {duration(recipe.minutes, quick)}", flush=True)
        run_recipe(recipe, out, quick, data_dir)
    sections = [
        reproduction.compare(recipe, out / recipe.name, known.values(), pages.RESULTS) for recipe in order
    ]
    run_files.write(out / REPORT, reproduction.markdown(sections, quick).encode())
    print(f"\n{reproduction.terminal(sections, quick)}\n\n{out / REPORT}")


def choose(names: Sequence[str], known: dict[str, Recipe]) -> list[Recipe]:
    """The recipes of these names, each once. Errors: InputError for a name that is none."""
    found: dict[str, Recipe] = {}
    for name in names:
        members = [known[name]] if name in known else of_study(name, known)
        members = members or [r for r in known.values() if fnmatch.fnmatchcase(r.name, name)]
        if not members and name in STUDIES:
            wrong, expected = f"no result of {name} is committed", f"names of its recipes, or '{name}_*'"
            raise InputError(wrong, expected, repr(name))
        if not members:
            near = nearest_name(name, [*known, *STUDIES])
            raise InputError("no such study", "a recipe or a study of --list", f"{name!r}{near}")
        found |= {recipe.name: recipe for recipe in members}
    return list(found.values())


def of_study(study: str, known: dict[str, Recipe]) -> list[Recipe]:
    """Its recipes that have a committed result to compare with."""
    if study == OTHERS:
        return []
    every = list(known.values())
    members = [recipe for recipe in every if recipe.study == study]
    return [recipe for recipe in members if recipes.where_result_is(recipe, every, pages.RESULTS)]


def with_teachers(chosen: Iterable[Recipe], known: dict[str, Recipe]) -> list[Recipe]:
    """These recipes and those of their teachers, each once and after its teachers."""
    order: dict[str, Recipe] = {}

    def add(recipe: Recipe) -> None:
        for teacher in recipe.teachers:
            add(known[teacher])
        order.setdefault(recipe.name, recipe)

    for recipe in chosen:
        add(recipe)
    return list(order.values())


def require_data(order: Iterable[Recipe], data_dir: str | None) -> None:
    """Errors: InputError that names every dataset of these recipes that is not there."""
    names = dict.fromkeys(name for recipe in order for name in recipe.datasets)
    if absent := {name: why for name in names if (why := absence(name, data_dir))}:
        given = "; ".join(f"{name}: {why}" for name, why in absent.items())
        raise InputError("data are not there", "each dataset that the recipes name", given)


def absence(name: str, data_dir: str | None) -> str:
    """Why a dataset cannot be read here; "" where it is there."""
    if name in DATASETS:
        return ""
    if name.endswith(".npz"):
        return "" if os.path.isfile(name) else "no such file"
    if os.sep in name:
        return "" if image_folder.is_image_folder(name) else "no such folder of images"
    root = tfds.root(data_dir)
    if any(folder.relative_to(root).parts[0] == name for _, folder in tfds.prepared(root)):
        return ""
    return f"not prepared in {root} (experiments/README.md#prepared-datasets)"


def run_recipe(recipe: Recipe, out: Path, quick: bool, data_dir: str | None) -> None:
    """Runs the entry point on the recipe, unless its run is complete.  Errors: SystemExit."""
    changed = overrides(recipe, out, quick)
    folder = Path(changed.get("out", recipe.flags["out"]))
    words = [f"--flagfile={place_of(recipe)}", *(f"--{name}={value}" for name, value in changed.items())]
    taught_by = [folder.parent / teacher for teacher in recipe.teachers]
    if recipe.images:
        make_images(recipe, folder.parent, quick)
    if reproduction.is_complete(recipe, folder, changed, taught_by):
        print(f"{folder} is complete", flush=True)
        return
    if data_dir:
        words.append(f"--data_dir={data_dir}")
    run_entry(recipe, [recipe.entry, *words])


def make_images(recipe: Recipe, runs: Path, quick: bool) -> None:
    """Makes the file of its transfer set from a teacher, unless it is there.

    runs: the folder of the run folders.  Errors: SystemExit; InputError for a file that is older than its
    teacher.
    """
    run, *options = recipe.images
    file, teacher = runs / Path(recipe.images_file).name, runs / Path(run).name
    if not file.exists():
        options += [f"--updates={QUICK_UPDATES}"] * quick
        run_entry(recipe, ["synthesize", str(teacher), *options, f"--out={file}"])
    elif file.stat().st_mtime_ns < (teacher / "results.csv").stat().st_mtime_ns:
        expected = f"images of the teacher in {teacher}; remove the file, and it is made again"
        raise InputError("synthesised images are older than their teacher", expected, file)


def run_entry(recipe: Recipe, command: Sequence[str]) -> None:
    """Runs an entry point, of this name and these arguments, as a process.  Errors: SystemExit."""
    if status := wait_for([sys.executable, "-P", "-m", f"experiments.{command[0]}", *command[1:]]):
        again = "the same command continues" if status > 128 else "see above"
        print(f"error: recipe {recipe.name} ended with status {status}; {again}", file=sys.stderr)
        sys.exit(status)


def overrides(recipe: Recipe, out: Path, quick: bool) -> dict[str, Any]:
    """The flags that differ from the recipe's own: none in the folder that it names itself."""
    changed: dict[str, Any] = {}
    if out / recipe.name != Path(recipe.flags["out"]):
        changed["out"] = str(out / recipe.name)
        if "teacher" in recipe.flags:
            teachers = recipe.flags["teacher"].split(",")
            changed["teacher"] = ",".join(str(out / Path(teacher).name) for teacher in teachers)
        if recipe.images:
            changed["transfer"] = f"own+{out / Path(recipe.images_file).name}"
    if quick:
        changed |= {"epochs": 1, "seeds": min(QUICK_SEEDS, int(recipe.flags.get("seeds", 1)))}
    return changed


def place_of(recipe: Recipe) -> str:
    """The flag file, as the pages write it where this is the folder of the repository."""
    path = pages.RECIPES / f"{recipe.name}.flags"
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def wait_for(command: Sequence[str]) -> int:
    """The exit status of a process that stops as it would alone: a terminal sends its Ctrl-C to both, a
    SIGTERM is passed on. 128 and the signal's number where it, or a request to stop, ended it."""
    stopped: list[int] = []
    process = subprocess.Popen(command)

    def pass_on(number, frame):
        stopped.append(number)
        if number == signal.SIGTERM:
            process.terminate()

    handlers = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if status < 0:
        return 128 - status
    return status or (128 + stopped[0] if stopped else 0)


def table_of_contents(data_dir: str | None) -> str:
    """Every study with its page, and its recipes: the time they need on 2 CPU cores, whether a result is
    committed, and their data."""
    found = recipes.read_all(pages.RECIPES)
    width = max(len(recipe.name) for recipe in found)
    lines = [f"  {'recipe':{width}}  {'2 cores':>8}  {'result':7}  data"]
    for study in (*STUDIES, OTHERS):
        title, page = STUDIES.get(study, ("Other recipes", "README.md"))
        lines += ["", *wrapped(f"{study}: {title} (experiments/results/{page})")]
        for recipe in (recipe for recipe in found if recipe.study == study):
            data = ", ".join(n + " (not here)" * bool(absence(n, data_dir)) for n in recipe.datasets)
            result = "reduced" if recipe.reduced else "yes"
            result = result if recipes.where_result_is(recipe, found, pages.RESULTS) else "none"
            lines.append(f"  {recipe.name:{width}}  {duration(recipe.minutes):>8}  {result:7}  {data}")
    return "\n".join([*lines, "", *wrapped(LIST_NOTE)])


def duration(minutes: int | None, quick: bool = False) -> str:
    """A time in the unit that fits."""
    if quick:
        return "1 epoch"
    if minutes is None:
        return "unknown"
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"
