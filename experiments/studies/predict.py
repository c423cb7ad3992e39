"""Predictions: the most probable classes of images, by networks of a run folder, as a csv file."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments.cli import places, progress
from experiments.cli.main import log_note
from experiments.settings import networks
from kd_jax.data import image_decoding, unlabelled
from kd_jax.data.folder_files import first_few
from kd_jax.errors import InputError
from kd_jax.evaluate import classifier
from kd_jax.io import run_files

BATCH_SIZE, BATCH_BYTES = 1024, 2**28
"""The most images that are decoded and classified together, and the most memory that they may take."""


@dataclass(frozen=True)
class PredictConfig:
    """The values of the flags, by their names."""

    images: str
    image_size: int | None
    top_k: int
    skip_unreadable: bool
    out: Path


def run(folder: Path, choice: networks.Choice, options: PredictConfig) -> None:
    """Writes the predictions of these images as a csv file.

    folder: of a run of train_teacher or distill.  Errors: InputError; then nothing is written.
    """
    places.refuse_existing(options.out)
    chosen = networks.choose(networks.load(folder), choice)
    size = options.image_size
    if size is None and not options.images.lower().endswith(".npz"):
        size = chosen.networks.description.flags.get("image_size")  # to which training resized
    found = unlabelled.find(options.images, chosen.networks.image_shape, size)
    if chosen.note:
        log_note(f"note: {chosen.note}")
    names, probabilities, notes = classify_all(chosen, found, options)
    for note in (*found.notes, *notes):
        log_note(f"note: {options.images}: {note}")
    top_k = min(options.top_k, probabilities.shape[1])
    run_files.write(options.out, render(names, probabilities, chosen.class_names, top_k))
    print(networks.describe(chosen))
    print(f"Wrote the classes of {len(names):,} image{'s' * (len(names) != 1)} to {options.out}")


def classify_all(
    chosen: networks.Chosen, found: unlabelled.Images, options: PredictConfig
) -> tuple[list[str], np.ndarray, list[str]]:
    """(names of the images that can be read, their probabilities f32[n,K], notes on how they were taken)."""
    variables, omitted, biases = jax.device_put((chosen.variables, chosen.omitted, chosen.biases))
    shown, total = progress.counting("classifying images"), len(found.names)
    size = min(BATCH_SIZE, total, max(1, BATCH_BYTES // math.prod(chosen.networks.image_shape)))
    names: list[str] = []
    each: list[np.ndarray] = []
    faults: dict[str, str] = {}
    remarks: dict[int, list[str]] = {}
    for first in range(0, total, size):
        batch = found.names[first : first + size]
        decoded = found.decode(first, first + len(batch))
        faults |= decoded.faults
        for remark, of in decoded.remarks.items():
            remarks.setdefault(remark, []).extend(of)
        if not faults or options.skip_unreadable:  # else all others are read, so that each fault is named
            names += [name for name in batch if name not in decoded.faults]
            pixels = decoded.pixels
            if len(pixels):  # repeated up to one size, which is compiled once
                padded = np.resize(pixels, (size, *pixels.shape[1:]))
                shares = classifier.classify(chosen.networks.model, variables, omitted, biases, padded)
                each.append(np.asarray(shares)[: len(pixels)])
        shown(first + len(batch), total)
    named = first_few([f"{name} ({fault})" for name, fault in faults.items()])
    if faults and (not options.skip_unreadable or not names):
        wrong = f"{len(faults)} of {total} images in {options.images} cannot be read"
        raise InputError(wrong, "whole images, or --skip_unreadable beside some that are whole", named)
    notes = [f"left out: {len(faults)} of {total} images that cannot be read: {named}"] if faults else []
    notes += image_decoding.remarked(remarks, total)
    probabilities = np.concatenate(each)
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        given = f"others of {names[int(np.argmin(finite))]}"
        raise InputError(f"{chosen.networks.folder} overflows", "finite probabilities", given)
    return names, probabilities, notes


def render(names: list[str], probabilities: np.ndarray, class_names: list[str], top_k: int) -> bytes:
    """The csv file: image, and of each rank class_1 (the number of the class), name_1, probability_1, ..."""
    # Stable: of equally probable classes the first, as argmax has it.
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    text = io.StringIO()
    # Of a carriage return, which the name of a file may hold, Python 3.11 would make a new line.
    odd = any("\r" in name for name in names)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
    columns = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("class", "name", "probability")]
    writer.writerow(["image", *columns])
    for name, classes, shares in zip(names, ranked.tolist(), probabilities.tolist(), strict=True):
        cells = [(k, class_names[k], f"{shares[k]:.9g}") for k in classes]
        writer.writerow([name, *(cell for group in cells for cell in group)])
    return text.getvalue().encode()
