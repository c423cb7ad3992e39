"""The pages say what the committed results say, and name only flags, files and headings that exist."""

import json
import re

import pytest

from experiments.gallery import pages, recipes, rows, studies
from kd_jax.errors import InputError
from kd_jax.io import run_files
from tests.io.test_run_folder import SOFT

GUIDES = [pages.REPOSITORY / folder / "README.md" for folder in ("experiments", "kd_jax", "tests")]
PAGES = {str(path.relative_to(pages.REPOSITORY)): path.read_text() for path in [*pages.paths(), *GUIDES]}
BLOCKS = pages.blocks(pages.RECIPES, pages.RESULTS)
HEADS = "".join(recipe.head for recipe in recipes.read_all(pages.RECIPES))
SOURCES = "".join(path.read_text() for path in (pages.REPOSITORY / "experiments").rglob("*.py"))
# Flags of absl, launch.sh, pytest, ruff, sha256sum, TensorBoard, the fault campaign and gcloud.
OTHERS = {"help", "flagfile", "processes", "all", "check", "logdir", "worker", "command"}


@pytest.mark.parametrize("page", PAGES)
def test_every_table_is_what_the_committed_results_say(page):
    assert pages.fill(PAGES[page], BLOCKS, page) == PAGES[page], f"{page} is behind: run ./launch.sh tables"


def test_every_table_is_on_a_page():
    shown = {name for text in PAGES.values() for name in re.findall(r"<!-- table (\w+) -->", text)}
    assert shown == {*BLOCKS}


@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- table" in PAGES[page]])
def test_every_figure_in_the_text_is_in_a_table_of_the_page(page):
    """Numbers with a fraction and % or ±: ours are from the page's own blocks, others' from the recipes."""
    block = re.compile(r"<!-- table (\w+) -->.*?<!-- end \1 -->", re.DOTALL)
    blocks, prose = "".join(m[0] for m in block.finditer(PAGES[page])), block.sub("", PAGES[page])
    assert [
        figure for figure in re.findall(r"\d+\.\d+(?= [%±])", prose) if figure not in blocks + HEADS
    ] == []


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_or_a_heading(page):
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (pages.REPOSITORY / page).parent / name if name else pages.REPOSITORY / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), target


def test_every_file_that_is_named_exists():
    named = {name for text in PAGES.values() for name in re.findall(r"experiments/recipes/\w+\.flags", text)}
    assert named and [name for name in named if not (pages.REPOSITORY / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_is_defined(page):
    text = re.sub("#SBATCH.*|^ruff .*", "", PAGES[page])
    for flag in {*re.findall(r"(?<![\w-])--([a-z]\w*)(?!-)", text)} - OTHERS - {"parts", "format"}:
        assert re.search(rf'DEFINE_\w+\(\s*"{flag}"', SOURCES), flag


def test_the_guide_names_every_flag():
    defined = {*re.findall(r'DEFINE_\w+\(\s*"(\w+)"', SOURCES)}
    assert sorted(defined - {*re.findall(r"--(\w+)", PAGES["experiments/README.md"])}) == []


def test_the_readme_is_short():
    text = PAGES["README.md"]
    assert len(text.splitlines()) <= 250 and len(text.encode()) <= 15_000


# How the blocks are written, on text and results of our own.


def test_a_changed_figure_is_noticed():
    text = PAGES["README.md"]
    figure = re.search(r"\d+\.\d+ ± \d+\.\d+", text)
    assert figure
    changed = text[: figure.start()] + "1" + text[figure.start() :]
    assert pages.fill(changed, BLOCKS, "README.md") == text


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("<!-- table toy -->\n<!-- end toy -->", "no results.*toy"),
        ("<!-- table one -->\n1\n", "malformed"),
        ("<!-- table one -->\n<!-- end one -->\n" * 2, "malformed"),
    ],
    ids=["unknown", "endless", "twice"],
)
def test_a_wrong_block_is_named(text, wrong):
    with pytest.raises(InputError, match=wrong):
        pages.fill(text, {"one": lambda: "1"}, "page.md")


OURS = rows.Ours("toy", SOFT, class_="all", metric="accuracy")


def write_summary(folder, **numbers):
    entry = {"setting": SOFT, "split": "test", "correction": "none", "class": "all", "metric": "accuracy"}
    run_files.write(folder / "summary.json", json.dumps({"results": [entry | numbers]}).encode())


def test_a_table_has_a_head_for_every_cell(tmp_path):
    write_summary(tmp_path / "toy", mean=0.9, low=0.885, high=0.915, n=5)
    table = rows.Table(("paper", "ours"), (rows.Row("a student", ("89", OURS)),))
    assert pages.render(table, tmp_path).splitlines() == [
        "|  | paper | ours |",
        "| --- | --- | --- |",
        "| a student | 89 | 90.00 ± 1.50 (5) |",
    ]
    assert all(len(row.cells) == len(t.columns) for t in studies.TABLES.values() for row in t.rows)


def test_the_headline_holds_every_row_that_it_names():
    labels = [row.label for row in studies.TABLES["headline"].rows]
    assert labels == [*studies.HEADLINE]


def test_a_cell_is_mean_half_width_and_number(tmp_path):
    write_summary(tmp_path / "toy", mean=0.9, low=0.885, high=0.915, n=5)
    assert pages.show(OURS, tmp_path) == "90.00 ± 1.50 (5)"
    with pytest.raises(InputError, match="no such result"):
        pages.show(OURS._replace(class_="3"), tmp_path)
    with pytest.raises(InputError, match=r"not committed.*tables --add=runs/other"):
        pages.show(OURS._replace(run="other"), tmp_path)


def test_a_cell_of_one_run_has_no_interval(tmp_path):
    write_summary(tmp_path / "toy", mean=0.9, low=None, high=None, n=1)
    assert pages.show(OURS, tmp_path) == "90.00 (1)"
