"""Logit losses after 2022: DKD, DIST, NKD, logit standardisation; and label smoothing, without a teacher.

Each is alpha times the teacher's part plus (1 - alpha) times the cross-entropy with the labels, as
`soft_loss` is; their papers add the two with the weights 1 and 1, or 1 and 2, so alpha sets the same ratio
at another learning rate. `hparams.beta` is a loss's own number; None: the paper's value in `BETAS`.

An omitted class without shots has no example in the batch, so it is never the target: DKD and NKD learn its
logit in their non-target part alone. Where `hparams.logit_mask` hides logits, they have probability 0 in each
part and no share in any mean. A label whose own logit is hidden leaves both target parts without a gradient.
"""

import dataclasses

import jax
import jax.numpy as jnp

from kd_jax.losses.logits import (
    cross_entropy,
    kl_at_temperature,
    kl_divergence,
    teacher_targets,
    with_labels,
)
from kd_jax.losses.teacher_ablations import NEVER
from kd_jax.types import Batch, BatchLoss, HParams, LossFn

BETAS = {"dkd": 8.0, "dist": 1.0, "nkd": 1.5, "label_smoothing": 0.1}
"""Loss -> the value of `hparams.beta` in its paper (DKD: of most pairs of networks on CIFAR-100, table 6)."""


def _beta(name: str, hparams: HParams) -> jax.Array:
    return jnp.asarray(BETAS[name], jnp.float32) if hparams.beta is None else hparams.beta


def _seen(logits: jax.Array, hparams: HParams) -> jax.Array:
    """bool[1,K], the logits that the loss sees."""
    return jnp.ones((1, logits.shape[-1]), bool) if hparams.logit_mask is None else hparams.logit_mask[None]


def _mean(x: jax.Array, where: jax.Array, less: int = 0) -> jax.Array:
    """Sum along the last axis of the places `where`, divided by their number - `less`, or 1.  [...,1]."""
    num = jnp.sum(where, axis=-1, keepdims=True, dtype=jnp.float32) - less
    return jnp.sum(jnp.where(where, x, 0.0), axis=-1, keepdims=True) / jnp.maximum(num, 1)


def _is_target(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """bool[B,K]."""
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)


def _target_or_not(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Log-probabilities f32[B,2] of the target and of all other classes together."""
    either = [jax.nn.logsumexp(jnp.where(of, logits, NEVER), axis=-1) for of in (target, ~target)]
    return jax.nn.log_softmax(jnp.stack(either, axis=-1))


def dkd_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """alpha T^2 (TCKD + beta NCKD) + (1 - alpha) CE(labels).  -> f32[B].

    TCKD: KL between the teacher's and the student's (p_target, 1 - p_target). NCKD: KL between their
    distributions over the other classes, renormalised. Source: Zhao et al. 2022, equations 5 to 7.
    Departures: their alpha is 1; T^2 is of their code, not of the equations; the label is the target, as in
    their code, also where the teacher is wrong. Their code subtracts 1,000 from the target's logit, which is
    exact for logits up to about that size; here the target's probability is 0.
    """
    teacher_logits, temperature = teacher_targets(batch), hparams.temperature
    target = _is_target(student_logits, batch.labels)
    of_t, of_s = (_target_or_not(logits / temperature, target) for logits in (teacher_logits, student_logits))
    others, of_teacher = (jnp.where(target, NEVER, logits) for logits in (student_logits, teacher_logits))
    part = temperature**2 * kl_divergence(of_t, of_s)
    part += _beta("dkd", hparams) * kl_at_temperature(others, of_teacher, temperature)
    return with_labels(part, student_logits, batch, hparams)


def nkd_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """alpha (target + beta T^2 others) + (1 - alpha) CE(labels).  -> f32[B].

    target: -p_target log q_target at T = 1. others: cross-entropy of the teacher's and the student's
    distributions over the other classes at T, renormalised. Source: Yang et al. 2023, equation 7 (their gamma
    is beta, their lambda is T, 1 by default). Cross-entropies, so the least value is above 0.
    """
    teacher_logits, temperature = teacher_targets(batch), hparams.temperature
    target = _is_target(student_logits, batch.labels)
    p, log_q = jax.nn.softmax(teacher_logits), jax.nn.log_softmax(student_logits)
    of_target = -jnp.sum(jnp.where(target, p * log_q, 0.0), axis=-1)
    student, teacher = (
        jax.nn.log_softmax(jnp.where(target, NEVER, logits) / temperature)
        for logits in (student_logits, teacher_logits)
    )
    weights = jnp.exp(teacher)
    others = -jnp.sum(jnp.where(weights > 0, weights * student, 0.0), axis=-1)
    part = of_target + _beta("nkd", hparams) * temperature**2 * others
    return with_labels(part, student_logits, batch, hparams)


def pearson(x: jax.Array, y: jax.Array, where: jax.Array) -> jax.Array:
    """Correlation of two like arrays along the last axis, of the places `where`; 0 where one is constant.

    f32[m,n], bool[1,n] -> f32[m].
    """
    x, y = (jnp.where(where, z - _mean(z, where), 0.0) for z in (x, y))
    # The square is bounded, not its root, whose gradient at 0 is infinite; 1e-8 as torch's cosine_similarity.
    x, y = (z * jax.lax.rsqrt(jnp.maximum(jnp.sum(z**2, axis=-1, keepdims=True), 1e-16)) for z in (x, y))
    return jnp.sum(x * y, axis=-1)


def _dist_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    temperature, seen = hparams.temperature, _seen(student_logits, hparams)
    q, p = (jax.nn.softmax(logits / temperature) for logits in (student_logits, teacher_targets(batch)))
    inter = 1 - pearson(q, p, seen)
    of_classes = 1 - pearson(q.T, p.T, jnp.ones((1, len(q)), bool))
    intra = _mean(of_classes[None], seen)[:, 0]
    part = temperature**2 * (inter + _beta("dist", hparams) * intra)
    return with_labels(part, student_logits, batch, hparams)


dist_loss = BatchLoss(_dist_loss)
"""alpha T^2 (inter + beta intra) + (1 - alpha) CE(labels).  -> f32[B].

inter: 1 - the correlation, over classes, of an example's probabilities; intra: 1 - that of a class's
probabilities over the batch, the mean over classes, the same number in each entry. Source: Huang et al. 2022,
equations 8 to 10. Departures: T^2 is of their code and torchdistill's; their beta and gamma are equal (1 on
ImageNet, 2 on CIFAR-100): here inter has the weight 1.
"""


def label_smoothing_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """Cross-entropy with (1 - beta) of the label and beta / K of each class that the loss sees, omitted ones
    included; no teacher, no alpha.  -> f32[B].    Source: Szegedy et al. 2016, section 7."""
    seen, share = _seen(student_logits, hparams), _beta("label_smoothing", hparams)
    log_q = jnp.where(seen, jax.nn.log_softmax(student_logits), 0.0)
    uniform = -_mean(log_q, seen)[:, 0]
    return (1 - share) * cross_entropy(student_logits, batch.labels) + share * uniform


def standardize(logits: jax.Array, seen: jax.Array) -> jax.Array:
    """Logits f32[B,K] less their mean, divided by their standard deviation (n - 1) + 1e-7, of those that are
    seen bool[1,K]; the others are NEVER.  Source: Sun et al. 2024, algorithm 1, with the eps of their code.
    """
    centred = jnp.where(seen, logits - _mean(logits, seen), 0.0)
    variance = _mean(centred**2, seen, less=1)
    deviation = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))  # of equal logits, all z are 0 anyway
    return jnp.where(seen, centred / (jnp.where(variance > 0, deviation, 0.0) + 1e-7), NEVER)


@dataclasses.dataclass(frozen=True)
class Standardized:
    """A loss whose teacher's part sees standardised logits of both networks; the labels' part does not.
    Source: Sun et al. 2024."""

    loss: LossFn

    def __call__(self, student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
        seen = _seen(student_logits, hparams)
        taught = batch.replace(teacher_logits=standardize(teacher_targets(batch), seen))
        alone = hparams.replace(alpha=jnp.ones_like(hparams.alpha))
        part = self.loss(standardize(student_logits, seen), taught, alone)
        return with_labels(part, student_logits, batch, hparams)


def standardized(loss_fn: LossFn) -> LossFn:
    """The loss with `Standardized` logits; a relation of the batch stays one."""
    if isinstance(loss_fn, BatchLoss):
        return BatchLoss(Standardized(loss_fn.function))
    return Standardized(loss_fn)
