"""What students are taught on: the dataset's own training images, another's, or noise (--transfer).

The last two have no labels: all comes from the teacher, whose answers stand for labels in the history.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.cli import progress
from experiments.cli.flags import RunConfig
from kd_jax import data
from kd_jax.errors import InputError
from kd_jax.train.noise import NOISES
from kd_jax.types import Table

OWN = "own"


class Transfer(NamedTuple):
    """Another dataset's training images, u8[N,h,w,c]; description: what config.json says of them."""

    images: np.ndarray
    description: dict

    def table(self) -> Table:
        """Its labels mean nothing."""
        return Table(jnp.asarray(self.images), jnp.zeros(len(self.images), jnp.int32))


def load(name: str, options: RunConfig, dataset: data.Dataset, settings: Sequence[Any]) -> Transfer | None:
    """The other dataset that --transfer names; None where it is the own one, or noise.

    name: the flag's value.  settings: the students', which must need no labels.
    Errors: InputError, also for images of another shape.
    """
    if name == OWN:
        return None
    given = f"--transfer={name}"
    if not all(setting.alpha == 1 for setting in settings):
        raise InputError("a transfer set without labels", "a teacher and --alphas=1", given)
    if any(setting.omitted for setting in settings):
        expected = "no --omit and no --seen, which are of labels"
        raise InputError("a transfer set without labels", expected, given)
    return None if name in NOISES else load_other(name, options, dataset)


def load_other(name: str, options: RunConfig, dataset: data.Dataset) -> Transfer:
    """The dataset of this name. Errors: InputError where it does not fit `dataset`."""
    given = f"--transfer={name}"
    # --image_size is of the transfer set as well, where its images lie in files.
    image_size = options.image_size if data.takes_image_size(name, options.data_dir) else None
    shown = progress.counting("decoding images")
    other = data.load(name, options.data_dir, image_size=image_size, progress=shown)
    own, theirs = ("x".join(map(str, one.train_images.shape[1:])) for one in (dataset, other))
    if own != theirs:
        raise InputError(f"{given} has images of another shape", f"{own}, as {dataset.name} has", theirs)
    if other.fingerprint == dataset.fingerprint:
        raise InputError(f"{given} is the dataset itself", f"another, or --transfer={OWN}", dataset.name)
    description = {"name": other.name, "fingerprint": other.fingerprint}
    return Transfer(other.train_images, description | {"examples": len(other.train_images)})
