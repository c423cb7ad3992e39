"""A run folder whose numbers are set by hand, and cells of the tables that a report makes of it."""

import itertools

import numpy as np

from kd_jax.io import confusions, run_config, run_folder, tidy
from kd_jax.stats.rows import Confusion, HistoryRow, ResultRow

ALL, SOFT = "T=20 alpha=1 omit=none", "T=20 alpha=1 omit=2"
SETTINGS = [{"name": ALL, "omitted": []}, {"name": SOFT, "omitted": [2]}]
PER_CLASS = 10  # test examples of each class


def confusion(right):
    """i32[K,K]: right[k] of the examples of class k are called k, the others the next class."""
    counts = np.diag(right)
    for k, number in enumerate(right):
        counts[k, (k + 1) % len(right)] += PER_CLASS - number
    return counts


def rows_of(setting, seed, correction, right, omitted=(), bias=None, splits=("validation", "test")):
    """results.csv's rows of one run under one correction, in which right[k] of class k are right."""
    classes = range(len(right))
    parts = {"all": list(classes)} | {str(k): [k] for k in classes}
    if omitted:
        parts |= {"omitted": list(omitted), "seen": [k for k in classes if k not in omitted]}
    values = []
    for part, members in parts.items():
        correct, total = sum(right[k] for k in members), PER_CLASS * len(members)
        values += [
            (part, "accuracy", correct / total),
            (part, "errors", total - correct),
            (part, "support", total),
        ]
    values += [] if bias is None else [("omitted", "bias", bias)]
    return [ResultRow(setting, seed, split, correction, *value) for split in splits for value in values]


def matrices_of(rows, classes):
    """The confusion matrix that belongs to each accuracy of all classes on the test split."""
    test = {row[:2] + row[3:6]: row.value for row in rows if row.split == "test"}
    for setting, seed, correction, class_, metric in test:
        if (class_, metric) == ("all", "accuracy"):
            key = (setting, seed, correction)
            wrong = [int(test.get((*key, str(k), "errors"), 0)) for k in range(classes)]
            yield Confusion(*key, confusion([PER_CLASS - number for number in wrong]))


def write_run(folder, settings, rows, history=(), curve=(), seeds=3, classes=3, **changes):
    runs = itertools.product([setting["name"] for setting in settings], range(seeds))
    config = {
        "format": 2,
        "experiment": "distill",
        "command": "./launch.sh distill --omit=none,2",
        "flags": {"omit": "none,2"},
        "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
        "device": "1 x cpu (cpu), 2 CPU cores",
        "data": {
            "name": "toy",
            "fingerprint": "ab12",
            "num_classes": classes,
            "class_names": [str(k) for k in range(classes)],
            "train": 60,
            "validation": 30,
            "test": PER_CLASS * classes,
        },
        "teacher": {"path": "runs/teacher", "sha256": "cd34", "model": "mlp-8", "num_teachers": 1},
        "settings": settings,
        "runs": [
            {"run": run, "setting": name, "seed": seed, "teacher_seed": 0}
            for run, (name, seed) in enumerate(runs)
        ],
    }
    run_config.write(folder, run_config.parse(config | changes))
    run_folder.write_history(folder, history)
    run_folder.write_results(folder, rows)
    confusions.write(folder, list(matrices_of(rows, classes)), classes)
    run_folder.write_bias_curve(folder, curve)
    return folder


def toy_rows():
    rows = rows_of("teacher", 0, "none", [10, 10, 9])
    for seed in range(3):
        rows += rows_of(ALL, seed, "none", [10, 9, 10])
        rows += rows_of(SOFT, seed, "none", [10, 10, (2, 4, 6)[seed]], (2,), 0.0)
        rows += rows_of(SOFT, seed, "teacher_matched", [(9, 10, 8)[seed], 10, 9], (2,), (2.0, 2.5, 3.0)[seed])
        rows += rows_of(SOFT, seed, "test_tuned", [10, 10, 9], (2,), 4.0)
    return rows


def toy_history():
    return [
        HistoryRow(3 * run + seed, setting, seed, epoch, split, metric, value + 0.1 * seed)
        for run, setting in enumerate((ALL, SOFT))
        for seed in range(3)
        for epoch in (1, 2)
        for split in ("train", "validation")
        for metric, value in (("loss", 1.0), ("accuracy", 0.2 * epoch), ("accuracy_omitted", 0.1))
        if metric != "accuracy_omitted" or (run, split) == (1, "validation")
    ]


def toy_curve():
    labels, right = np.repeat(range(3), PER_CLASS), np.array([[10, 10, 1], [5, 7, 9]])
    biases = np.array([-1.0, 3.0])
    return [row for seed in range(3) for row in tidy.bias_rows(SOFT, seed, biases, right, labels, [2])]


def cells(text, *starts):
    """The cells of the Markdown row that starts with these."""
    (line,) = [line for line in text.splitlines() if line.startswith("| " + " | ".join(starts) + " |")]
    return [cell.strip() for cell in line.strip("|").split("|")][len(starts) :]
