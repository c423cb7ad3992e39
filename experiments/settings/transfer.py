"""What students are taught on: the dataset's own training images, another's, noise, what a generator draws,
or a mixture of the first with images that were made from a teacher (--transfer).

All but the first have no labels: all comes from the teacher, whose answers stand for labels in the history.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.cli import progress
from experiments.cli.flags import RunConfig
from experiments.cli.parse import parse_numbers
from experiments.reporting.sections import contact_sheet
from experiments.settings import augmentation
from experiments.settings.students import num_ensembles
from experiments.settings.teachers import Teachers
from kd_jax import data
from kd_jax.data import synthetic
from kd_jax.errors import InputError
from kd_jax.io import run_files
from kd_jax.train.generator import OBJECTIVES, GeneratorConfig
from kd_jax.train.noise import NOISES
from kd_jax.types import FOR_ALL, REAL, GeneratorHParams, Table

OWN, MIXED, GENERATOR = "own", "own+", "generator"


class Transfer(NamedTuple):
    """Another dataset's training images, u8[N,h,w,c], with their labels i32[N]; description: what config.json
    says of them, but for the number of examples of an epoch.

    origin: of images that were made from teachers; None of others. mixed: whether they are added to the
    dataset's own.
    """

    images: np.ndarray
    labels: np.ndarray
    description: dict
    origin: synthetic.Origin | None = None
    mixed: bool = False

    def num_examples(self, num_train: int) -> int:
        """Of an epoch: of a mixture as many as without it, else those that one student sees."""
        if self.mixed:
            return num_train
        return -(-len(self.images) // (self.origin.num_teachers if self.origin else 1))

    def table(self, own: Table | None = None, teacher: Teachers | None = None) -> Table:
        """Its labels mean nothing but where they are of the dataset's own.  own: in numpy.

        Errors: InputError where the images were made by several teachers, and the students have others.
        """
        labels = np.zeros(len(self.images), np.int32)
        if self.origin is None:
            return Table(jnp.asarray(self.images), jnp.asarray(labels))
        sources = np.full(len(self.images), FOR_ALL, np.int32)
        if self.origin.num_teachers > 1 and not (teacher and teacher.average):
            num_own = num_ensembles(teacher)
            if num_own != self.origin.num_teachers:
                expected = f"images of 1 teacher, or of {num_own}, as many as --teacher has"
                raise InputError("teachers cannot be paired with images", expected, self.origin.num_teachers)
            sources = self.origin.made_by
        if not self.mixed or own is None:
            arrays = [self.images, labels, sources]
        else:
            real = np.full(len(own.labels), REAL, np.int32)
            pairs = ((own.images, self.images), (own.labels, labels), (real, sources))
            arrays = [np.concatenate(pair) for pair in pairs]
        images, labels, sources = arrays
        return Table(images, labels, sources=sources)  # type: ignore[arg-type]


def is_mixture(name: str) -> bool:
    """Whether a value of --transfer names the dataset's own images and others."""
    return name.startswith(MIXED)


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
    if is_mixture(name):
        return load_mixture(name, options, dataset)
    if any(setting.omitted for setting in settings):
        expected = "no --omit and no --seen, which are of labels"
        raise InputError("a transfer set without labels", expected, given)
    return None if name in NOISES or name == GENERATOR else load_other(name, options, dataset)


def parse_generator(
    name: str,
    objective: str | None,
    rate: float | None,
    width: int | None,
    options: RunConfig,
    dataset: data.Dataset,
    teacher: Teachers | None,
) -> tuple[GeneratorConfig | None, GeneratorHParams | None]:
    """What --transfer=generator asks for: the static part, and its numbers in numpy; (None, None) where
    --transfer is something else. Errors: InputError.

    objective, rate, width: the values of --generator_objective and so on; None: not given.
    """
    if name != GENERATOR:
        for flag, value in (("objective", objective), ("rate", rate), ("width", width)):
            if value is not None:
                what = f"--generator_{flag} means nothing here"
                raise InputError(what, f"--transfer={GENERATOR} with it", f"--transfer={name}")
        return None, None
    height, width, _ = dataset.train_images.shape[1:]
    if height % 4 or width % 4:
        expected = "images whose sides are multiples of 4"
        raise InputError(f"--transfer={GENERATOR} cannot draw them", expected, f"{height} x {width}")
    if teacher is None or teacher.average or len(teacher.models) > 1:
        expected = "one teacher for each student, --teacher_seeds=paired or first"
        raise InputError(f"--transfer={GENERATOR} asks one teacher", expected, "another number of them")
    if augmentation.queries(options) or augmentation.only_flips(options):
        raise InputError(f"--transfer={GENERATOR} augments nothing", "no augmentation", "some")
    (rate,) = parse_numbers("generator_rate", str(1e-3 if rate is None else rate), positive=True)
    minimised, interval = OBJECTIVES[objective or "adversarial"]
    hparams = GeneratorHParams(np.float32(rate), np.float32(0.1), np.float32(5))  # type: ignore[arg-type]
    return GeneratorConfig(minimised, interval, width or 32), hparams


def load_mixture(name: str, options: RunConfig, dataset: data.Dataset) -> Transfer:
    """The images that are added to the dataset's own. Errors: InputError where they were not made from a
    teacher: the labels of others would be masked by nothing."""
    path = name.removeprefix(MIXED)
    other = load_other(path, options, dataset) if path.endswith(".npz") else None
    if other is None or other.origin is None:
        expected = "own+FILE.npz, a file that `synthesize` wrote"
        raise InputError("--transfer names no images of a teacher", expected, f"--transfer={name}")
    return other._replace(mixed=True)


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
    origin = synthetic.read_origin(name) if name.endswith(".npz") else None
    description: dict[str, Any] = {"name": other.name, "fingerprint": other.fingerprint}
    description |= {"origin": origin.provenance} if origin else {}
    return Transfer(other.train_images, other.train_labels, description, origin)


def write_sheet(out: Path, moved: Transfer) -> None:
    """The images that were made from teachers, on a sheet in the run folder; nothing of other images."""
    if moved.origin is not None:
        groups = moved.labels * moved.origin.num_teachers + moved.origin.made_by
        run_files.write(out / contact_sheet.FIGURE, contact_sheet.sheet(moved.images, groups))
