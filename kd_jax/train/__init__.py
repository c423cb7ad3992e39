"""Training: one run as pure functions (step.py), then many (sweep.py), with checkpoints (loop.py)."""

from kd_jax.train.batch import augment_and_scale, make_batch, mask_logits, select_teacher
from kd_jax.train.config import Config, make_config
from kd_jax.train.step import (
    evaluate,
    fit,
    init_state,
    train_epoch,
    train_step,
    variables_of,
)

__all__ = [
    "Config", "augment_and_scale", "evaluate", "fit", "init_state", "make_batch", "make_config",
    "mask_logits", "select_teacher", "train_epoch", "train_step", "variables_of",
]  # fmt: skip
