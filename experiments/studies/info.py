"""What a dataset is understood as: splits, classes, values, and how its images look."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cli import places
from experiments.settings import dataset as datasets
from kd_jax import data
from kd_jax.errors import InputError
from kd_jax.io import run_files

MOST_CLASSES = 30  # in the table and in the picture
COLUMNS = 8  # images of a class in the picture
SHEET = "contact_sheet.png"
WHAT = {
    "own": "comes with the packages",
    "npz": "an .npz file",
    "folder": "a folder of images",
    "parquet": "parquet files",
    "tfds": "a prepared TFDS set",
}

Chapter = list[tuple[str, str]]


def run(
    name: str, data_dir: str | None, values: Mapping[str, Any], fraction: float, out: Path | None
) -> dict[str, Chapter]:
    """Title -> lines in two columns, of the dataset of this name; with `out`, writes its contact sheet.

    values: of the flags that say how images are read.  fraction: of the training data for validation.
    out: a .png, or a folder for contact_sheet.png.  Errors: InputError.
    """
    sheet = None if out is None else _place(out, name)
    library = logging.getLogger("kd_jax.data")
    library.disabled = True  # its notes have a chapter here
    try:
        dataset = datasets.load_as(name, data_dir, values)
    finally:
        library.disabled = False
    train, validation = data.split_training(dataset, fraction)
    labels = {
        "training": dataset.train_labels[train],
        "validation": dataset.train_labels[validation],
        "test": dataset.test_labels,
    }
    chapters = {
        name: [("what", WHAT[data.kind(name, data_dir)]), ("fingerprint", dataset.fingerprint)],
        "Splits": _splits(dataset, labels),
        f"Examples of the {dataset.num_classes} classes": _classes(dataset, labels),
        "Values": _values(dataset),
        "How it was read": [("note", note) for note in dataset.notes] or [("note", "as it is")],
    }
    if dataset.num_skipped:
        chapters["How it was read"].append(("left out", f"{dataset.num_skipped} images that cannot be read"))
    if sheet is not None:
        run_files.write(sheet, _draw(dataset))
        chapters["Contact sheet"] = [("written", str(sheet))]
    return chapters


def _place(out: Path, name: str) -> Path:
    """The file to write. Errors: InputError where something else would be lost, or counted as an image."""
    if out.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".pdf", ".svg") and not out.is_dir():
        raise InputError("the contact sheet is a PNG", "a .png, or a folder", out)
    sheet = out if out.suffix.lower() == ".png" else out / SHEET
    places.refuse_inside(sheet)
    root = Path(os.path.expanduser(name)).resolve()
    if name and root in sheet.absolute().parents and root != Path.cwd():
        raise InputError("--out lies inside the dataset", "a file elsewhere: it would be an image of it", out)
    if sheet.exists() or (sheet.parent.exists() and not sheet.parent.is_dir()):
        raise InputError("--out is taken", f"no such file yet, or a folder without {SHEET}", sheet)
    return sheet


def _splits(dataset: data.Dataset, labels: Mapping[str, np.ndarray]) -> Chapter:
    height, width, channels = dataset.train_images.shape[1:]
    shape = f"{height} x {width} pixels, {channels} channel{'s' * (channels > 1)}"
    own = "comes with the data" if dataset.num_validation else "drawn from training"
    return [
        (split, f"{len(of):,} images, {shape}" + (f"; {own}" if split == "validation" else ""))
        for split, of in labels.items()
    ]


def _classes(dataset: data.Dataset, labels: Mapping[str, np.ndarray]) -> Chapter:
    counts = {split: np.bincount(of, minlength=dataset.num_classes).tolist() for split, of in labels.items()}
    rows = [
        (
            f"{number} {class_name}" if str(number) != class_name else class_name,
            ", ".join(f"{of[number]:,} {split}" for split, of in counts.items()),
        )
        for number, class_name in enumerate(dataset.class_names[:MOST_CLASSES])
    ]
    left = dataset.num_classes - MOST_CLASSES
    return rows + ([("...", f"{left} more classes")] if left > 0 else [])


def _values(dataset: data.Dataset) -> Chapter:
    rows = []
    for split, images in (("training", dataset.train_images), ("test", dataset.test_images)):
        pixels = images.reshape(-1, images.shape[-1])
        words = ", ".join(f"{channel.mean(dtype=np.float64):.1f}" for channel in pixels.T)
        rows.append((split, f"{images.min()} to {images.max()} of 0 to 255, mean of each channel {words}"))
    return rows


def _draw(dataset: data.Dataset) -> bytes:
    """The first images of each class in training, a row a class, as a PNG."""
    from kd_jax import plots

    rows = [
        (name, dataset.train_images[np.flatnonzero(dataset.train_labels == number)[:COLUMNS]])
        for number, name in enumerate(dataset.class_names[:MOST_CLASSES])
    ]
    few = f"The first {len(rows)} of " if dataset.num_classes > len(rows) else ""
    return plots.render(plots.contact_sheet(rows, COLUMNS, f"{few}{dataset.num_classes} classes"))
