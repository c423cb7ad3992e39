"""Recipes: what a flag file says of itself, and the blocks of the pages that list recipes.

A recipe belongs to the study whose key its name begins with, and a study has a page in experiments/results/.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.gallery.rows import Ours
from experiments.gallery.studies import TABLES
from experiments.reporting.markdown import plain, show, table, tabulate
from kd_jax.io import run_config
from kd_jax.stats import summary

STUDIES = {
    "quickstart": ("Quickstart on the embedded digits", "quickstart.md"),
    "hinton": ("Hinton, Vinyals & Dean 2015 on MNIST", "hinton.md"),
    "generalisation": ("A public generalisation test on MNIST", "generalisation.md"),
    "mnist_cnn": ("An omitted class on MNIST, convolutional networks", "missing_class.md"),
    "cifar10": ("An omitted class on CIFAR-10", "missing_class.md"),
    "architectures": ("Teachers of other architectures on MNIST", "architectures.md"),
    "tiny_imagenet": ("Teachers of other architectures on Tiny-ImageNet", "architectures.md"),
    "compression": ("Compression on CIFAR-10", "compression.md"),
    "hidden": ("Teacher ablations: what carries an omitted class", "hidden_signals.md"),
    "methods": ("Every method people compare", "methods.md"),
    "transfer": ("Distillation without the training data", "without_data.md"),
    "subliminal": ("Subliminal learning", "subliminal.md"),
}
"""The beginning of a recipe's name -> (title of its study, page); recipes of no study are on README.md."""

OTHERS = "others"
MOST_SETTINGS = 12


class Recipe(NamedTuple):
    """A flag file: its name, the comment at its head, and its flags as {name: value}."""

    name: str
    head: str
    flags: dict[str, str]

    @property
    def entry(self) -> str:
        """The entry point that reads it."""
        if "transfers" in self.flags:
            return "subliminal"
        return "distill" if "learning_rates" in self.flags else "train_teacher"

    @property
    def question(self) -> str:
        """The head's first sentence."""
        return re.split(r"(?<=[.?])\s+(?=[A-Z])", self.head, maxsplit=1)[0]

    @property
    def reduced(self) -> bool:
        """Whether the head says that it is."""
        return "educed" in self.head

    @property
    def study(self) -> str:
        """Of STUDIES, or OTHERS."""
        return study_of(self.name)

    @property
    def teachers(self) -> list[str]:
        """The recipes that must be run before this one."""
        return [Path(folder).name for folder in self.flags.get("teacher", "").split(",") if folder]


def study_of(name: str) -> str:
    """The longest key of STUDIES that a recipe's name begins with, or OTHERS."""
    known = [key for key in STUDIES if name == key or name.startswith(f"{key}_")]
    return max(known, key=len, default=OTHERS)


def read(path: Path) -> Recipe:
    """The recipe in a flag file, whose comments all stand at its head."""
    lines = path.read_text().splitlines()
    head = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    flags = dict(line[2:].partition("=")[::2] for line in lines if line.startswith("--"))
    return Recipe(path.stem, head.replace("+-", "±"), flags)


def read_all(folder: Path) -> list[Recipe]:
    """All recipes, those of teachers first."""
    return sorted(map(read, folder.glob("*.flags")), key=lambda r: (r.entry != "train_teacher", r.name))


def blocks(folder: Path, results: Path) -> dict[str, Callable[[], str]]:
    """`recipes_<study>` lists the recipes of a study, `overview` all studies."""
    found = read_all(folder)
    result_of = {recipe.name: where_result_is(recipe, found, results) for recipe in found}
    named: dict[str, Callable[[], str]] = {"overview": partial(overview, found, result_of)}
    for study in (*STUDIES, OTHERS):
        members = [recipe for recipe in found if recipe.study == study]
        named[f"recipes_{study}"] = partial(listing, members, result_of, results)
    return named


def where_result_is(recipe: Recipe, recipes: Sequence[Recipe], results: Path) -> str:
    """The folder of results/ that holds the result of this recipe: its own, else that of students it taught,
    where a teacher is a row; "" where there is none yet."""
    students = [other.name for other in recipes if recipe.name in other.teachers]
    done = [name for name in (recipe.name, *students) if (results / name / "summary.json").is_file()]
    return done[0] if done else ""


def overview(recipes: Sequence[Recipe], result_of: dict[str, str]) -> str:
    """A table of the studies with their recipes; those without a result have a column of their own."""
    rows = []
    for study in (*STUDIES, OTHERS):
        title, page = STUDIES.get(study, ("Other recipes", ""))
        members = [recipe for recipe in recipes if recipe.study == study]
        cells = [
            ", ".join(r.name + " (reduced)" * r.reduced for r in members if bool(result_of[r.name]) == done)
            for done in (True, False)
        ]
        if members:
            rows.append([f"[{title}]({page})" if page else title, *cells])
    return "\n".join(table(["study", "recipes with results", "recipes without results yet"], rows))


def listing(recipes: Sequence[Recipe], result_of: dict[str, str], results: Path) -> str:
    """The commands of some recipes, their questions and files, and the results that no other table shows."""
    commands = [f"./launch.sh {r.entry} --flagfile=experiments/recipes/{r.name}.flags" for r in recipes]
    rows = [
        [
            f"[{r.name}](../recipes/{r.name}.flags)",
            plain(r.question) + " (Reduced.)" * r.reduced,
            files(r, result_of[r.name], results),
        ]
        for r in recipes
    ]
    lines = ["```sh", *commands, "```", "", *needed(recipes)]
    lines += [*table(["recipe", "question", "files"], rows), ""]
    shown = {
        cell.run
        for of_page in TABLES.values()
        for row in of_page.rows
        for cell in row.cells
        if isinstance(cell, Ours)
    }
    for recipe in recipes:
        if result_of[recipe.name] == recipe.name and recipe.name not in shown:
            lines += [f"Result of `{recipe.name}`:", "", *of_summary(results / recipe.name), ""]
    return "\n".join(lines).strip()


def needed(recipes: Sequence[Recipe]) -> list[str]:
    """A line on the recipes of teachers that other studies list; no line where there is none."""
    own = {recipe.name for recipe in recipes}
    others = sorted({teacher for recipe in recipes for teacher in recipe.teachers} - own)
    pages = {name: STUDIES[study_of(name)][1] if study_of(name) != OTHERS else "README.md" for name in others}
    links = ", ".join(f"`{name}` ([{page}]({page}))" for name, page in pages.items())
    return [f"Run these recipes of teachers first: {links}.", ""] if others else []


def files(recipe: Recipe, result: str, results: Path) -> str:
    """Links to the committed files of a recipe.  result: of `where_result_is`."""
    if not result:
        return "no result yet"
    if result != recipe.name:
        return f"row *teacher* of {result}"
    drawn = sorted((results / result / "figures").glob("*.png"))
    links = [f"[{path.stem}]({result}/figures/{path.name})" for path in drawn]
    return ", ".join([*links, *(f"[{name}]({result}/{name}.json)" for name in ("summary", "config"))])


def of_summary(folder: Path) -> list[str]:
    """The settings of a run that no table of studies.py shows: accuracies in %."""
    config = run_config.read(folder)
    values = summary.lookup(json.loads((folder / "summary.json").read_text()))
    omitted = any(setting["omitted"] for setting in config["settings"])
    rows = []
    for setting in config["settings"][:MOST_SETTINGS]:
        name = setting["name"]
        correction = summary.preferred_correction(name, values)
        used = correction if correction != "none" else "-"
        keys = [("none", "all"), *([("none", "omitted"), (used, "omitted")] if omitted else [])]
        cells = [show(values.get((name, "test", *key, "accuracy")), half=" ± ") for key in keys]
        wrong = show(values.get((name, "test", "none", "all", "errors")), 1, 1, " ± ")
        n = values[name, "test", "none", "all", "accuracy"].n
        rows.append([name, wrong, *cells, *([used] if omitted else []), str(n)])
    heads = ["omitted classes", "bias corrected", "correction"] if omitted else []
    lines = "\n".join(tabulate(["setting", "errors", "all classes", *heads, "n"], rows)).strip().splitlines()
    left = len(config["settings"]) - MOST_SETTINGS
    return [*lines, *(["", f"{left} more settings are in the summary."] if left > 0 else [])]
