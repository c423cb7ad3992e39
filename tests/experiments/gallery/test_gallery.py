"""Every recipe stands on one page, with its command, its question and its committed files."""

import json
import re

import pytest

from experiments.gallery import pages, recipes
from kd_jax.io import run_config, run_files
from tests.io.test_run_folder import LABELS, SOFT, describe

TEXTS = {path.name: path.read_text() for path in sorted(pages.RESULTS.glob("*.md"))}
NAMES = sorted(path.stem for path in pages.RECIPES.glob("*.flags"))


def test_each_recipe_is_on_one_page_with_its_command():
    command = r"^\./launch\.sh (\w+) --flagfile=experiments/recipes/(\w+)\.flags$"
    commands = re.findall(command, "".join(TEXTS.values()), re.MULTILINE)
    assert sorted(name for _, name in commands) == NAMES
    assert ("subliminal", "subliminal_width") in commands


def test_each_study_is_on_the_page_that_the_overview_links():
    for study, (title, page) in recipes.STUDIES.items():
        assert f"<!-- table recipes_{study} -->" in TEXTS[page]
        assert f"[{title}]({page})" in TEXTS["README.md"]


def test_every_page_and_every_picture_is_linked():
    links = {link for text in TEXTS.values() for link in re.findall(r"\]\(([^)#]+)", text)}
    assert {*TEXTS} - {"README.md"} <= links
    drawn = {str(path.relative_to(pages.RESULTS)) for path in pages.RESULTS.glob("*/figures/*.png")}
    assert drawn <= links


def test_each_study_with_a_picture_shows_one_in_the_gallery():
    block = TEXTS["README.md"].partition("<!-- table gallery -->")[2].partition("<!-- end gallery -->")[0]
    shown = re.findall(r"!\[[^]]+\]\((\w+)/figures/\w+\.png\)", block)
    drawn = {recipes.study_of(path.parts[-3]) for path in pages.RESULTS.glob("*/figures/*.png")}
    assert sorted(map(recipes.study_of, shown)) == sorted(drawn & {*recipes.STUDIES})


@pytest.fixture
def folders(tmp_path):
    """Three recipes: a teacher, its students, of which there is a result, and one without a result."""
    flags = tmp_path / "recipes"
    flags.mkdir()
    (flags / "toy_teacher.flags").write_text("# A teacher of toys. Paper: 3 +- 1 %.\n--learning_rate=1\n")
    (flags / "toy_students.flags").write_text(
        "# Toys: do students know\n# them? Reduced: 3 seeds.\n"
        "--learning_rates=1\n--teacher=runs/toy_teacher\n"
    )
    (flags / "hidden_toys.flags").write_text("# Hidden?\n--transfers=own\n")
    folder = tmp_path / "results" / "toy_students"
    run_config.write(folder, describe())
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
        key | {"class": "omitted", "mean": 0.25, "low": 0.125, "high": 0.375},
        key | corrected | {"mean": 0.9, "low": 0.9, "high": 0.9},
        key | corrected | {"class": "omitted", "mean": 0.5, "low": 0.375, "high": 0.55},
    ]
    key |= {"setting": LABELS, "mean": 0.5, "low": None, "high": None}
    run_files.write(folder / "summary.json", json.dumps({"results": [*entries, key]}).encode())
    for name in ("class_bars", "axis"):
        run_files.write(folder / "figures" / f"{name}.png", b"")
    return flags, tmp_path / "results"


def test_the_list_of_recipes(folders):
    blocks = recipes.blocks(*folders)
    others = blocks["recipes_others"]()
    of_teacher, of_students = (f"./launch.sh {entry} --flagfile=experiments/recipes/toy_" for entry in
                               ("train_teacher", "distill"))  # fmt: skip
    assert others.index(of_teacher) < others.index(of_students)  # in the order in which they are run
    assert "| A teacher of toys. | row *teacher* of toy_students |" in others
    files = "[axis](toy_students/figures/axis.png), [class_bars](toy_students/figures/class_bars.png)"
    assert f"| Toys: do students know them? (Reduced.) | {files}, [summary]" in others
    assert "| Hidden? | no result yet |" in blocks["recipes_hidden"]()
    # No table of studies.py shows the result, so it is here.
    assert (
        f"| {SOFT} | 3.0 (no spread seen) | 90.00 ± 1.50 | 25.00 ± 12.5 | 50.00 ± 12.5 | prior_matched | 5 |"
        in others
    )


def test_a_teacher_of_another_study_is_named(folders):
    (folders[0] / "hidden_more.flags").write_text(
        "# More?\n--learning_rates=1\n--teacher=runs/hinton_teacher\n"
    )
    needed = "Run these recipes of teachers first: `hinton_teacher` ([hinton.md](hinton.md))."
    found = recipes.blocks(*folders)
    assert needed in found["recipes_hidden"]() and "of teachers first" not in found["recipes_others"]()


def test_the_overview(folders):
    overview = recipes.blocks(*folders)["overview"]()
    assert "| Other recipes | toy_teacher, toy_students (reduced) |  |" in overview
    assert re.search(r"\(hidden_signals\.md\) \|  \| hidden_toys \|", overview)


def test_a_head_is_read_as_text(folders):
    teacher = next(r for r in recipes.read_all(folders[0]) if r.name == "toy_teacher")
    assert teacher.head == "A teacher of toys. Paper: 3 ± 1 %." and teacher.question == "A teacher of toys."
