"""Small run folders and datasets as the entry points write them, without a training: the weights are those
that the networks began with, the figures are of made-up confusions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from kd_jax import data, models
from kd_jax.data import synthetic
from kd_jax.io import checkpoint, confusions, examples, run_config, run_folder, tidy
from kd_jax.io.examples import Examples
from kd_jax.stats.rows import BiasRow, Confusion, HistoryRow, RepresentationRow, ResultRow

OPTIONS = {"input_dropout": 0.0, "dropout": 0.0, "precision": "float32", "normalize": None}
EPOCHS = 3


def setting(name: str, omitted: Sequence[int] = (), temperature: float | None = None) -> dict[str, Any]:
    """As config.json has it."""
    numbers = {"temperature": temperature, "alpha": float(temperature is not None)}
    return {"name": name, "omitted": list(omitted)} | numbers | {"learning_rate": 1e-2, "weight_decay": 0.0}


SETTINGS = [setting("labels"), setting("T=4", (), 4.0)]
SETTINGS += [setting("labels omit=3", [3]), setting("T=4 omit=3", [3], 4.0)]


def toy(path: Path) -> Path:
    """An .npz of 3 classes, 60 training and 30 test images of 6 x 5."""
    order = np.random.RandomState(0)
    images, labels = order.randint(0, 256, (90, 6, 5)).astype(np.uint8), np.tile([0, 1, 1, 1, 2, 2], 15)
    parts: Any = {"train_images": images[:60], "train_labels": labels[:60]}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **parts, test_images=images[60:], test_labels=labels[60:])
    return path


def pictures(root: Path) -> Path:
    """An image folder of 2 classes, 3 training and 2 test images of 6 x 5 each."""
    order = np.random.RandomState(0)
    for split, number in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = order.randint(0, 256, (5, 6, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def synthesised(dataset: data.Dataset, class_: int = 3) -> bytes:
    """An .npz of the class's images as if two teachers had made them, ten each."""
    images = dataset.train_images[dataset.train_labels == class_][:24]
    labels = np.full(24, class_, np.int32)
    about = {"teacher": {"sha256": "ab", "num_teachers": 2}, "method": "class_impressions"}
    arrays = images[:20], labels[:20], images[20:], labels[20:]
    return synthetic.to_bytes(arrays, list(dataset.class_names), np.arange(20) % 2, about)


def variables_of(spec: str, dataset: data.Dataset, number: int) -> dict:
    """Fresh variables, leading axis `number`."""
    model, shape = models.build(spec, dataset.num_classes, **OPTIONS), dataset.train_images.shape[1:]
    key = jax.random.key(0)
    one = jax.eval_shape(lambda: models.init_variables(model, key, shape))
    order = np.random.RandomState(0)
    return jax.tree.map(lambda leaf: order.normal(0, 0.1, (number, *leaf.shape)).astype(np.float32), one)


def write_run(
    folder: Path,
    dataset: data.Dataset,
    settings: Sequence[dict[str, Any]] = (),
    spec: str = "mlp-16",
    seeds: int = 2,
    **changes: Any,
) -> Path:
    """A finished run: of students where there are settings, else of teachers.  changes: of config.json."""
    experiment, held = ("distill", "students") if settings else ("train_teacher", "teachers")
    settings = settings or [{"name": "teacher", "omitted": []}]
    runs = [(one, seed) for one in settings for seed in range(seeds)]
    config = _config(dataset, experiment, settings, spec, seeds) | changes
    run_config.write(folder, run_config.parse(config))
    run_folder.write_history(folder, _history(runs))
    rows, matrices = _tested(runs, dataset)
    curve = _curve(runs, dataset)
    run_folder.write_results(folder, rows)
    confusions.write(folder, matrices, dataset.num_classes)
    if curve:
        run_folder.write_bias_curve(folder, curve)
        _write_more(folder, runs)
    metadata = {key: config[key] for key in ("data", "flags", "versions", "teacher", "settings", "runs")}
    metadata |= {"model": spec, "model_options": OPTIONS, "class_mask": [True] * dataset.num_classes}
    metadata |= {"num_models": len(runs), "image_shape": list(dataset.train_images.shape[1:])}
    checkpoint.save(folder / held, variables_of(spec, dataset, len(runs)), metadata)
    return folder


def _config(
    dataset: data.Dataset, experiment: str, settings: Sequence[dict], spec: str, seeds: int
) -> dict[str, Any]:
    teacher = {"path": "teacher", "sha256": "cd34", "model": "mlp-16", "num_teachers": 2}
    runs = [(one["name"], seed) for one in settings for seed in range(seeds)]
    taught = experiment == "distill"
    return {
        "format": 2,
        "experiment": experiment,
        "command": f"./launch.sh {experiment} --model={spec}",
        "flags": {"model": spec, "epochs": EPOCHS, "batch_size": 8, "dataset": dataset.name}
        | {"validation_fraction": 0.1},
        "versions": {"kd_jax": "0.1.0", "jax": "0.10.2"},
        "device": "2 x cpu (cpu), 2 CPU cores",
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "num_classes": dataset.num_classes,
            "class_names": list(dataset.class_names),
            "train": len(dataset.train_labels),
            "validation": 10,
            "test": len(dataset.test_labels),
        },
        "teacher": teacher | {"class_mask": [True] * dataset.num_classes, "flags": {}} if taught else None,
        "settings": list(settings),
        "runs": [
            {"run": run, "setting": name, "seed": seed, "teacher_seed": seed % 2 if taught else None}
            for run, (name, seed) in enumerate(runs)
        ],
        "time": {"run_seconds": 3.0, "training_seconds": 2.0, "examples": 360},
    }


Runs = list[tuple[dict[str, Any], int]]


def _history(runs: Runs) -> list[HistoryRow]:
    return [
        HistoryRow(run, one["name"], seed, epoch, split, metric, value)
        for run, (one, seed) in enumerate(runs)
        for epoch in range(1, EPOCHS + 1)
        for split in ("train", "validation")
        for metric, value in (("loss", 1.5), ("accuracy", 0.25 * epoch))
    ]


def _tested(runs: Runs, dataset: data.Dataset) -> tuple[list[ResultRow], list[Confusion]]:
    classes = dataset.num_classes
    rows: list[ResultRow] = []
    matrices = []
    own = [({"name": "teacher", "omitted": []}, 0)] if runs[0][0]["name"] != "teacher" else []
    for one, seed in [*own, *runs]:
        for correction in ("none", "prior_matched") if one["omitted"] else ("none",):
            matrix = 7 * np.eye(classes, dtype=int) + np.eye(classes, k=1, dtype=int) * (1 + seed)
            matrices.append(Confusion(one["name"], seed, correction, matrix))
            for split in ("validation", "test"):
                bias = {"none": 0.0}.get(correction, 1.5) if one["omitted"] else None
                rows += tidy.result_rows(one["name"], seed, split, correction, matrix, one["omitted"], bias)
    return rows, matrices


def _curve(runs: Runs, dataset: data.Dataset) -> list[BiasRow]:
    labels = np.repeat(np.arange(dataset.num_classes), 8)
    correct = np.full((2, dataset.num_classes), 7) - [[0], [1]]
    return [
        row
        for one, seed in runs
        if one["omitted"]
        for row in tidy.bias_rows(one["name"], seed, np.array([0.0, 1.5]), correct, labels, one["omitted"])
    ]


def _write_more(folder: Path, runs: Runs) -> None:
    """representation.csv and examples.npz."""
    name, omitted = next((one["name"], one["omitted"][0]) for one, _ in runs if one["omitted"])
    looked = [
        RepresentationRow(of, seed, "hidden_0", measure, part, 0.5)
        for of, seed in (("random", 0), *((one["name"], seed) for one, seed in runs))
        for measure, part in (("probe", "omitted"), ("probe", "seen"), ("cka", "omitted"))
    ]
    run_folder.write_representation(folder, looked)
    images = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)
    places = [np.array(pair, np.int32) for pair in ((omitted, omitted), (0, 1), (omitted, 1), (20, 23))]
    examples.write(folder, Examples(images, *places, name, 0, "prior_matched"))
