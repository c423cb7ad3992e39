"""Figures of a run folder, data in, matplotlib Figure out; the only importer of matplotlib."""

from kd_jax.plots.biases import bias_curve
from kd_jax.plots.classes import class_bars, confusion_matrix
from kd_jax.plots.curves import is_grid, learning_curves, learning_grid
from kd_jax.plots.images import contact_sheet
from kd_jax.plots.models import compression, features
from kd_jax.plots.style import render
from kd_jax.plots.sweeps import axis

__all__ = [
    "axis", "bias_curve", "class_bars", "compression", "confusion_matrix", "contact_sheet", "features",
    "is_grid", "learning_curves", "learning_grid", "render",
]  # fmt: skip
