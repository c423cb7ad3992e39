"""The tables of a distillation in its run folder, from what was measured of its students."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from experiments.settings.distill import Setting
from kd_jax.evaluate.evaluate import EvaluationOutcome
from kd_jax.io import confusions, run_folder, tidy
from kd_jax.stats.rows import Confusion, ResultRow

Runs = Sequence[tuple[Setting, int]]
"""The setting and the seed of each run."""


def write(
    out: Path,
    runs: Runs,
    history: dict,
    outcome: EvaluationOutcome,
    together: dict[str, np.ndarray],
    grid: np.ndarray,
    labels: np.ndarray,
    of_teachers: tuple[list[ResultRow], list[Confusion]],
) -> list[ResultRow]:
    """Writes history.csv, confusions.npz and bias_curve.csv; returns the rows of results.csv.

    outcome: of `evaluate_runs`; together: for each split `evaluate_settings`', where there are several seeds.
    grid: the biases of the curves.  labels: i32[N], of the test split.
    of_teachers: what the tables have of them.
    """
    names, seeds = [setting.name for setting, _ in runs], [seed for _, seed in runs]
    omitted = [setting.omitted for setting, _ in runs]
    run_folder.write_history(out, tidy.history_rows(history, names, seeds, omitted))
    ends = tidy.diverged_at(history)
    rows = of_teachers[0] + student_rows(runs, outcome, ends)
    seen = of_teachers[1] + student_confusions(runs, outcome, ends)
    confusions.write(out, seen, outcome.curve.shape[-1])
    rows += ensemble_rows(runs, together, ends)
    curves = [
        tidy.bias_rows(setting.name, seed, grid, outcome.curve[run], labels, setting.omitted)
        for run, (setting, seed) in enumerate(runs)
        if setting.omitted and not ends[run]
    ]
    run_folder.write_bias_curve(out, itertools.chain.from_iterable(curves))
    return rows


def ensemble_rows(runs: Runs, together: dict[str, np.ndarray], ends: np.ndarray) -> list[ResultRow]:
    """The rows of results.csv of each setting's students together, where none diverged."""
    num_seeds = len({seed for _, seed in runs})
    rows: list[ResultRow] = []
    for split, matrices in together.items():
        for number, matrix in enumerate(matrices):
            first = number * num_seeds
            if ends[first : first + num_seeds].any():
                continue
            setting, seed = runs[first]
            rows += tidy.ensemble_rows(setting.name, seed, split, matrix, setting.omitted)
    return rows


def student_rows(runs: Runs, outcome: EvaluationOutcome, ends: np.ndarray) -> list[ResultRow]:
    """The students' rows of results.csv; settings without an omitted class have no corrections.

    ends: as of `tidy.diverged_at`.
    """
    rows: list[ResultRow] = []
    for run, (setting, seed) in enumerate(runs):
        if ends[run]:
            rows.append(tidy.diverged_row(setting.name, seed, ends[run]))
            continue
        for split, of_split in outcome.confusions.items():
            for correction, matrices in of_split.items():
                if setting.omitted or correction == "none":
                    value = outcome.biases[correction][run] if setting.omitted else None
                    rows += tidy.result_rows(
                        setting.name, seed, split, correction, matrices[run], setting.omitted, value
                    )
        for split, sums in outcome.quality.items():
            quality = jax.tree.map(lambda leaf, run=run: leaf[run], sums)
            rows += tidy.quality_rows(setting.name, seed, split, quality)
    return rows


def student_confusions(runs: Runs, outcome: EvaluationOutcome, ends: np.ndarray) -> list[Confusion]:
    """The students' rows of confusions.npz: those of results.csv on the test split."""
    return [
        Confusion(setting.name, seed, correction, matrices[run])
        for run, (setting, seed) in enumerate(runs)
        for correction, matrices in outcome.confusions["test"].items()
        if not ends[run] and (setting.omitted or correction == "none")
    ]
