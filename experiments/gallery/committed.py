"""The small files of a run that are committed to experiments/results/.

Of summary.json the test split is copied, without what is rarely asked of a single class. fixed_bias.json has
the format of summary.json: the test accuracy of each class, and their mean, where FIXED_BIAS is added to the
logits of the omitted classes (correction FIXED). It is derived from bias_curve.csv, which is too large to
commit.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from experiments.gallery.pages import FIXED_FILE
from experiments.gallery.rows import FIXED, FIXED_BIAS
from kd_jax.errors import InputError
from kd_jax.io import run_config, run_files, run_folder
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import BiasRow, ResultRow
from kd_jax.stats.summary import Key, Summary, summarise

SMALL = (
    "config.json", "summary.json", "representation.csv",
    "figures/axis.png", "figures/bias_curve.png", "figures/class_bars.png", "figures/features.png",
)  # fmt: skip


def outcome(folder: Path) -> dict[str, bytes]:
    """The small files of a run folder; fixed_bias.json is derived where it has a curve.

    Errors: InputError when it is no run folder, or a file of it is malformed.
    """
    description = run_config.read(folder)
    held = {name: run_files.read(folder / name) for name in SMALL}
    files = {name: content for name, content in held.items() if content is not None}
    try:
        summary = Summary.from_json(json.loads(files.get("summary.json", b'{"results": []}')))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / 'summary.json'} is damaged", "one that `report` wrote", error) from None
    tested: list[ResultRow] = []
    if (folder / "results.csv").is_file():  # for which its sha256 vouches
        tested = run_folder.read_results(folder, description)
        summary = summarise(tested, description)
    if "summary.json" in files:
        files["summary.json"] = run_files.to_json(summary.only(is_published).to_json())
    if (folder / "bias_curve.csv").is_file():
        rows = [row for row in run_folder.read_bias_curve(folder, description) if row.bias == FIXED_BIAS]
        if rows:
            files[FIXED_FILE] = run_files.to_json(at_fixed_bias(rows, description, tested).to_json())
    return files


def is_published(key: Key) -> bool:
    """Whether an interval of summary.json is committed: of the test split, and of a single class its
    accuracy and errors alone."""
    of_class = key.class_.isdigit() and key.metric not in ("accuracy", "errors")
    return key.split == "test" and key.metric != "support" and not of_class


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Makes the folder hold these files, and none of an older run's."""
    for stale in {*SMALL, FIXED_FILE} - set(files):
        (folder / stale).unlink(missing_ok=True)
    for file, content in files.items():
        run_files.write(folder / file, content)


def at_fixed_bias(
    curve: Sequence[BiasRow], description: RunDescription, tested: Sequence[ResultRow]
) -> Summary:
    """The content of fixed_bias.json from the rows of a single bias; intervals as in summary.json.

    tested: the rows of results.csv, which hold the number of examples of each class.
    """
    by_run: dict[tuple[str, int], list[float]] = {}
    rows = []
    for row in curve:
        if not row.class_.isdigit():  # sets of classes, which the csv has for the figures
            continue
        key = row.setting, row.seed, "test", FIXED
        rows.append(ResultRow(*key, row.class_, "accuracy", row.accuracy))
        if not math.isnan(row.accuracy):
            by_run.setdefault(key[:2], []).append(row.accuracy)
    for (setting, seed), accuracies in by_run.items():
        mean = math.fsum(accuracies) / len(accuracies)
        rows.append(ResultRow(setting, seed, "test", FIXED, "all", "macro_recall", mean))
    totals = [row for row in tested if (row.split, row.correction, row.metric) == ("test", "none", "support")]
    return summarise([*rows, *totals], description).only(lambda key: key.metric != "support")
