"""Synthesised images on one sheet, a PNG: beside the .npz that holds them, and in the run of students that
were trained on them."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reporting.markdown import Section
from kd_jax.stats.description import RunDescription

FIGURE = "impressions.png"  # in a run folder
COLUMNS, MOST_ROWS, LARGEST = 12, 40, 64  # images a row, rows, pixels a side of an image


def sheet(images: np.ndarray, groups: np.ndarray) -> bytes:
    """The first images of each group in a row of its own, as a PNG.

    images: u8[N,h,w,c], of whose channels the first three are colours, or the first is grey; groups: i32[N].
    """
    from PIL import Image

    colours = images[..., :3] if images.shape[-1] > 2 else images[..., :1].repeat(3, -1)
    numbers = np.unique(groups)[:MOST_ROWS]
    height, width = (side + 1 for side in images.shape[1:3])
    canvas = np.full((len(numbers) * height + 1, COLUMNS * width + 1, 3), 255, np.uint8)
    for row, number in enumerate(numbers):
        for column, image in enumerate(colours[groups == number][:COLUMNS]):
            top, left = row * height + 1, column * width + 1
            canvas[top : top + height - 1, left : left + width - 1] = image
    scale = max(1, LARGEST // max(images.shape[1:3]))
    picture = Image.fromarray(canvas.repeat(scale, 0).repeat(scale, 1))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def described(origin: dict[str, Any]) -> str:
    """The provenance of synthesised images, as config.json has it, in one line."""
    teacher = origin["teacher"]
    initial = ", before its training" if teacher.get("untrained") else ""
    words = [f"by {origin['method']} from {teacher.get('path')}{initial}", f"sha256 {teacher['sha256']}"]
    words += [f"{name} {value}" for name, value in (origin.get("settings") or {}).items() if name != "run"]
    return ", ".join(words)


def section(folder: Path, description: RunDescription) -> list[Section]:
    """The images that students were trained on beside, or instead of, those of the data."""
    origin = (description.transfer or {}).get("origin")
    if not origin or not (folder / FIGURE).is_file():
        return []
    names = description.data.class_names
    words = (
        f"Made {described(origin)}. A row: a class and a teacher. They were labelled by the teacher alone."
    )
    classes = ", ".join(names[k] for k in origin.get("classes", []) if k < len(names))
    return [Section("Synthesised images", [f"Of {classes}. {words}" if classes else words], FIGURE)]
