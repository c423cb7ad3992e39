"""Training: one run as pure functions (step.py), then many (sweep.py), with checkpoints (loop.py)."""

from kd_jax.train.config import Config, make_config
from kd_jax.train.step import (
    INIT,
    MIXTURES,
    PERTURB,
    augment_and_scale,
    evaluate,
    fit,
    init_state,
    make_batch,
    mask_logits,
    select_teacher,
    train_epoch,
    train_step,
    variables_of,
)

__all__ = [
    "INIT",
    "MIXTURES",
    "PERTURB",
    "Config",
    "augment_and_scale",
    "evaluate",
    "fit",
    "init_state",
    "make_batch",
    "make_config",
    "mask_logits",
    "select_teacher",
    "train_epoch",
    "train_step",
    "variables_of",
]
