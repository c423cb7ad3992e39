"""Losses of distillation, per example: LOSSES names those that a flag can choose.

What a run gets of its teacher is in teacher_ablations.py.
"""

from kd_jax.losses.logits import (
    ENSEMBLE_TARGETS,
    LOSSES,
    average_teachers,
    combine_teachers,
    cross_entropy,
    kl_at_temperature,
    labels_loss,
    soft_loss,
)

__all__ = [
    "ENSEMBLE_TARGETS",
    "LOSSES",
    "average_teachers",
    "combine_teachers",
    "cross_entropy",
    "kl_at_temperature",
    "labels_loss",
    "soft_loss",
]
