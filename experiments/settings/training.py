"""The network and the static part of the training, as the flags say."""

from typing import Any

import numpy as np

from experiments.cli.flags import RunConfig
from experiments.cli.parse import parse_numbers, require_share
from kd_jax import data, models, train
from kd_jax.errors import InputError
from kd_jax.models.normalization import IMAGENET, channel_statistics
from kd_jax.train import Config, optim
from kd_jax.types import LossFn


def model_options(options: RunConfig, dataset: data.Dataset, train: np.ndarray) -> dict[str, Any]:
    """What, with the spec and the number of classes, rebuilds the module, from the options.

    train: indices of the training part. Its statistics include the classes that some settings leave out: the
    settings of a sweep are one program, and so have one normalisation.
    """
    require_share("dropout", options.dropout)
    require_share("input_dropout", options.input_dropout)
    channels = dataset.train_images.shape[-1]
    if options.normalize == "imagenet" and channels != 3:
        raise InputError("--normalize=imagenet", "images of 3 channels", f"{channels} in {dataset.name}")
    normalize = IMAGENET if options.normalize == "imagenet" else None
    if options.normalize == "data":
        normalize = channel_statistics(dataset.train_images[train])
    return {
        "input_dropout": options.input_dropout,
        "dropout": options.dropout,
        "precision": options.precision,
        "normalize": normalize,
    }


def require_hidden_layer(what: str, spec: str, model: Any, image_shape: tuple[int, int, int]) -> None:
    """Refuses a network whose classifier sees the image itself.  what: reads the last hidden layer."""
    if not models.hidden_layers(model, image_shape):
        raise InputError(f"{what} needs a hidden layer", "a network that has one, as mlp-64", spec)


def require_trackable(options: RunConfig, config: Config, validation: np.ndarray) -> None:
    """Refuses --track where there is nothing to measure it on.  validation: indices of the split."""
    if len(validation) < 2:
        expected, given = "--validation_fraction above 0", options.validation_fraction
        raise InputError("--track needs a validation split", expected, given)
    require_hidden_layer("--track", options.model, config.model, config.image_shape)


def make_config(
    options: RunConfig,
    model_options: dict[str, Any],
    dataset: data.Dataset,
    num_train: int,
    loss_fn: LossFn,
    **more,
) -> Config:
    """The training's static part, from the options.  more: further fields of Config."""
    num_updates = -(-num_train // options.batch_size)
    if options.epochs * num_updates >= 2**31:
        given = f"{options.epochs} epochs of {num_updates}"
        raise InputError("too many updates", "fewer than 2^31 in all", given)
    (max_norm,) = parse_numbers("max_norm", str(options.max_norm))
    return train.make_config(
        models.build(options.model, dataset.num_classes, **model_options),
        (num_train, *dataset.train_images.shape[1:]),
        loss_fn,
        options.epochs,
        batch_size=options.batch_size,
        optimizer=optim.OPTIMIZERS[options.optimizer],
        schedule=optim.SCHEDULES[options.schedule],
        max_norm=max_norm or None,
        **more,
    )
