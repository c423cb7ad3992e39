"""Recipes: what a flag file says of itself, and the blocks of the pages that list recipes.

A recipe belongs to the study whose key its name begins with, and a study has a page in experiments/results/.

The head of a recipe is a comment: sentences, then facts, one a line: `# minutes: 20` (on 2 CPU cores),
`# source: ...` (who published figures), `# images: RUN --classes=3 ...` (what `synthesize` is given to make
the file of its transfer set, in one line or several), and any number of published figures in the units of the
pages, each with what it is of, as in `summary.json`:
    # published: T=20 omit=3, test_tuned, class 3, errors = 14
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.gallery.rows import Ours
from experiments.gallery.studies import TABLES
from experiments.reporting.content import count
from experiments.reporting.markdown import plain, show, table, tabulate
from kd_jax.io import run_config
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.summary import Key, Summary

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
    "missing_images": ("Images of an omitted class made from the teacher", "without_data.md"),
    "subliminal": ("Subliminal learning", "subliminal.md"),
}
"""The beginning of a recipe's name -> (title of its study, page); recipes of no study are on README.md."""

OTHERS = "others"
MOST_SETTINGS = 12
PICTURES = ("axis", "bias_curve", "class_bars")
"""Which figure of a run stands for its study: the first that there is."""


FACTS = ("source", "published", "minutes", "images")


class Recipe(NamedTuple):
    """A flag file: its name, the sentences at its head, its flags as {name: value}, and the facts of its
    head, each (one of FACTS, text)."""

    name: str
    head: str
    flags: dict[str, str]
    facts: tuple[tuple[str, str], ...] = ()

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
    def minutes(self) -> int | None:
        """Its time on 2 CPU cores, None where the head does not say."""
        found = [text for name, text in self.facts if name == "minutes"]
        return int(found[0]) if found and found[0].isdecimal() else None

    @property
    def published(self) -> dict[Key, str]:
        """Others' figures by (setting, "test", correction, class, metric), in % or as a number of errors.

        Errors: ValueError for a line of another form.
        """
        return dict(parse_published(text) for name, text in self.facts if name == "published")

    @property
    def datasets(self) -> list[str]:
        """What it reads: its dataset and the transfer sets that are neither noise nor made for it."""
        named = [self.flags.get("dataset", "digits"), self.flags.get("transfer", "own").removeprefix("own+")]
        named += self.flags.get("transfers", "own").split(",")
        made = {"own", "generator", self.images_file}
        return [name for name in dict.fromkeys(named) if name not in made and not name.endswith("_noise")]

    @property
    def images(self) -> list[str]:
        """The arguments of `synthesize`, without --out, that make its transfer set; [] where none is made."""
        return [word for name, text in self.facts if name == "images" for word in text.split()]

    @property
    def images_file(self) -> str:
        """The file that `synthesize` makes for it; "" where none is made."""
        return self.flags["transfer"].removeprefix("own+") if self.images else ""

    @property
    def study(self) -> str:
        """Of STUDIES, or OTHERS."""
        return study_of(self.name)

    @property
    def teachers(self) -> list[str]:
        """The recipes that must be run before this one."""
        folders = [*self.images[:1], *self.flags.get("teacher", "").split(",")]
        return list(dict.fromkeys(Path(folder).name for folder in folders if folder))


def study_of(name: str) -> str:
    """The longest key of STUDIES that a recipe's name begins with, or OTHERS."""
    known = [key for key in STUDIES if name == key or name.startswith(f"{key}_")]
    return max(known, key=len, default=OTHERS)


def read(path: Path) -> Recipe:
    """The recipe in a flag file, whose comments all stand at its head."""
    lines = path.read_text().splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    found = [re.fullmatch(rf"({'|'.join(FACTS)}): (.+)", line) for line in comments]
    head = " ".join(line for line, fact in zip(comments, found, strict=True) if not fact)
    flags = dict(line[2:].partition("=")[::2] for line in lines if line.startswith("--"))
    facts = tuple((fact[1], fact[2].replace("+-", "±")) for fact in found if fact)
    return Recipe(path.stem, head.replace("+-", "±"), flags, facts)


def parse_published(text: str) -> tuple[Key, str]:
    """A published figure and what it is of: "SETTING[, CORRECTION][, CLASS], METRIC = FIGURE", where CLASS is
    `omitted`, `seen` or `class` and its number.

    Errors: ValueError for another form.
    """
    what, equals, figure = text.rpartition(" = ")
    setting, *middle, metric = what.split(", ")
    correction = [part for part in middle if part in CORRECTIONS]
    class_ = [part.removeprefix("class ") for part in middle if part not in CORRECTIONS]
    if not (equals and figure and metric) or len(correction) > 1 or len(class_) > 1:
        raise ValueError(f"no published figure: {text}")
    (rule,), (part,) = correction or ["none"], class_ or ["all"]
    return Key(setting, "test", rule, part, metric), figure


def read_all(folder: Path) -> list[Recipe]:
    """All recipes, those of teachers first."""
    return sorted(map(read, folder.glob("*.flags")), key=lambda r: (r.entry != "train_teacher", r.name))


def blocks(folder: Path, results: Path) -> dict[str, Callable[[], str]]:
    """`recipes_<study>` lists the recipes of a study, `overview` all studies, `gallery` a picture of each."""
    every = read_all(folder)
    result_of = {recipe.name: where_result_is(recipe, every, results) for recipe in every}
    named: dict[str, Callable[[], str]] = {
        "overview": partial(overview, every, result_of),
        "gallery": partial(pictures, every, results),
    }
    for study in (*STUDIES, OTHERS):
        members = [recipe for recipe in every if recipe.study == study]
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


def pictures(recipes: Sequence[Recipe], results: Path) -> str:
    """A picture of each study that has one, below a link to its page."""
    lines = []
    for study, (title, page) in STUDIES.items():
        members = [recipe.name for recipe in recipes if recipe.study == study]
        drawn = [f"{name}/figures/{kind}.png" for kind in PICTURES for name in reversed(members)]
        if found := [path for path in drawn if (results / path).is_file()]:
            lines += [f"[{title}]({page}): {Path(found[0]).parts[0]}", "", f"![{title}]({found[0]})", ""]
    return "\n".join(lines).strip()


def listing(recipes: Sequence[Recipe], result_of: dict[str, str], results: Path) -> str:
    """The commands of some recipes, their questions and files, and the results that no other table shows."""
    commands = []
    for r in recipes:
        if r.images:
            commands += [f"./launch.sh synthesize {' '.join(r.images)} \\", f"    --out={r.images_file}"]
        commands.append(f"./launch.sh {r.entry} --flagfile=experiments/recipes/{r.name}.flags")
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
    listed = {recipe.name for recipe in recipes}
    others = sorted({teacher for recipe in recipes for teacher in recipe.teachers} - listed)
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
    settings = run_config.read(folder).settings
    summary = Summary.from_json(json.loads((folder / "summary.json").read_text()))
    omitted = any(setting.omitted for setting in settings)
    rows = []
    for setting in settings[:MOST_SETTINGS]:
        name = setting.name
        correction = summary.preferred_correction(name)
        used = correction if correction != "none" else "-"
        keys = [("all", "none"), *([("omitted", "none"), ("omitted", used)] if omitted else [])]
        cells = [show(summary.accuracy(name, *key), half=" ± ") for key in keys]
        wrong = show(summary.errors(name), 1, 1, " ± ")
        rows.append([name, wrong, *cells, *([used] if omitted else []), count(summary.accuracy(name))])
    heads = ["omitted classes", "bias corrected", "correction"] if omitted else []
    lines = "\n".join(tabulate(["setting", "errors", "all classes", *heads, "n"], rows)).strip().splitlines()
    left = len(settings) - MOST_SETTINGS
    return [*lines, *(["", f"{left} more settings are in the summary."] if left > 0 else [])]
