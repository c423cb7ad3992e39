"""Every recipe parses, names what exists, says at its head what it asks; its teacher is one of the others."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments.gallery import recipes
from experiments.gallery import rows as rows_of
from experiments.gallery.studies import TABLES
from kd_jax import losses, models
from kd_jax.train import optim

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {path.stem: path for path in sorted((ROOT / "experiments" / "recipes").glob("*.flags"))}
PARSE = """
import copy, importlib, json, sys
from absl import flags
importlib.import_module(sys.argv[1])
found = {}
for path in sys.argv[2:]:
    own = copy.deepcopy(flags.FLAGS)
    own([sys.argv[1], f"--flagfile={path}"])
    found[path] = own.flag_values_dict()
print(json.dumps(found))
"""


def entry_of(name):
    """The students' flags are lists, and named so."""
    text = RECIPES[name].read_text()
    if "--transfers=" in text:
        return "subliminal"
    return "distill" if "--learning_rates=" in text else "train_teacher"


@pytest.fixture(scope="module")
def parsed():
    """The flags of each recipe: entry points share names, so each is imported by a process of its own."""
    found = {}
    for entry in ("distill", "train_teacher", "subliminal"):
        names = [name for name in RECIPES if entry_of(name) == entry]
        command = [sys.executable, "-c", PARSE, f"experiments.{entry}", *(str(RECIPES[n]) for n in names)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr[-500:]
        found |= dict(zip(names, json.loads(done.stdout).values(), strict=True))
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name, parsed):
    lines, values = RECIPES[name].read_text().splitlines(), parsed[name]
    assert lines[0].startswith("# ") and max(map(len, lines)) <= 120
    heads = [number for number, line in enumerate(lines) if line.startswith("#")]
    assert heads == list(range(len(heads)))  # at the head, and nowhere else
    assert values["out"] == f"runs/{name}"
    for folder in (values.get("teacher") or "").split(","):
        assert not folder or Path(folder).name in RECIPES
    size = values["image_size"] or 32
    channels = 1 if values["dataset"] in ("digits", "mnist", "fashion_mnist") else 3
    for spec in values["model"].split(","):  # several of subliminal alone
        model = models.build(spec, 10, normalize=None)
        init = lambda key, model=model: models.init_variables(model, key, (size, size, channels))  # noqa: E731
        assert jax.tree.leaves(jax.eval_shape(init, jax.random.key(0)))
    assert values["optimizer"] in optim.OPTIMIZERS and values["schedule"] in optim.SCHEDULES
    assert {*values.get("losses", "soft").split(","), *values.get("loss", "soft").split(",")} <= set(
        losses.LOSSES
    )
    features = values.get("feature_loss", "none").split(",")
    assert {*features} <= {"none", *losses.FEATURE_LOSSES}
    if entry_of(name) == "subliminal":  # no default of the entry point's own decides anything
        named = ("seeds", "model", "epochs", "batch_size", "schedule", "dataset")
        assert all(f"--{flag}=" in RECIPES[name].read_text() for flag in named)


@pytest.mark.parametrize("name", RECIPES)
def test_the_facts_of_a_head(name):
    """Its time; and published figures, each with its source, as the tables of the pages have them."""
    recipe = recipes.read(RECIPES[name])
    assert recipe.minutes is not None and recipe.minutes > 0
    assert len(recipe.published) == sum(fact == "published" for fact, _ in recipe.facts)
    assert bool(recipe.published) == any(fact == "source" for fact, _ in recipe.facts)
    rows = {
        (cell.setting, "test", cell.correction, cell.class_, cell.metric): row.cells
        for table in TABLES.values()
        for row in table.rows
        for cell in row.cells
        if isinstance(cell, rows_of.Ours) and cell.run == name
    }
    for key, figure in recipe.published.items():
        beside = [cell for cell in rows.get(key, ()) if isinstance(cell, str)]
        assert key not in rows or figure in beside, (key, figure)


def test_the_students_see_what_their_teacher_saw(parsed):
    """The same images at the same size: a teacher is asked about what its students see."""
    for name, values in parsed.items():
        for folder in filter(None, (values.get("teacher") or "").split(",")):
            teacher = parsed[Path(folder).name]
            for flag in ("dataset", "image_size", "skip_unreadable"):
                assert values[flag] == teacher[flag], (name, flag)


def test_the_yardstick_is_as_published(parsed):
    """Tian et al. 2020, section 4 and their code: 240 epochs, /10 after 150, 180 and 210, of 782 updates."""
    for name in ("cifar100_teacher", "cifar100_students"):
        values = parsed[name]
        per_epoch = -(-50_000 // values["batch_size"])
        schedule = optim.SCHEDULES[values["schedule"]](per_epoch * values["epochs"])
        rates = [
            float(schedule(epoch * per_epoch + change)) for epoch in (150, 180, 210) for change in (-1, 0)
        ]
        assert per_epoch == 782 and values["epochs"] == 240 and values["validation_fraction"] == 0
        assert rates == pytest.approx([1, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert (values["temperatures"], values["alphas"]) == ("4", "0,0.9")
