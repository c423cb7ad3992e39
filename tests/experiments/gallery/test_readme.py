"""The README's tables say what the committed results say, and its commands name what exists."""

import json
import re

import pytest
from absl import flags

from experiments import tables
from experiments.gallery import rows, studies
from kd_jax.io import run_config, run_files, run_folder
from kd_jax.io.run_folder import BiasRow
from kd_jax.types import InputError
from tests.io.test_run_folder import LABELS, SOFT, accuracies, make_config


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
    text = re.sub("#SBATCH.*", "", tables.README.read_text())
    sources = "".join(path.read_text() for path in (tables.REPOSITORY / "experiments").glob("*.py"))
    others = {
        "help",
        "flagfile",
        "version",
        "processes",
        "check",
        "logdir",
    }  # absl's, pytest's, launch.sh's, sha256sum's, TensorBoard's
    for flag in set(re.findall(r"`?--(\w+)", text)) - others:
        assert flag in flags.FLAGS or re.search(rf'DEFINE_\w+\(\s*"{flag}"', sources), flag


# How the tables are made, on results of our own.

OURS = rows.Ours("toy", SOFT, class_="all", metric="accuracy")


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """An empty experiments/results/, and README.md without a table."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tables, "README", tmp_path / "README.md")
    return tmp_path / "results"


def write_summary(folder, **numbers):
    entry = {"setting": SOFT, "split": "test", "correction": "none", "class": "all", "metric": "accuracy"}
    run_files.write(folder / "summary.json", json.dumps({"results": [entry | numbers]}).encode())


def test_a_table_has_a_head_for_every_cell(committed):
    write_summary(committed / "toy", mean=0.9, low=0.885, high=0.915, n=5)
    table = rows.Table(("paper", "ours"), (rows.Row("a student", ("89", OURS)),))
    assert tables.render(table).splitlines() == [
        "| | paper | ours |",
        "|---|---|---|",
        "| a student | 89 | 90.00 ± 1.50 (5) |",
    ]
    assert all(len(row.cells) == len(t.columns) for t in studies.TABLES.values() for row in t.rows)


def test_a_cell_is_mean_half_width_and_number(committed):
    write_summary(committed / "toy", mean=0.9, low=0.885, high=0.915, n=5)
    assert tables.show(OURS) == "90.00 ± 1.50 (5)"
    with pytest.raises(InputError, match="no such result"):
        tables.show(OURS._replace(class_="3"))


def test_a_cell_of_one_run_has_no_interval(committed):
    write_summary(committed / "toy", mean=0.9, low=None, high=None, n=1)
    assert tables.show(OURS) == "90.00 (1)"


def write_curve(folder, *others):
    """Students of two teachers, by hand: at +3.5, classes 0 to 2 of the three seeds; class 1 is undefined."""
    run_config.write(folder, make_config(num_teachers=2))
    at = {0: (0.9, 0.4), 1: (0.7, 0.3), 2: (0.7, 0.6)}
    curve = [
        BiasRow(SOFT, seed, 3.5, class_, accuracy)
        for seed, (first, last) in at.items()
        for class_, accuracy in enumerate((first, float("nan"), last))
    ]
    run_folder.write_bias_curve(folder, [*curve, *others])


def test_the_fixed_bias_by_hand(tmp_path, committed):
    write_curve(tmp_path / "toy", BiasRow(SOFT, 0, 3.25, 2, 1.0))
    tables.write("toy", tables.outcome(tmp_path / "toy"))
    # Teacher 0 taught seeds 0 and 2, teacher 1 seed 1: class 2 is 0.5 and 0.3, mean 0.4, sd 0.1 sqrt(2), t
    # quantile 12.706: half width 1.2706. The mean of the classes is 0.65, 0.5, 0.65; of the teachers, 0.65
    # and 0.5.
    fixed = OURS._replace(correction=rows.FIXED)
    assert tables.show(fixed._replace(class_="2")) == "40.00 ± 127.06 (2)"
    assert tables.show(fixed._replace(metric="macro_accuracy")) == "57.50 ± 95.30 (2)"
    assert {path.name for path in (committed / "toy").iterdir()} == {"config.json", "fixed_bias.json"}


def test_a_run_without_that_bias_has_no_such_file(tmp_path, committed):
    run_config.write(tmp_path / "toy", make_config())
    tables.write("toy", tables.outcome(tmp_path / "toy"))
    run_folder.write_bias_curve(tmp_path / "toy", [BiasRow(SOFT, 0, 3.25, 2, 1.0)])
    tables.write("toy", tables.outcome(tmp_path / "toy"))
    assert [path.name for path in (committed / "toy").iterdir()] == ["config.json"]


def test_of_a_summary_the_test_split_is_added_and_little_of_a_class(tmp_path, committed):
    run_config.write(tmp_path / "toy", make_config())
    key = {"setting": SOFT, "correction": "none", "mean": 0.5, "low": None, "high": None, "n": 1}
    entries = [
        key | {"split": split, "class": part, "metric": metric}
        for split in ("validation", "test")
        for part in ("all", "3")
        for metric in ("accuracy", "errors", "precision", "total")
    ]
    content = {"format": 1, "results": entries, "paired": []}
    run_files.write(tmp_path / "toy" / "summary.json", json.dumps(content).encode())
    tables.write("toy", tables.outcome(tmp_path / "toy"))
    added = json.loads((committed / "toy" / "summary.json").read_text())
    assert added | {"results": []} == content | {"results": []}
    assert [(entry["class"], entry["metric"]) for entry in added["results"]] == [
        ("all", "accuracy"),
        ("all", "errors"),
        ("all", "precision"),
        ("3", "accuracy"),
        ("3", "errors"),
    ]


def test_a_summary_that_changed_is_made_anew(tmp_path, committed):
    folder = tmp_path / "toy"
    run_config.write(folder, make_config())
    run_folder.write_results(folder, accuracies(LABELS, [0.5, 0.5, 0.5]) + accuracies(SOFT, [0.5, 0.5, 0.5]))
    run_files.write(folder / "summary.json", b'{"results": []}')
    tables.write("toy", tables.outcome(folder))
    added = json.loads((committed / "toy" / "summary.json").read_text())
    assert {(entry["setting"], entry["mean"]) for entry in added["results"]} == {(LABELS, 0.5), (SOFT, 0.5)}


def test_a_damaged_run_is_not_added(tmp_path, committed):
    write_curve(tmp_path / "toy")
    path = tmp_path / "toy" / "bias_curve.csv"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"bias_curve\.csv"):
        tables.write("toy", tables.outcome(tmp_path / "toy"))
    assert not committed.exists()


def test_a_block_without_results_is_no_silence(committed):
    with pytest.raises(InputError, match=r"has no results.*none of speed"):
        tables.fill("<!-- table speed -->\n<!-- end speed -->")
