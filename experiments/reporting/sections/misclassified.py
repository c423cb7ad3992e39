"""Which test images of an omitted class a student gets wrong, and which of them a correction rescues: saved
when students have been judged, and made into pictures for the report's page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kd_jax.io import examples
from kd_jax.io.examples import Examples
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import DIVERGED, ResultRow
from kd_jax.stats.summary import summarise

if TYPE_CHECKING:  # else a report would import jax
    from kd_jax.types import Table

LARGEST = 96  # pixels a side: larger images are reduced, for the page holds them all


def save(
    out: Path,
    description: RunDescription,
    rows: Sequence[ResultRow],
    by_correction: dict[str, dict[str, np.ndarray]],
    test: "Table",
) -> None:
    """examples.npz of the setting and the correction that the report answers with, where that setting
    misses classes.

    by_correction: what `evaluate.first_examples` says of each run.
    """
    judged = [row for row in rows if row.class_ in ("all", "seen") and row.metric == "accuracy"]
    summary = summarise(judged, description)
    best = summary.best_setting(description.settings)
    if not description.setting(best).omitted:
        return
    correction = summary.preferred_correction(best)
    lost = {(row.setting, row.seed) for row in rows if row.metric == DIVERGED}
    of_best = [run for run in description.runs if run.setting == best]
    first = next((run for run in of_best if (best, run.seed) not in lost), None)
    if first is None:
        return
    of_run = {name: array[first.run] for name, array in by_correction[correction].items()}
    exists = of_run["index"] < len(test.labels)
    number, before, after = (of_run[name][exists] for name in ("index", "before", "after"))
    images, labels = np.asarray(test.images)[number], np.asarray(test.labels)[number]
    examples.write(out, Examples(images, labels, before, after, number, best, first.seed, correction))


def pictures(shown: Examples, class_names: Sequence[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(what they have in common, the pictures, each with its words) of the rescued and the others."""
    right = shown.after == shown.labels
    groups = {"rescued by the correction": right, "still wrong": ~right}
    return [
        (
            title,
            [
                {
                    "source": _data_uri(shown.images[i]),
                    "number": int(shown.number[i]),
                    "label": class_names[shown.labels[i]],
                    "before": class_names[shown.before[i]],
                    "after": class_names[shown.after[i]],
                }
                for i in np.flatnonzero(members)
            ],
        )
        for title, members in groups.items()
    ]


def _data_uri(image: np.ndarray) -> str:
    """u8[h,w,c] as a PNG: its first three channels as colours, or its first as grey."""
    from PIL import Image

    picture = Image.fromarray(image[..., :3] if image.shape[-1] > 2 else image[..., 0])
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
