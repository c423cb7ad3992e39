"""The README's tables say what the committed results say, and its commands name what exists."""

import re

import pytest
from absl import flags

from experiments import tables
from kd_jax.types import InputError


def test_every_table_is_what_the_committed_results_say():
    text = tables.README.read_text()
    assert tables.fill(text) == text, "README.md is behind experiments/results/: run ./launch.sh tables"


def test_a_changed_figure_is_noticed():
    text = tables.README.read_text()
    figure = re.search(r"\d+\.\d+ ± \d+\.\d+", text)
    assert figure
    changed = text[: figure.start()] + "1" + text[figure.start() :]
    assert tables.fill(changed) == text


def test_a_missing_block_is_named():
    with pytest.raises(InputError, match="quickstart"):
        tables.fill("no table here")


def test_every_recipe_named_in_the_readme_exists_and_every_file_linked():
    text = tables.README.read_text()
    named = re.findall(r"experiments/(?:recipes|results)/[\w./]+\.(?:flags|png)", text)
    assert named
    for name in named:
        assert (tables.REPOSITORY / name).is_file(), name


def test_every_flag_in_the_readme_is_defined():
    text = tables.README.read_text()
    sources = "".join(path.read_text() for path in (tables.REPOSITORY / "experiments").glob("*.py"))
    for flag in set(re.findall(r"`?--(\w+)", text)) - {"help", "flagfile"}:
        assert flag in flags.FLAGS or re.search(rf'DEFINE_\w+\(\s*"{flag}"', sources), flag
