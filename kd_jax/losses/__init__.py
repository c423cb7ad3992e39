"""Losses of distillation: LOSSES names those that a flag can choose, DIVERGENCES the forms of `soft`.

Each is per example; a `BatchLoss` relates the examples of a batch. What a run gets of its teacher is in
teacher_ablations.py.
"""

from kd_jax.losses.features import FEATURE_LOSSES
from kd_jax.losses.logits import (
    ENSEMBLE_TARGETS,
    average_teachers,
    combine_teachers,
    cross_entropy,
    ensemble_kind,
    hard_label_loss,
    jensen_shannon_loss,
    kl_at_temperature,
    labels_loss,
    logits_loss,
    reverse_kl_loss,
    soft_loss,
    teacher_targets,
)
from kd_jax.losses.modern_logits import (
    BETAS,
    dist_loss,
    dkd_loss,
    label_smoothing_loss,
    nkd_loss,
    standardized,
)
from kd_jax.types import LossFn

LOSSES: dict[str, LossFn] = {
    "soft": soft_loss,
    "hard_label": hard_label_loss,
    "labels": labels_loss,
    "logits": logits_loss,
    "dkd": dkd_loss,
    "dist": dist_loss,
    "nkd": nkd_loss,
    "label_smoothing": label_smoothing_loss,
}

DIVERGENCES: dict[str, LossFn] = {
    "kl": soft_loss,
    "reverse_kl": reverse_kl_loss,
    "jensen_shannon": jensen_shannon_loss,
}

WITHOUT_TEACHER = ("labels", "label_smoothing")
"""The losses that read no teacher."""

__all__ = [
    "BETAS", "DIVERGENCES", "ENSEMBLE_TARGETS", "FEATURE_LOSSES", "LOSSES", "WITHOUT_TEACHER",
    "average_teachers", "combine_teachers", "cross_entropy", "ensemble_kind", "kl_at_temperature",
    "labels_loss", "soft_loss", "standardized", "teacher_targets",
]  # fmt: skip
