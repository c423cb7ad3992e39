"""The gallery of recipes: what each asks, its command, what others found, what we found, a picture.

`./launch.sh tables` writes it to experiments/results/README.md from the heads of the recipes, the tables of
studies.py and the committed results.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.gallery.rows import Ours, Row, Table
from experiments.gallery.studies import TABLES
from experiments.reporting.markdown import plain, show, tabulate
from kd_jax.io import run_config
from kd_jax.stats import summary

STUDIES = {
    "quickstart": "Quickstart: handwritten digits, in a minute",
    "hinton": "Hinton, Vinyals & Dean 2015 on MNIST",
    "generalisation": "A public generalisation test on MNIST",
    "mnist_cnn": "A missing class on MNIST with convolutional networks",
    "cifar10": "A missing class on CIFAR-10",
    "architectures": "Teachers of other architectures on MNIST",
    "tiny_imagenet": "Teachers of other architectures on Tiny-ImageNet",
    "compression": "Compression on CIFAR-10",
    "imagewoof": "Imagewoof: alpha and T",
    "cifar100": "CIFAR-100, the field's yardstick",
    "hidden": "Hidden signals: what carries a class that was never seen",
    "subliminal": "Subliminal learning: taught on noise",
    "transfer": "Transfer without the data",
}
"""How a recipe's name begins -> its study, in the gallery's order; others come last, under that beginning."""

PICTURES = ("axis", "bias_curve", "class_bars", "features")  # the first that there is stands in the page
MOST_SETTINGS = 12
HEAD = """# Results

Every recipe of `experiments/recipes/`: what it asks, how it is run, what others published, what came out
here. Ours: mean ± half of the 95 % interval (how many independent seeds or teachers; one has no interval),
test accuracy in %, or errors where it says so; of shares that are the same in all seeds the larger side of
the exact binomial interval over all their examples. Reduced recipes ask the same of fewer epochs or seeds.
`./launch.sh tables` writes this page.
"""


class Recipe(NamedTuple):
    """A flag file: its name, what stands at its head, and its flags as {name: value}."""

    name: str
    head: str
    flags: dict[str, str]

    @property
    def entry(self) -> str:
        """The entry point that reads it: students' flags are lists, and named so."""
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
    def teachers(self) -> list[str]:
        """The recipes that come before it."""
        return [Path(folder).name for folder in self.flags.get("teacher", "").split(",") if folder]


def read(path: Path) -> Recipe:
    """The recipe in a flag file, whose comments all stand at its head."""
    lines = path.read_text().splitlines()
    head = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    flags = dict(line[2:].partition("=")[::2] for line in lines if line.startswith("--"))
    return Recipe(path.stem, head.replace("+-", "±"), flags)


def study_of(name: str) -> str:
    """The longest key of STUDIES that the name begins with, else its first word."""
    known = [key for key in STUDIES if name == key or name.startswith(f"{key}_")]
    return max(known, key=len, default=name.split("_")[0])


def page(recipes: Path, folder: Path, render: Callable[[Table], str]) -> str:
    """The gallery in Markdown.

    recipes: folder of the flag files.  folder: of the results, in which the page lies.
    render: of a table, its text.
    """
    found = [read(path) for path in sorted(recipes.glob("*.flags"))]
    found.sort(key=lambda recipe: recipe.entry != "train_teacher")  # teachers come first
    results_of = {recipe.name: where_result_is(recipe, found, folder) for recipe in found}
    studies = dict.fromkeys([*STUDIES, *(study_of(recipe.name) for recipe in found)])
    ordered = {key: [recipe for recipe in found if study_of(recipe.name) == key] for key in studies}
    lines = [HEAD, *overview(ordered, results_of)]
    for key, members in ordered.items():
        if members:
            lines += [f"## {STUDIES.get(key, key)}", ""]
        for recipe in members:
            lines += section(recipe, results_of[recipe.name], folder, render)
    return "\n".join(lines).rstrip() + "\n"


def where_result_is(recipe: Recipe, recipes: Sequence[Recipe], folder: Path) -> str:
    """The recipe under which the result of this one is committed: a teacher's may be with its students'; ""
    where there is none yet."""
    students = [other.name for other in recipes if recipe.name in other.teachers]
    done = [name for name in (recipe.name, *students) if (folder / name / "summary.json").is_file()]
    return done[0] if done else ""


def overview(studies: dict[str, list[Recipe]], results_of: dict[str, str]) -> list[str]:
    """A table of the studies; the recipes that have no result yet stand in a column of their own."""
    rows = []
    for key, members in studies.items():
        links = {r.name: f"[{r.name}](#{r.name}){' (reduced)' * r.reduced}" for r in members}
        done, left = (
            ", ".join(link for name, link in links.items() if bool(results_of[name]) == there)
            for there in (True, False)
        )
        if members:
            rows.append(f"| {STUDIES.get(key, key)} | {done} | {left} |")
    return ["| study | with results | no result yet |", "| --- | --- | --- |", *rows, ""]


def section(recipe: Recipe, result: str, folder: Path, render: Callable[[Table], str]) -> list[str]:
    """What the page says of one recipe.  result: of `where_result_is`."""
    name, rest = recipe.name, recipe.head[len(recipe.question) :].strip()
    command = f"./launch.sh {recipe.entry} --flagfile=experiments/recipes/{name}.flags"
    lines = [f"### {name}", "", f"**{plain(recipe.question)}** {plain(rest)}".strip(), ""]
    if recipe.teachers:
        lines += [f"After {', '.join(f'[{teacher}](#{teacher})' for teacher in recipe.teachers)}:", ""]
    lines += ["```sh", command, "```", ""]
    files = f"[flags](../recipes/{name}.flags)"
    if result != name:
        words = f"Its result is the row *teacher* of [{result}](#{result})." if result else "No result yet."
        return [*lines, f"{words} {files}", ""]
    tables = [render(part) for table in TABLES.values() if (part := part_of(table, name))]
    for table in tables or of_summary(folder / name):
        lines += [table, ""]
    drawn = [picture for picture in PICTURES if (folder / name / "figures" / f"{picture}.png").is_file()]
    if drawn:
        lines += [f'<img src="{name}/figures/{drawn[0]}.png" alt="{name}: {drawn[0]}" width="720">', ""]
    files += "".join(f", [{other}]({name}/figures/{other}.png)" for other in drawn[1:])
    return [*lines, f"{files}, [summary]({name}/summary.json), [config]({name}/config.json)", ""]


def part_of(table: Table, run: str) -> Table | None:
    """The rows that show a figure of this run, and of their columns those of the run and what is published
    beside them; None where there is no such row."""
    own = lambda cell: isinstance(cell, Ours) and cell.run == run  # noqa: E731
    rows = [row for row in table.rows if any(own(cell) for cell in row.cells)]
    kept = [
        number
        for number in range(len(table.columns))
        if any(own(row.cells[number]) or _published(row.cells[number]) for row in rows)
    ]
    if not rows:
        return None
    cells = [[row.cells[number] for number in kept] for row in rows]
    shown = [tuple(cell if own(cell) or _published(cell) else "" for cell in row) for row in cells]
    labelled = tuple(Row(row.label, cells) for row, cells in zip(rows, shown, strict=True))
    return Table(tuple(table.columns[number] for number in kept), labelled)


def _published(cell: str | Ours) -> bool:
    return isinstance(cell, str) and cell != ""


def of_summary(folder: Path) -> list[str]:
    """The settings of a run that no table of studies.py shows: accuracies in %."""
    config = run_config.read(folder)
    values = summary.lookup(json.loads((folder / "summary.json").read_text()))
    missing = any(setting["missing"] for setting in config["settings"])
    rows = []
    for setting in config["settings"][:MOST_SETTINGS]:
        name = setting["name"]
        correction = summary.preferred_correction(name, values)
        used = correction if correction != "none" else "-"
        keys = [("none", "all"), *([("none", "missing"), (used, "missing")] if missing else [])]
        cells = [show(values.get((name, "test", *key, "accuracy")), half=" ± ") for key in keys]
        wrong = show(values.get((name, "test", "none", "all", "errors")), 1, 1, " ± ")
        n = values[name, "test", "none", "all", "accuracy"].n
        rows.append([name, wrong, *cells, *([used] if missing else []), str(n)])
    heads = ["missing classes", "bias corrected", "correction"] if missing else []
    table = "\n".join(tabulate(["setting", "errors", "all classes", *heads, "n"], rows)).strip()
    left = len(config["settings"]) - MOST_SETTINGS
    return [table, *([f"{left} more settings are in the summary."] if left > 0 else [])]
