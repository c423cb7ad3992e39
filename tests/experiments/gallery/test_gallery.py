"""The gallery: every recipe once, with what its head says and what is committed of it, and no link astray."""

import json
import re

import pytest

from experiments import tables
from experiments.gallery import page, rows
from kd_jax.io import run_config, run_files
from tests.io.test_run_folder import LABELS, SOFT, make_config

PAGE = tables.GALLERY.read_text()
RECIPES = [path.stem for path in sorted(tables.RECIPES.glob("*.flags"))]


def test_the_page_is_what_recipes_and_results_say():
    now = page.page(tables.RECIPES, tables.RESULTS, tables.render)
    assert now == PAGE, "experiments/results/README.md is behind: run ./launch.sh tables"


def test_each_recipe_stands_there_once_with_its_command():
    assert sorted(re.findall(r"^### (.*)$", PAGE, re.MULTILINE)) == RECIPES
    command = r"^\./launch\.sh (\w+) --flagfile=experiments/recipes/(\w+)\.flags$"
    commands = re.findall(command, PAGE, re.MULTILINE)
    assert sorted(name for _, name in commands) == RECIPES
    assert ("subliminal", "subliminal_width") in commands


def test_every_link_and_picture_is_there():
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", PAGE)
    assert links and all((tables.RESULTS / (link or source)).is_file() for link, source in links)
    anchors = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert anchors == set(RECIPES)
    assert "(experiments/results/README.md)" in tables.README.read_text()


@pytest.fixture
def folders(tmp_path):
    """Three recipes: a teacher, its students, of which there is a result, and one of an unknown study."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "toy_teacher.flags").write_text("# A teacher of toys. Paper: 3 +- 1 %.\n--learning_rate=1\n")
    (recipes / "toy_students.flags").write_text(
        "# Toys: do students know\n# them? Reduced: 3 seeds.\n"
        "--learning_rates=1\n--teacher=runs/toy_teacher\n"
    )
    (recipes / "hidden_toys.flags").write_text("# Hidden?\n--transfers=own\n")
    folder = tmp_path / "results" / "toy_students"
    run_config.write(folder, make_config())
    key = {
        "setting": SOFT,
        "split": "test",
        "correction": "none",
        "class": "all",
        "metric": "accuracy",
        "n": 5,
    }
    corrected = {"correction": "prior_matched"}
    entries = [
        key | {"mean": 0.9, "low": 0.885, "high": 0.915},
        key | {"metric": "errors", "mean": 3.0, "low": None, "high": None},
        key | {"class": "missing", "mean": 0.25, "low": 0.125, "high": 0.375},
        key | corrected | {"mean": 0.9, "low": 0.9, "high": 0.9},
        key | corrected | {"class": "missing", "mean": 0.5, "low": 0.375, "high": 0.55},
    ]
    key |= {"setting": LABELS, "mean": 0.5, "low": None, "high": None}
    run_files.write(folder / "summary.json", json.dumps({"results": [*entries, key]}).encode())
    for name in ("class_bars", "axis"):
        run_files.write(folder / "figures" / f"{name}.png", b"")
    return recipes, tmp_path / "results"


def test_what_a_recipe_without_a_table_shows(folders):
    text = page.page(*folders, tables.render)
    of_teacher, of_students = text.split("### toy_teacher")[1].split("### toy_students")
    assert "**A teacher of toys.** Paper: 3 ± 1 %." in of_teacher
    assert "./launch.sh train_teacher --flagfile=experiments/recipes/toy_teacher.flags\n" in of_teacher
    assert "the row *teacher* of [toy_students](#toy_students)" in of_teacher
    assert "**Toys: do students know them?** Reduced: 3 seeds." in of_students
    assert "After [toy_teacher](#toy_teacher):" in of_students
    row = "3.0 (no spread seen) | 90.00 ± 1.50 | 25.00 ± 12.5 | 50.00 ± 12.5 | prior_matched | 5"
    assert f"| {SOFT} | {row} |" in of_students  # of sides that differ, the larger
    assert 'src="toy_students/figures/axis.png"' in of_students
    assert "[class_bars](toy_students/figures/class_bars.png)" in of_students
    assert "| toy | [toy_teacher](#toy_teacher), [toy_students](#toy_students) (reduced) |  |" in text
    assert text.index("## Hidden signals") < text.index("## toy")  # an unknown study comes last
    assert "No result yet." in text.split("### hidden_toys")[1].split("##")[0]


def test_the_part_of_a_table_that_is_of_one_run():
    of = lambda run: rows.Ours(run, "labels")  # noqa: E731
    three = (
        rows.Row("one", ("1", "", of("a"), of("b"))),
        rows.Row("two", ("", "2", of("b"), "")),
        rows.Row("three", ("3", "", of("a"), "")),
    )
    table = rows.Table(("paper", "others", "ours", "ours, too"), three)
    kept = (rows.Row("one", ("1", of("a"))), rows.Row("three", ("3", of("a"))))
    assert page.part_of(table, "a") == rows.Table(("paper", "ours"), kept)
    assert page.part_of(table, "c") is None
