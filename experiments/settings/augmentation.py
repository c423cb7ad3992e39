"""Augmentation as the flags say: crop or warp, then flip, then cutout, of raw images; then mixup."""

from typing import Any

import numpy as np
from absl import flags

from experiments.cli import common
from kd_jax import data
from kd_jax.errors import InputError
from kd_jax.models.normalization import channel_statistics
from kd_jax.train import augment
from kd_jax.types import Augment

FLAGS = flags.FLAGS


def augments() -> bool:
    """Whether the students see augmented images, on which the teacher is then queried."""
    return any(FLAGS[name].value for name in ("translate", "rotate", "stretch", "flip", "cutout", "mixup"))


def options(dataset: data.Dataset, train: np.ndarray) -> dict[str, Any]:
    """The fields of Config that augment.  train: indices of the training part."""
    common.require_share("stretch")
    height, width = dataset.train_images.shape[1:3]
    for name, most in (("translate", min(height, width) - 1), ("cutout", min(height, width))):
        if FLAGS[name].value > most:
            expected = f"at most {most} pixels, as images have {height} x {width}"
            raise InputError(f"--{name} out of range", expected, FLAGS[name].value)
    if FLAGS.mixup and not 1e-3 <= FLAGS.mixup <= 1e3:  # beyond, shares are 0, 1 or 1/2, or not a number
        raise InputError("--mixup out of range", "0, or a number from 0.001 to 1000", FLAGS.mixup)
    if FLAGS.mixup and FLAGS.batch_size == 1:
        raise InputError("--mixup mixes the examples of a batch", "--batch_size=2 or more", "--batch_size=1")
    return {"augment": _of_raw_images(dataset, train), "mixup": FLAGS.mixup or None}


def _of_raw_images(dataset: data.Dataset, train: np.ndarray) -> Augment | None:
    (degrees,) = common.parse_numbers("rotate", str(FLAGS.rotate), high=180)
    stages: list[Augment] = []
    if degrees or FLAGS.stretch:
        stages.append(augment.RandomAffine(FLAGS.translate, degrees, FLAGS.stretch))
    elif FLAGS.translate:
        stages.append(augment.RandomTranslate(FLAGS.translate))
    if FLAGS.flip:
        stages.append(augment.RandomFlip())
    if FLAGS.cutout:
        mean, _ = channel_statistics(dataset.train_images[train])
        fill = tuple(round(255 * level) for level in mean)
        stages.append(augment.Cutout(FLAGS.cutout, fill))
    if len(stages) < 2:
        return stages[0] if stages else None
    return augment.Chain(tuple(stages))
