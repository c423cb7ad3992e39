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
from kd_jax.stats import summary
from kd_jax.stats.rows import DIVERGED, ResultRow

if TYPE_CHECKING:  # else a report would import jax
    from kd_jax.types import Table

LARGEST = 96  # pixels a side: larger images are reduced, for the page holds them all


def save(
    out: Path,
    description: dict[str, Any],
    rows: Sequence[ResultRow],
    found: dict[str, dict[str, np.ndarray]],
    test: "Table",
) -> None:
    """examples.npz of the setting and the correction that the report's answer speaks of, where that setting
    misses classes.

    found: by correction what `evaluate.first_examples` says of each run.
    """
    judged = [row for row in rows if row.class_ in ("all", "seen") and row.metric == "accuracy"]
    settings, values = description["settings"], summary.lookup(summary.summarise(judged, description))
    best = summary.best_setting(settings, values)
    if not next(setting["omitted"] for setting in settings if setting["name"] == best):
        return
    correction = summary.preferred_correction(best, values)
    lost = {(row.setting, row.seed) for row in rows if row.metric == DIVERGED}
    of_best = [run for run in description["runs"] if run["setting"] == best]
    first = next((run for run in of_best if (best, run["seed"]) not in lost), None)
    if first is None:
        return
    own = {name: array[first["run"]] for name, array in found[correction].items()}
    there = own["index"] < len(test.labels)
    number, before, after = (own[name][there] for name in ("index", "before", "after"))
    images, labels = np.asarray(test.images)[number], np.asarray(test.labels)[number]
    examples.write(out, Examples(images, labels, before, after, number, best, first["seed"], correction))


def pictures(found: Examples, class_names: Sequence[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(what they have in common, the pictures, each with its words) of the rescued and the others."""
    right = found.after == found.labels
    groups = {"rescued by the correction": right, "still wrong": ~right}
    return [
        (
            title,
            [
                {
                    "source": _data_uri(found.images[i]),
                    "number": int(found.number[i]),
                    "label": class_names[found.labels[i]],
                    "before": class_names[found.before[i]],
                    "after": class_names[found.after[i]],
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
