"""Counts and confusion matrices -> the tidy rows of a run folder (host side)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kd_jax.stats.rows import DIVERGED, BiasRow, HistoryRow, ResultRow

TRACKED = ("corrected", "probe")
ENSEMBLE_METRICS = ("accuracy", "errors")
MOST_CURVED = 100  # classes whose accuracies stand in bias_curve.csv one by one


def diverged_at(history: dict) -> np.ndarray:
    """The epoch in which each run diverged, i64[R]: the first whose training loss is nan; 0: it did not."""
    lost = np.isnan(history["train"]["loss_sum"])
    return np.where(lost.any(axis=1), lost.argmax(axis=1) + 1, 0)


def diverged_row(setting: str, seed: int, epoch: int) -> ResultRow:
    """The only row that results.csv has of a run that diverged."""
    return ResultRow(setting, seed, "test", "none", "all", DIVERGED, int(epoch))


def history_rows(
    history: dict, names: Sequence[str], seeds: Sequence[int], omitted: Sequence[Sequence[int]]
) -> list:
    """history.csv's rows, of a run that diverged those before. names, seeds, omitted: of each run."""
    rows, ends = [], diverged_at(history)
    for split, counts in history.items():
        if split in TRACKED:
            rows += _tracked_rows(split, counts, names, seeds, omitted)
            continue
        total = counts["support"].sum(-1)
        values = {"loss": counts["loss_sum"] / total, "accuracy": counts["correct"].sum(-1) / total}
        if split == "train" and counts["agree"].any():
            values["agreement"] = counts["agree"] / total
        if split == "validation" and any(omitted):
            values["accuracy_omitted"] = _accuracy_omitted(counts, omitted)
        for metric, table in values.items():
            rows += _epochs(split, metric, table, names, seeds)
    return [row for row in rows if not 0 < ends[row.run] <= row.epoch]


def _epochs(
    split: str, metric: str, table: np.ndarray, names: Sequence[str], seeds: Sequence[int]
) -> list[HistoryRow]:
    """table: f64[R,E]."""
    return [
        HistoryRow(run, names[run], seeds[run], epoch + 1, split, metric, float(value))
        for run in range(len(names))
        for epoch, value in enumerate(table[run])
    ]


def _accuracy_omitted(counts: dict, omitted: Sequence[Sequence[int]]) -> np.ndarray:
    """f64[R,E]; nan where a run misses nothing."""
    absent = np.zeros((len(omitted), 1, counts["support"].shape[-1]), np.int64)
    for run, classes in enumerate(omitted):
        absent[run, 0, list(classes)] = 1
    with np.errstate(invalid="ignore"):
        right, all_ = ((counts[name] * absent).sum(-1) for name in ("correct", "support"))
        return right / all_


def _tracked_rows(
    name: str, counts: dict, names: Sequence[str], seeds: Sequence[int], omitted: Sequence[Sequence[int]]
) -> list[HistoryRow]:
    """Of `monitor.track`: of the omitted classes, and of all."""
    values = {f"accuracy_{name}": counts["correct"].sum(-1) / counts["support"].sum(-1)}
    values[f"accuracy_omitted_{name}"] = _accuracy_omitted(counts, omitted)
    return [
        row
        for metric, table in values.items()
        for row in _epochs("validation", metric, table, names, seeds)
        if not math.isnan(row.value)
    ]


def result_rows(
    setting: str,
    seed: int,
    split: str,
    correction: str,
    confusion: np.ndarray,
    omitted: Sequence[int],
    bias: float | None,
) -> list:
    """results.csv's rows of one run under one correction: what its confusion matrix i32[K,K] says."""
    correct, total = np.diag(confusion), confusion.sum(axis=1)
    values: list[tuple[str, str, float]] = []
    for name, (right, count) in _sums(omitted, correct, total).items():
        accuracy = right / count if count else float("nan")
        values += [(name, "accuracy", accuracy), (name, "errors", count - right), (name, "support", count)]
    with np.errstate(invalid="ignore"):
        values.append(("all", "macro_recall", float(np.nanmean(correct / total))))
    precision, f1 = precision_and_f1(confusion)
    for metric, of_class in (("precision", precision), ("f1", f1)):
        values += [(str(k), metric, value) for k, value in enumerate(of_class.tolist())]
        values.append(("all", f"macro_{metric}", float(np.mean(of_class[total > 0]))))
    if bias is not None:
        values.append(("omitted", "bias", float(bias)))
    return [ResultRow(setting, seed, split, correction, *value) for value in values]


def ensemble_rows(
    setting: str, seed: int, split: str, confusion: np.ndarray, omitted: Sequence[int]
) -> list[ResultRow]:
    """results.csv's rows of an ensemble, from the confusion matrix i32[K,K] of its members' mean."""
    rows = result_rows(setting, seed, split, "none", confusion, omitted, None)
    return [row._replace(metric=f"ensemble_{row.metric}") for row in rows if row.metric in ENSEMBLE_METRICS]


def precision_and_f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f64[K] each, of a confusion matrix i32[K,K]; 0 where nothing could be right: a precision of a class
    that is never named, an f1 of one that is neither named nor there."""
    correct, named, total = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return correct / np.maximum(named, 1), 2 * correct / np.maximum(named + total, 1)


def quality_rows(setting: str, seed: int, split: str, sums: dict[str, Any]) -> list[ResultRow]:
    """results.csv's rows of one run's probabilities.  sums: of `metrics.quality`, in numpy."""
    bins = sums["bins"]
    count = int(bins["count"].sum())
    # Guo et al. 2017, equation 3: the bins' |accuracy - confidence|, weighed by their shares of the examples.
    off = np.abs(np.float64(bins["correct"]) - np.float64(bins["confidence"]))
    totals = {"nll": sums["nll"], "ece": off.sum()}
    named = {"top5": "top5_accuracy", "agree": "agreement", "kl": "kl_to_teacher"}
    totals |= {metric: sums[name] for name, metric in named.items() if name in sums}
    means = {metric: float(total) / count for metric, total in totals.items()}
    return [
        ResultRow(setting, seed, split, "none", "all", metric, mean if math.isfinite(mean) else math.nan)
        for metric, mean in means.items()
    ]


def bias_rows(
    setting: str,
    seed: int,
    biases: np.ndarray,
    correct: np.ndarray,
    labels: np.ndarray,
    omitted: Sequence[int],
) -> list[BiasRow]:
    """bias_curve.csv's rows of one run.  correct: i32[G,K], right test predictions under each bias."""
    total = np.bincount(labels, minlength=correct.shape[-1])
    sums = [_sums(omitted, of_bias, total) for of_bias in correct]
    return [
        BiasRow(setting, seed, float(bias), name, right / count if count else math.nan)
        for bias, of_bias in zip(biases, sums, strict=True)
        for name, (right, count) in of_bias.items()
        if len(total) <= MOST_CURVED or not name.isdigit()
    ]


def _sums(omitted: Sequence[int], *counts: np.ndarray) -> dict[str, tuple[int, ...]]:
    """The sums of counts [K] over each class set of results.csv: omitted and seen where some are omitted."""
    absent = np.isin(np.arange(len(counts[0])), omitted)
    groups = {"all": absent | True}
    if len(omitted):
        groups |= {"omitted": absent, "seen": ~absent}
    sums = {name: tuple(int(count[members].sum()) for count in counts) for name, members in groups.items()}
    each = zip(*(count.tolist() for count in counts), strict=True)
    return sums | {str(k): of_class for k, of_class in enumerate(each)}
