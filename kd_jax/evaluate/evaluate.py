"""Evaluation of trained students: the bias that each rule chooses, confusion matrices, calibration.

Everything stays on the device until it is counted.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.evaluate import bias_correction, metrics
from kd_jax.models import predict, predict_stacked
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.train.keys import MIXTURES
from kd_jax.train.sampling import real_mask
from kd_jax.train.sweep import gather, on_mesh, over_runs
from kd_jax.types import HParams, LossFn, Table, Variables

NUM_MIXTURES = 10_000
MOST_EXAMPLES = 24


class EvaluationData(flax.struct.PyTreeNode):
    """The data that the rules of bias correction may use.

    train: the transfer set; a run uses the examples of its class mask. validation: None where there is none.
    teacher_variables: of each group of teachers, with leading axis M; or None.
    """

    train: Table
    validation: Table | None
    test: Table
    teacher_variables: tuple[Variables, ...] | None


class EvaluationOutcome(NamedTuple):
    """What the evaluation of R students gives; within the mapped program, of one student, without the axis R.

    biases: of each correction f32[R]. confusions: of each split, of each correction i32[R,K,K].
    curve: i32[R,G,K], right test predictions per class under each bias of the grid.
    quality: of each split the sums of `metrics.quality`, uncorrected. examples: of each correction what
        `first_examples` gives.
    """

    biases: dict[str, Any]
    confusions: dict[str, dict[str, Any]]
    curve: Any
    quality: dict[str, dict[str, Any]]
    examples: dict[str, dict[str, Any]]


def query_teachers(
    teacher_models: tuple[Any, ...],
    average_teachers: bool,
    loss_fn: LossFn,
    teacher_variables: tuple[Variables, ...],
    hparams: HParams,
    images: jax.Array,
) -> jax.Array:
    """The target that a run's teachers give to its loss: logits at T = 1.  images: u8[N,h,w,c] -> f32[N,K].

    teacher_models, average_teachers, loss_fn: as in `train.Config`; teacher_variables: leading axis M in each
    group.
    """
    each = []
    for model, variables in zip(teacher_models, teacher_variables, strict=True):
        if average_teachers:
            each.append(jax.lax.map(lambda one, model=model: predict(model, one, images), variables))
        else:
            of_run = jax.tree.map(lambda leaf: leaf[hparams.teacher], variables)
            each.append(predict(model, of_run, images)[None])
    return losses.combine_teachers(each, jnp.ones(()), loss_fn)


class CorrectionInputs(NamedTuple):
    """What the rule of a correction may look at, of one student; see stats/corrections.py.

    logits, labels: f32[N,K] and i32[N] of the splits "test" and, where there is one, "validation"; omitted:
    bool[K]; share_of_teacher: () -> (f32[N,K], f32[]), the student's logits on averaged pairs of transfer
    images and the share of these that its teacher assigns to omitted classes.
    """

    logits: dict[str, jax.Array]
    labels: dict[str, jax.Array]
    omitted: jax.Array
    share_of_teacher: Callable[[], tuple[jax.Array, jax.Array]]

    def no_bias(self) -> jax.Array:
        return jnp.zeros(())

    def min_error_bias(self, split: str) -> jax.Array:
        return bias_correction.min_error_bias(self.logits[split], self.labels[split], self.omitted)

    def prior_matching_bias(self, split: str) -> jax.Array:
        """By the share of the omitted classes within the split: where a class is rare, that of the training
        set may round to no example, though the split holds one. Only how many there are is used, not which.
        """
        share = jnp.mean(self.omitted[self.labels[split]].astype(jnp.float32))
        return bias_correction.prior_matching_bias(self.logits[split], self.omitted, share)

    def teacher_matching_bias(self) -> jax.Array:
        def matched():
            logits, share = self.share_of_teacher()
            return bias_correction.prior_matching_bias(logits, self.omitted, share)

        # Where nothing is omitted, two networks would be asked about thousands of images for nothing.
        return jax.lax.cond(jnp.any(self.omitted), matched, lambda: jnp.zeros(()))


def choose_biases(
    model: Any,
    teacher_models: tuple[Any, ...],
    average_teachers: bool,
    loss_fn: LossFn,
    evaluation_data: EvaluationData,
    variables: Variables,
    hparams: HParams,
    key: jax.Array,
    logits: dict[str, jax.Array],
) -> dict[str, jax.Array]:
    """One student's bias f32[] by each rule of CORRECTIONS that the data allow; "none" is 0.

    key: the run's own, not consumed. logits: of the splits "test" and, where there is one, "validation".
    """
    omitted, teacher_variables = ~hparams.class_mask, evaluation_data.teacher_variables

    def share_of_teacher():
        mask = real_mask(evaluation_data.train, hparams.class_mask)
        mixed_key = jax.random.fold_in(key, MIXTURES)
        images = bias_correction.average_image_pairs(
            mixed_key, evaluation_data.train.images, mask, NUM_MIXTURES
        )
        answers = query_teachers(
            teacher_models, average_teachers, loss_fn, teacher_variables or (), hparams, images
        )
        return predict(model, variables, images), bias_correction.omitted_share(answers, omitted)

    labels = {split: table.labels for split, table in splits_of(evaluation_data).items()}
    inputs = CorrectionInputs(logits, labels, omitted, share_of_teacher)
    lacking = {"teacher"} if teacher_variables is None else set()
    if evaluation_data.validation is None:
        lacking |= {"validation_images", "validation_labels"}
    return {name: rule.choose(inputs) for name, rule in CORRECTIONS.items() if rule.needs not in lacking}


def evaluate_runs(
    model: Any,
    teacher_models: tuple[Any, ...],
    average_teachers: bool,
    loss_fn: LossFn,
    evaluation_data: EvaluationData,
    grid: jax.Array,
    variables: Variables,
    hparams: HParams,
    keys: jax.Array,
) -> EvaluationOutcome:
    """Biases, confusion matrices, bias curves and calibration of R students, a device's one after another.

    Args: teacher_models, average_teachers, loss_fn: as in `train.Config`; grid: f32[G], biases of the curve;
        hparams: leading axis R; variables, keys: leading axis R, or on the mesh with its padding.
    Returns: numpy, with leading axis R.
    """
    num_runs = hparams.alpha.shape[0]
    mesh, shared, runs = on_mesh((evaluation_data, grid), (variables, hparams, keys), num_runs)
    kind = losses.ensemble_kind(loss_fn)  # losses that differ in nothing else share one compiled program
    return gather(_evaluate_all(model, teacher_models, average_teachers, kind, mesh, shared, runs), num_runs)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _evaluate_all(model, teacher_models, average_teachers, loss_fn, mesh, shared, runs):
    evaluation_data, grid = shared
    taught = {}
    if evaluation_data.teacher_variables is not None:  # once for the M teachers, not again for each student
        taught = {
            split: [
                predict_stacked(*group, table.images)
                for group in zip(teacher_models, evaluation_data.teacher_variables, strict=True)
            ]
            for split, table in splits_of(evaluation_data).items()
        }
    assess = partial(_evaluate_run, model, teacher_models, average_teachers, loss_fn)
    return over_runs(assess, mesh, 1)((evaluation_data, grid, taught), runs)


def splits_of(evaluation_data: EvaluationData) -> dict[str, Table]:
    """The splits that students are evaluated on."""
    held_out = {} if evaluation_data.validation is None else {"validation": evaluation_data.validation}
    return held_out | {"test": evaluation_data.test}


def _evaluate_run(model, teacher_models, average_teachers, loss_fn, shared, run):
    """`evaluate_runs` of one run."""
    evaluation_data, grid, taught = shared
    variables, hparams, key = run
    splits = splits_of(evaluation_data)

    omitted = ~hparams.class_mask
    logits = {name: predict(model, variables, table.images) for name, table in splits.items()}
    biases = choose_biases(
        model, teacher_models, average_teachers, loss_fn, evaluation_data, variables, hparams, key, logits
    )

    def confusion(split, value):
        predicted = jnp.argmax(bias_correction.add_class_bias(logits[split], omitted, value), axis=-1)
        return metrics.confusion(predicted, splits[split].labels, logits[split].shape[-1])

    def examples(value):
        before, after = (
            jnp.argmax(bias_correction.add_class_bias(logits["test"], omitted, b), axis=-1)
            for b in (biases["none"], value)
        )
        return first_examples(before, after, splits["test"].labels, omitted)

    def quality(split):
        teacher_logits = None
        if taught:
            selected = [
                group if average_teachers else group[hparams.teacher][None] for group in taught[split]
            ]
            teacher_logits = losses.combine_teachers(selected, jnp.ones(()), loss_fn)
        return metrics.quality(logits[split], splits[split].labels, teacher_logits)

    return EvaluationOutcome(
        biases=biases,
        confusions={
            split: {name: confusion(split, value) for name, value in biases.items()} for split in splits
        },
        curve=bias_correction.curve(logits["test"], evaluation_data.test.labels, omitted, grid),
        quality={split: quality(split) for split in splits},
        examples={name: examples(value) for name, value in biases.items()},
    )


def first_examples(
    before: jax.Array, after: jax.Array, labels: jax.Array, omitted: jax.Array
) -> dict[str, jax.Array]:
    """The first examples of omitted classes that are wrong as trained.

    Args: before, after: i32[N], predictions as trained and under a correction; labels i32[N]; omitted
        bool[K].
    Returns: "index" i32[48]: places of the first 24 that the correction makes right, then of the first 24
        that stay wrong; N where there are no more. "before", "after" i32[48]: their predictions.
    """
    wrong = omitted[labels] & (before != labels)
    groups = (wrong & (after == labels), wrong & (after != labels))
    size = {"size": MOST_EXAMPLES, "fill_value": labels.shape[0]}
    index = jnp.concatenate([jnp.nonzero(group, **size)[0] for group in groups]).astype(jnp.int32)
    last = jnp.minimum(index, labels.shape[0] - 1)
    return {"index": index, "before": before[last], "after": after[last]}


def confusions(
    model, num_classes: int, variables: Variables, images: jax.Array, labels: jax.Array, num_runs: int
):
    """Confusion matrices of R models by their class outputs, numpy i32[R,K,K].

    variables: leading axis R, or on the mesh with its padding; images u8[N,h,w,c]; labels i32[N].
    """
    mesh, shared, runs = on_mesh((images, labels), variables, num_runs)
    return gather(_confusions(model, num_classes, mesh, shared, runs), num_runs)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _confusions(model, num_classes, mesh, shared, runs):
    def one(shared, variables):
        images, labels = shared
        logits = predict(model, variables, images)[:, :num_classes]
        return metrics.confusion(jnp.argmax(logits, axis=-1), labels, num_classes)

    return over_runs(one, mesh, 1)(shared, runs)
