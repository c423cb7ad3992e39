"""The static part of a training: whatever changes a shape or the graph."""

import dataclasses
from collections.abc import Callable
from typing import Any

from kd_jax.models import network_of
from kd_jax.train.generator import GeneratorConfig
from kd_jax.train.noise import Noise
from kd_jax.train.optim import OPTIMIZERS, Cosine, Optimizer, UnitSchedule
from kd_jax.types import Augment, Counts, LossFn


@dataclasses.dataclass(frozen=True)
class FeatureMatch:
    """A feature loss as a part of a training.

    loss: a name of losses.FEATURE_LOSSES. student_layers, teacher_layers: equally many names of features.
    teacher_model: the module of the group of teachers. num_examples, num_negatives: of CRD the rows of its
        memory, the N of the table, and how many of them each example is contrasted with.
    """

    loss: str
    student_layers: tuple[str, ...]
    teacher_layers: tuple[str, ...]
    teacher_model: Any
    num_examples: int = 0
    num_negatives: int = 0


@dataclasses.dataclass(frozen=True)
class Config:
    """Whatever changes a shape or the graph; hashable, so the compiler sees it as static. Equal by value if
    its fields are: two equal ones share one trace and one compiled program.

    model: the module that is trained. image_shape: (h, w, c). num_classes: K.
    num_updates: U, updates an epoch, each on batch_size examples.
    max_norm: of each hidden unit's incoming weights, or None.
    augment: (key, images u8[B,h,w,c]) -> images u8[B,h,w,c], or None.
    mixup: concentration of the Beta distribution of the shares (Zhang et al. 2018), > 0, or None.
    teacher_models: of each group of teachers, queried on the augmented images; where there is none, the
        table's cached logits are used.
    average_teachers: all teachers make the target, instead of the one of each group that `hparams.teacher`
        names. What several teachers are together depends on loss_fn (`losses.ENSEMBLE_TARGETS`).
    freeze_backbone: the classifier alone is trained, on features in evaluation mode (`models.forward_head`).
    noise: each batch is drawn by it instead of being read from the table; the teachers are then queried.
    generator: each batch is drawn by the run's own generator, which is trained too; the teacher is queried.
    repeat_noise: every epoch draws the same batches, as from a stored set, instead of new ones.
    monitor: (model, variables, validation, hparams, num_classes) -> more entries of the history after each
        epoch, as evaluate/monitor.py measures them; needs a validation split.
    feature_match: the feature loss and the layers that it compares, or None. Then there is one group of
        teachers, of which each run has one.
    has_labels: False where what is trained on has no labels, as noise: the teachers' answers stand for them.
    """

    model: Any
    image_shape: tuple[int, int, int]
    num_classes: int
    loss_fn: LossFn
    optimizer: Optimizer
    schedule: UnitSchedule
    batch_size: int
    num_updates: int
    max_norm: float | None = None
    augment: Augment | None = None
    mixup: float | None = None
    teacher_models: tuple[Any, ...] = ()
    average_teachers: bool = False
    freeze_backbone: bool = False
    noise: Noise | None = None
    generator: GeneratorConfig | None = None
    repeat_noise: bool = False
    has_labels: bool = True
    monitor: Callable[..., dict[str, Counts]] | None = None
    feature_match: FeatureMatch | None = None


def make_config(
    model: Any,
    images_shape: tuple[int, ...],
    loss_fn: LossFn,
    num_epochs: int,
    *,
    batch_size: int = 128,
    optimizer: Optimizer = OPTIMIZERS["adam"],
    schedule: Callable[[int], UnitSchedule] = Cosine,
    **options: Any,
) -> Config:
    """The static part of a training of `num_epochs` epochs, each of so many updates that every example is
    met once.

    images_shape: (N, h, w, c) of what is trained on.  schedule: number of updates in all -> unit schedule.
    options: more fields of Config.
    """
    num_examples, *image_shape = images_shape
    num_updates = -(-num_examples // batch_size)
    return Config(
        model=model,
        image_shape=tuple(image_shape),  # type: ignore[arg-type]
        num_classes=network_of(model).num_classes,
        loss_fn=loss_fn,
        optimizer=optimizer,
        schedule=schedule(num_updates * num_epochs),
        batch_size=batch_size,
        num_updates=num_updates,
        **options,
    )
