"""The words of the whole library: axis letters, the pytrees that travel, aliases of the function types.

Axis letters, used in every docstring:
    R runs = H settings x S seeds;  E epochs;  U updates an epoch;  B batch;  N examples;
    K classes;  M teachers;  h, w, c image height, width, channels;  D features.

Numbers are traced, structure is static: every scalar that a sweep varies, the class mask included, is a
leaf of `HParams`; whatever changes a shape or the graph is an argument that the compiler sees as static.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax

Variables = dict[str, Any]
"""A model's arrays as Flax collections: {"params": ...}, and {"batch_stats": ...} where it has state."""


class Table(flax.struct.PyTreeNode):
    """The examples that training draws from: one copy on the device for all runs; a batch is `table[index]`.

    images: u8[N,h,w,c].
    labels: i32[N].
    teacher_logits: for each group of teachers f32[M,N,K], each one's outputs on `images`, or f32[M,2N,K] with
        those on the mirror images after them; None where nothing is distilled, or where the teachers are
        queried on the augmented images instead.
    teacher_variables: for each group its variables, leading axis M; None unless the teachers are queried.
    teacher_features: of the one group f32[M,N,...] for each layer that a feature loss reads, where they are
        cached; None elsewhere.
    by_class: i32[N], the examples ordered by class, which CRD draws from, and class_sizes: i32[K], how many
        there are of each; None elsewhere.
    sources: i32[N]: REAL of an example of the data; of an image that was made from teachers alone, the number
        of the teacher whose students it is for, or FOR_ALL; None: all are real.

    A group are M teachers of one structure that differ by their seed; M may differ between groups.
    """

    images: jax.Array
    labels: jax.Array
    teacher_logits: tuple[jax.Array, ...] | None = None
    teacher_variables: tuple[Variables, ...] | None = None
    teacher_features: tuple[jax.Array, ...] | None = None
    by_class: jax.Array | None = None
    class_sizes: jax.Array | None = None
    sources: jax.Array | None = None


REAL, FOR_ALL = -1, -2
"""Values of `Table.sources`."""


class GeneratorHParams(flax.struct.PyTreeNode):
    """Of a run's generator, each f32[]. learning_rate: its peak. activation, entropy: weights of dafl's
    parts."""

    learning_rate: jax.Array
    activation: jax.Array
    entropy: jax.Array


class HParams(flax.struct.PyTreeNode):
    """What one run varies; with a leading axis R when stacked.

    learning_rate, weight_decay, temperature, alpha: f32[]; weight_decay None: no run has any.
    class_mask: bool[K], True for the classes whose examples the run may see.
    teacher: i32[], which teacher of each group this run learns from (unread when all are averaged).
    num_shots: i32[], examples of each omitted class kept for training; None: the feature is off.
    teacher_ablation: i32[], index in TEACHER_ABLATIONS of the part of the teacher's output that the run gets;
        None: the feature is off.
    synthetic_share: f32[], share of an epoch's examples that are taken from those that are not real; None:
        the table holds no mixture.
    generator: GeneratorHParams; None: no run has a generator.
    logit_mask: bool[K + A], the logits that the loss sees; None: all. K logits of classes come first, then A
        auxiliary ones, which no label names (Cloud et al. 2025, section 6.2).
    beta: f32[], a loss's own number, as the weight of its second term; None: the default of the loss.
    feature_weight: f32[], weight of the feature loss, which is added; None: there is none.
    """

    learning_rate: jax.Array
    weight_decay: jax.Array | None
    temperature: jax.Array
    alpha: jax.Array
    class_mask: jax.Array
    teacher: jax.Array
    num_shots: jax.Array | None = None
    teacher_ablation: jax.Array | None = None
    logit_mask: jax.Array | None = None
    beta: jax.Array | None = None
    feature_weight: jax.Array | None = None
    synthetic_share: jax.Array | None = None
    generator: GeneratorHParams | None = None


class TrainState(flax.struct.PyTreeNode):
    """All that a run needs to go on: arrays only, no functions inside.

    key: the run's typed PRNG key. It is never consumed: every draw folds a purpose and a counter into it,
        so a run resumed at any epoch draws the same numbers.
    epoch: i32[], the number of finished epochs.
    diverged: bool[], whether an epoch left a number that is not finite; the others are as before that epoch.
    generator: GeneratorState of a run that is taught on generated images; None of others.
    of_features: of a feature loss {"connector": its parameters, "memory": what it keeps of the examples};
        else empty.
    """

    params: Any
    model_state: Any
    opt_state: Any
    key: jax.Array
    epoch: jax.Array
    diverged: jax.Array
    generator: Any = None
    of_features: dict[str, Any] = flax.struct.field(default_factory=dict)


class Batch(flax.struct.PyTreeNode):
    """What a loss sees of the data. labels: i32[B]; teacher_logits: f32[B,K] or None; teacher_features:
    [B,...] of each layer that a feature loss reads, or None."""

    labels: jax.Array
    teacher_logits: jax.Array | None = None
    teacher_features: tuple[jax.Array, ...] | None = None


class Counts(flax.struct.PyTreeNode):
    """Sums over examples; ratios are taken on the host.

    correct, support: i32[K] per true class; loss_sum: f32[]; agree: i32[], examples on which student and
    teacher name the same class.
    """

    correct: jax.Array
    support: jax.Array
    loss_sum: jax.Array
    agree: jax.Array


LossFn = Callable[[jax.Array, Batch, HParams], jax.Array]
"""(student_logits f32[B,K], batch, hparams) -> f32[B], per example; the reduction belongs to the caller."""


@dataclasses.dataclass(frozen=True)
class BatchLoss:
    """A LossFn that relates the examples of a batch to each other: its entry i depends on all of them. The
    mean of the entries is the loss of the paper. Called as the function is."""

    function: LossFn

    def __call__(self, student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
        return self.function(student_logits, batch, hparams)


Augment = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, images u8[B,h,w,c]) -> images u8[B,h,w,c]; the key is consumed."""
