"""The files of a run that are committed: what is copied, what is derived, what is refused."""

import json

import pytest

from experiments.gallery import committed, pages, rows
from kd_jax.errors import InputError
from kd_jax.io import run_config, run_files, run_folder
from kd_jax.stats.rows import BiasRow
from tests.io.test_run_folder import LABELS, SOFT, accuracies, describe

OURS = rows.Ours("toy", SOFT, class_="all", metric="accuracy")


@pytest.fixture
def results(tmp_path):
    """Where experiments/results/ would be."""
    return tmp_path / "results"


def write_curve(folder, *others):
    """Students of two teachers, by hand: at +3.5, classes 0 to 2 of the three seeds; class 1 is undefined."""
    run_config.write(folder, describe(num_teachers=2))
    at = {0: (0.9, 0.4), 1: (0.7, 0.3), 2: (0.7, 0.6)}
    curve = [
        BiasRow(SOFT, seed, 3.5, str(class_), accuracy)
        for seed, (first, last) in at.items()
        for class_, accuracy in enumerate((first, float("nan"), last))
    ]
    run_folder.write_bias_curve(folder, [*curve, *others])


def test_the_fixed_bias_by_hand(tmp_path, results):
    write_curve(tmp_path / "toy", BiasRow(SOFT, 0, 3.25, "2", 1.0))
    committed.write(results / "toy", committed.outcome(tmp_path / "toy"))
    # Teacher 0 taught seeds 0 and 2, teacher 1 seed 1: class 2 is 0.5 and 0.3, mean 0.4, sd 0.1 sqrt(2), t
    # quantile 12.706: half width 1.2706. The mean of the classes is 0.65, 0.5, 0.65; of the teachers, 0.65
    # and 0.5.
    fixed = OURS._replace(correction=rows.FIXED)
    assert pages.show(fixed._replace(class_="2"), results) == "40.00 ± 127.06 (2)"
    assert pages.show(fixed._replace(metric="macro_recall"), results) == "57.50 ± 95.30 (2)"
    assert {path.name for path in (results / "toy").iterdir()} == {"config.json", "fixed_bias.json"}


def test_a_run_without_that_bias_has_no_such_file(tmp_path, results):
    run_config.write(tmp_path / "toy", describe())
    committed.write(results / "toy", committed.outcome(tmp_path / "toy"))
    run_folder.write_bias_curve(tmp_path / "toy", [BiasRow(SOFT, 0, 3.25, "2", 1.0)])
    committed.write(results / "toy", committed.outcome(tmp_path / "toy"))
    assert [path.name for path in (results / "toy").iterdir()] == ["config.json"]


def test_of_a_summary_the_test_split_is_added_and_little_of_a_class(tmp_path, results):
    run_config.write(tmp_path / "toy", describe())
    key = {"setting": SOFT, "correction": "none", "mean": 0.5, "low": None, "high": None, "n": 1}
    entries = [
        key | {"split": split, "class": part, "metric": metric}
        for split in ("validation", "test")
        for part in ("all", "3")
        for metric in ("accuracy", "errors", "precision", "support")
    ]
    content = {"format": 1, "results": entries, "paired": []}
    run_files.write(tmp_path / "toy" / "summary.json", json.dumps(content).encode())
    committed.write(results / "toy", committed.outcome(tmp_path / "toy"))
    added = json.loads((results / "toy" / "summary.json").read_text())
    assert added | {"results": []} == {"format": 2, "results": [], "paired": [], "diverged": []}
    assert [(entry["class"], entry["metric"]) for entry in added["results"]] == [
        ("all", "accuracy"),
        ("all", "errors"),
        ("all", "precision"),
        ("3", "accuracy"),
        ("3", "errors"),
    ]


def test_a_summary_that_changed_is_made_anew(tmp_path, results):
    folder = tmp_path / "toy"
    run_config.write(folder, describe())
    run_folder.write_results(folder, accuracies(LABELS, [0.5, 0.5, 0.5]) + accuracies(SOFT, [0.5, 0.5, 0.5]))
    run_files.write(folder / "summary.json", b'{"results": []}')
    committed.write(results / "toy", committed.outcome(folder))
    added = json.loads((results / "toy" / "summary.json").read_text())
    assert {(entry["setting"], entry["mean"]) for entry in added["results"]} == {(LABELS, 0.5), (SOFT, 0.5)}


def test_a_damaged_run_is_not_added(tmp_path, results):
    write_curve(tmp_path / "toy")
    path = tmp_path / "toy" / "bias_curve.csv"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"bias_curve\.csv"):
        committed.write(results / "toy", committed.outcome(tmp_path / "toy"))
    assert not results.exists()
