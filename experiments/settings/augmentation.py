"""Augmentation as the flags say: crop or warp, then flip, then cutout, of raw images; then mixup."""

from typing import Any

import numpy as np

from experiments.cli.flags import RunConfig
from experiments.cli.parse import parse_numbers, require_share
from kd_jax import data
from kd_jax.errors import InputError
from kd_jax.models.normalization import channel_statistics
from kd_jax.train import augment
from kd_jax.types import Augment

OTHER_THAN_FLIP = ("translate", "rotate", "stretch", "cutout", "mixup")


def queries(options: RunConfig) -> bool:
    """Whether the students see augmented images on which the teacher is queried at each update."""
    return any(getattr(options, name) for name in OTHER_THAN_FLIP)


def only_flips(options: RunConfig) -> bool:
    """Whether each image is seen as it is or mirrored, so that the teacher's logits on both can be cached."""
    return options.flip and not queries(options)


def fields(options: RunConfig, dataset: data.Dataset, train: np.ndarray) -> dict[str, Any]:
    """The fields of Config that augment.  train: indices of the training part."""
    require_share("stretch", options.stretch)
    height, width = dataset.train_images.shape[1:3]
    for name, most in (("translate", min(height, width) - 1), ("cutout", min(height, width))):
        if getattr(options, name) > most:
            expected = f"at most {most} pixels, as images have {height} x {width}"
            raise InputError(f"--{name} out of range", expected, getattr(options, name))
    if options.mixup and not 1e-3 <= options.mixup <= 1e3:  # beyond, shares are 0, 1 or 1/2, or not a number
        raise InputError("--mixup out of range", "0, or a number from 0.001 to 1000", options.mixup)
    if options.mixup and options.batch_size == 1:
        raise InputError("--mixup mixes the examples of a batch", "--batch_size=2 or more", "--batch_size=1")
    return {"augment": _of_raw_images(options, dataset, train), "mixup": options.mixup or None}


def _of_raw_images(options: RunConfig, dataset: data.Dataset, train: np.ndarray) -> Augment | None:
    (degrees,) = parse_numbers("rotate", str(options.rotate), high=180)
    stages: list[Augment] = []
    if degrees or options.stretch:
        stages.append(augment.RandomAffine(options.translate, degrees, options.stretch))
    elif options.translate:
        stages.append(augment.RandomTranslate(options.translate))
    if options.flip:
        stages.append(augment.RandomFlip())
    if options.cutout:
        mean, _ = channel_statistics(dataset.train_images[train])
        fill = tuple(round(255 * level) for level in mean)
        stages.append(augment.Cutout(options.cutout, fill))
    if len(stages) < 2:
        return stages[0] if stages else None
    return augment.Chain(tuple(stages))
