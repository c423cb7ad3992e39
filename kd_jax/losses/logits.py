"""Per-example distillation losses: cross-entropy, soft targets and their divergences, logits.

A loss is per example and checked on entry; the reduction belongs to the caller. The teacher's logits are
data: no gradient flows into them.
"""

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import optax

from kd_jax.types import Batch, HParams, LossFn


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label].  logits f32[B,K], labels i32[B] -> f32[B]."""
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_type([logits, labels], [float, int])
    # Less their largest: else the normaliser is as large as the logits, and rounded at that size.
    logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def log_probabilities(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(student's, teacher's) logarithms of softmax(logits / T), f32[B,K].  temperature: f32[], > 0."""
    chex.assert_rank([student_logits, teacher_logits, temperature], [2, 2, 0])
    chex.assert_equal_shape([student_logits, teacher_logits])
    log_student = jax.nn.log_softmax(student_logits / temperature)
    return log_student, jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits) / temperature)


def kl_at_temperature(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: jax.Array
) -> jax.Array:
    """T^2 KL(softmax(teacher/T) || softmax(student/T)), summed over classes.

    T^2 keeps the gradient's size independent of T: it scales as 1/T^2 (Hinton et al. 2015, section 2).

    Args: as of `log_probabilities`.  Returns: f32[B], nats.
    """
    log_student, log_teacher = log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * kl_divergence(log_teacher, log_student)


def kl_divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q), summed over classes.  Both f32[B,K], logarithms of distributions -> f32[B], nats.

    In log space, so no probability that underflows gives a nan. With d = log q - log p, the sum over classes
    of -p d is that of q - p - p d = p (e^d - 1 - d), whose terms are all >= 0: nothing cancels where d is
    small, as at large T, whose square would magnify the rounding.
    """
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    difference = jnp.where(p > 0, log_q - log_p, 0.0)
    near = (jnp.abs(difference) < 1) & (p > 0)
    small = jnp.where(near, difference, 0.0)
    terms = jnp.where(near, p * (jnp.expm1(small) - small), q - p - p * difference)
    return jnp.sum(terms, axis=-1)


def teacher_targets(batch: Batch) -> jax.Array:
    """The batch's teacher logits f32[B,K], without a gradient. Errors: ValueError where it has none."""
    if batch.teacher_logits is None:
        raise ValueError("this loss distils: the batch must hold teacher_logits f32[B,K]")
    return jax.lax.stop_gradient(batch.teacher_logits)


def labels_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """Cross-entropy with the true labels; no teacher.  -> f32[B]."""
    return cross_entropy(student_logits, batch.labels)


def with_labels(part: jax.Array, student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """alpha `part` + (1 - alpha) CE(labels).  part: f32[B], the teacher's.  -> f32[B]."""
    return hparams.alpha * part + (1 - hparams.alpha) * cross_entropy(student_logits, batch.labels)


def soft_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """alpha T^2 KL(teacher_T || student_T) + (1 - alpha) CE(labels); alpha = 0 is the plain student.

    Returns: f32[B].     Source: Hinton et al. 2015, section 2.
    """
    soft = kl_at_temperature(student_logits, teacher_targets(batch), hparams.temperature)
    return with_labels(soft, student_logits, batch, hparams)


def reverse_kl_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """alpha T^2 KL(student_T || teacher_T) + (1 - alpha) CE(labels).  -> f32[B].

    Source: the divergence of Gu et al. 2024 (MiniLLM), section 2.1, with the T^2 of Hinton et al. 2015.
    """
    log_q, log_p = log_probabilities(student_logits, teacher_targets(batch), hparams.temperature)
    return with_labels(hparams.temperature**2 * kl_divergence(log_q, log_p), student_logits, batch, hparams)


def jensen_shannon_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """alpha T^2 (KL(p || m) + KL(q || m)) / 2 + (1 - alpha) CE(labels) of p, q = teacher_T, student_T and
    m = (p + q) / 2.  -> f32[B]; the first part is at most T^2 log 2.

    Source: Lin 1991, section IV; as of distillation Agarwal et al. 2024, equation 1 at beta = 1/2. Both have
    no T^2; here it is as in `kl_at_temperature`.
    """
    log_q, log_p = log_probabilities(student_logits, teacher_targets(batch), hparams.temperature)
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    part = hparams.temperature**2 * 0.5 * (kl_divergence(log_p, log_m) + kl_divergence(log_q, log_m))
    return with_labels(part, student_logits, batch, hparams)


def hard_label_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """alpha CE(teacher's argmax) + (1 - alpha) CE(labels); the temperature has no part in it.  -> f32[B]."""
    named = jnp.argmax(teacher_targets(batch), axis=-1).astype(batch.labels.dtype)
    taught = cross_entropy(student_logits, named)
    return with_labels(taught, student_logits, batch, hparams)


def logits_loss(student_logits: jax.Array, batch: Batch, hparams: HParams) -> jax.Array:
    """alpha |student - teacher|^2 / 2 + (1 - alpha) CE(labels), the squares summed over logits.  -> f32[B].

    Source: Ba & Caruana 2014, section 2.2; the limit of K T^2 KL at large T, where both networks' logits
    have the mean 0 (Hinton et al. 2015, section 2.1).
    """
    distance = 0.5 * jnp.sum((student_logits - teacher_targets(batch)) ** 2, axis=-1)
    return with_labels(distance, student_logits, batch, hparams)


def average_teachers(teacher_logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """Logits whose softmax at T is the mean of the teachers' softmax at T.

    Args: teacher_logits: f32[M,B,K]; temperature: f32[].  Returns: f32[B,K].
    Source: Hinton et al. 2015, section 1 (the ensemble's arithmetic mean as the soft target).
    """
    chex.assert_rank(teacher_logits, 3)
    log_probabilities = jax.nn.log_softmax(teacher_logits / temperature)
    return temperature * (jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(teacher_logits.shape[0]))


def average_logits(teacher_logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """The mean of the teachers' logits, whatever the temperature.  f32[M,B,K] -> f32[B,K].

    Source: Ba & Caruana 2014 (the student regresses on the ensemble's averaged logits).
    """
    return jnp.mean(teacher_logits, axis=0)


def average_answers(teacher_logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """`average_teachers` at T = 1, whatever the temperature: its argmax is the ensemble's answer."""
    return average_teachers(teacher_logits, jnp.ones(()))


def combine_teachers(groups: Sequence[jax.Array], temperature: jax.Array, loss_fn: LossFn) -> jax.Array:
    """The target that the teachers of several groups make for this loss: their ensemble as of
    `ENSEMBLE_TARGETS`. A lone teacher's logits are taken as they are, so an ensemble of one is that teacher.

    Args: groups: of each group f32[C,B,K], the logits of those C of its teachers that teach; temperature:
        f32[].  Returns: f32[B,K].
    """
    if sum(len(group) for group in groups) == 1:
        return groups[0][0]
    return ENSEMBLE_TARGETS[ensemble_kind(loss_fn)](jnp.concatenate(groups), temperature)


def ensemble_kind(loss_fn: LossFn) -> LossFn:
    """The loss of `ENSEMBLE_TARGETS` to which several teachers are the same as to this one, which may be
    `Standardized`: `soft_loss` where it is not named there."""
    inner = getattr(loss_fn, "loss", loss_fn)
    return inner if inner in ENSEMBLE_TARGETS else soft_loss


ENSEMBLE_TARGETS: dict[LossFn, Callable[[jax.Array, jax.Array], jax.Array]] = {
    soft_loss: average_teachers,
    hard_label_loss: average_answers,
    logits_loss: average_logits,
}
"""What several teachers are to a loss: (logits f32[M,B,K], temperature f32[]) -> f32[B,K]. To a loss that is
not named here: what they are to `soft_loss`."""
