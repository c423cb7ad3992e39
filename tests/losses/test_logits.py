"""Losses against float64 NumPy, over random and extreme inputs, and each known mistake of such losses.

The reference works in float64 with scipy's log_softmax and knows nothing of the code under test:
    value     T^2 sum_k p_k (log p_k - log q_k),  p = softmax(t/T), q = softmax(s/T)
    gradient  d value / d s = T (q - p)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

from kd_jax import losses
from kd_jax.types import Batch, BatchLoss, HParams

EPS = float(np.finfo(np.float32).eps)


def hparams(alpha=1.0, temperature=1.0, num_classes=5) -> HParams:
    number = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    mask = jnp.ones(num_classes, bool)
    return HParams(number(0), number(0), number(temperature), number(alpha), mask, jnp.int32(0))


def random_logits(seed: int, shape: tuple[int, ...], scale: float) -> np.ndarray:
    return (scale * np.random.RandomState(seed).standard_normal(shape)).astype(np.float32)


def reference_kl(student, teacher, temperature):
    log_q = log_softmax(np.float64(student) / temperature, axis=-1)
    log_p = log_softmax(np.float64(teacher) / temperature, axis=-1)
    return temperature**2 * np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)


def reference_gradient(student, teacher, temperature):
    p, q = (softmax(np.float64(x) / temperature, axis=-1) for x in (teacher, student))
    return temperature * (q - p)


@jax.jit
def kl_and_gradient(student, teacher, temperature):
    kl = losses.kl_at_temperature
    gradient = jax.grad(lambda s: jnp.sum(kl(s, teacher, temperature)))(student)
    return kl(student, teacher, temperature), gradient


def check_kl(student, teacher, temperature, rounding):
    """Both against float64, within the rounding of log-probabilities as large as max |logit| / T (one factor
    T less in the gradient), and `rounding` times eps T^2 for the sum's own."""
    value, gradient = kl_and_gradient(student, teacher, jnp.float32(temperature))
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))
    size = max(np.abs(student).max(), np.abs(teacher).max())
    exact = np.float64(np.float32(temperature))
    slack = 8 * EPS * exact * size + rounding * EPS * exact**2
    np.testing.assert_allclose(value, reference_kl(student, teacher, exact), rtol=1e-5, atol=slack)
    slack = 8 * EPS * (size + exact)
    np.testing.assert_allclose(gradient, reference_gradient(student, teacher, exact), rtol=1e-4, atol=slack)


@pytest.mark.parametrize("shape", [(1, 2), (7, 5)], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 1e4])
@pytest.mark.parametrize("temperature", [1e-2, 0.3, 1.0, 20.0, 1e2, 1e4])
def test_kl_is_the_reference(shape, scale, temperature):
    student, teacher = random_logits(1, shape, scale), random_logits(2, shape, scale)
    check_kl(student, teacher, temperature, rounding=4)


@pytest.mark.parametrize("temperature", [20.0, 1e2, 1e3, 1e4])
def test_kl_keeps_its_digits_at_large_temperature(temperature):
    """For T >> |logits| the value tends to half the variance of s - t over the classes, about 1 here, so it
    has to be right to 1 % whatever T."""
    student, teacher = random_logits(3, (7, 5), 1.0), random_logits(4, (7, 5), 1.0)
    value, _ = kl_and_gradient(student, teacher, jnp.float32(temperature))
    np.testing.assert_allclose(value, reference_kl(student, teacher, temperature), rtol=0.01)


def test_kl_where_one_side_is_certain():
    """t = (1e4, -1e4), s = (-1e4, 1e4), T = 1: p = (1, 0), log q_0 = -2e4: value 2e4, gradient (-1, 1)."""
    student, teacher = np.float32([[-1e4, 1e4]]), np.float32([[1e4, -1e4]])
    value, gradient = kl_and_gradient(student, teacher, jnp.float32(1))
    np.testing.assert_allclose(value, [2e4], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-1, 1]], atol=1e-6)


def test_kl_with_a_class_the_teacher_rules_out():
    """A logit of -inf is probability 0, and 0 log 0 = 0: p = (.5, .5, 0), q = (1/3, 1/3, 1/3): log 1.5."""
    student, teacher = np.zeros((1, 3), np.float32), np.float32([[0, 0, -np.inf]])
    value, gradient = kl_and_gradient(student, teacher, jnp.float32(1))
    np.testing.assert_allclose(gradient, [[-1 / 6, -1 / 6, 1 / 3]], rtol=1e-5)
    np.testing.assert_allclose(value, [np.log(1.5)], rtol=1e-5)


def test_kl_by_hand():
    """T = 2, t = (2 ln 3, 0): p = (3/4, 1/4); s = 0: q = (1/2, 1/2).

    KL(p||q) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812; times T^2 = 4: 0.523248.
    Swapped, KL(q||p) = 1/2 ln(2/3) + 1/2 ln 2 = 0.143841, times 4: 0.575364. Class means: half.
    """
    teacher = np.float32([[2 * np.log(3), 0]])
    value, gradient = kl_and_gradient(np.zeros((1, 2), np.float32), teacher, jnp.float32(2))
    np.testing.assert_allclose(value, [0.523248], rtol=1e-5)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5]], rtol=1e-5)  # T (q - p) = 2 (1/2 - 3/4), 2 (1/2 - 1/4)


def test_kl_does_not_shrink_with_the_number_of_classes():
    """t = (ln 9, 0, ..., 0) over K = 10 classes, T = 1: p = (1/2, 1/18, ...); s = 0: q = 1/10 each.
    KL = 1/2 ln 5 + 1/2 ln(10/18) = 0.510826."""
    teacher = np.zeros((1, 10), np.float32)
    teacher[0, 0] = np.log(9)
    value = losses.kl_at_temperature(jnp.zeros((1, 10)), jnp.asarray(teacher), jnp.float32(1))
    np.testing.assert_allclose(value, [0.510826], rtol=1e-5)


def test_gradient_keeps_its_size_as_temperature_grows():
    """T (q - p) -> (s - t) / K, centred, for T >> |logits| (Hinton et al. 2015, eq. 4); without T^2, to 0."""
    student, teacher = random_logits(5, (7, 5), 1.0), random_logits(6, (7, 5), 1.0)
    difference = np.float64(student) - teacher
    limit = (difference - difference.mean(axis=-1, keepdims=True)) / 5
    for temperature in (1e2, 1e3):
        _, gradient = kl_and_gradient(student, teacher, jnp.float32(temperature))
        np.testing.assert_allclose(gradient, limit, atol=0.01)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_no_gradient_reaches_the_teacher(name):
    student, labels = random_logits(7, (7, 5), 2.0), jnp.arange(7, dtype=jnp.int32) % 5

    def total(teacher):
        return jnp.sum(losses.LOSSES[name](jnp.asarray(student), Batch(labels, teacher), hparams(0.7, 3.0)))

    assert not np.any(jax.jit(jax.grad(total))(random_logits(8, (7, 5), 2.0)))


def test_no_gradient_of_the_divergence_alone_reaches_the_teacher():
    student, teacher = (jnp.asarray(random_logits(seed, (7, 5), 2.0)) for seed in (7, 8))
    total = lambda teacher: jnp.sum(losses.kl_at_temperature(student, teacher, jnp.float32(3)))  # noqa: E731
    assert not np.any(jax.jit(jax.grad(total))(teacher))


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 2), (7, 5)], ids=str)
def test_cross_entropy_is_the_reference(shape, scale):
    logits = random_logits(9, shape, scale)
    labels = np.random.RandomState(0).randint(shape[1], size=shape[0]).astype(np.int32)
    rows = np.arange(shape[0])
    log_q = log_softmax(np.float64(logits), axis=-1)
    summed = lambda x: jnp.sum(losses.cross_entropy(x, labels))  # noqa: E731
    value, gradient = jax.jit(lambda x: (losses.cross_entropy(x, jnp.asarray(labels)), jax.grad(summed)(x)))(
        logits
    )
    np.testing.assert_allclose(value, -log_q[rows, labels], rtol=1e-6, atol=8 * EPS * scale)
    np.testing.assert_allclose(gradient, np.exp(log_q) - np.eye(shape[1])[labels], atol=1e-5)


def test_cross_entropy_by_hand():
    """logits (ln 3, 0): softmax (3/4, 1/4): -ln 3/4 and -ln 1/4."""
    logits = jnp.asarray(np.float32([[np.log(3), 0], [np.log(3), 0]]))
    value = losses.cross_entropy(logits, jnp.asarray([0, 1], jnp.int32))
    np.testing.assert_allclose(value, [0.287682, 1.386294], rtol=1e-5)


def test_cross_entropy_of_logits_far_from_zero():
    """Four logits of 1e4, two of -1e4: log 4. The distance of f32's numbers at 1e4 is 0.001."""
    logits = jnp.asarray([[1e4, 1e4, -1e4, 1e4, 1e4, -1e4]])
    value = losses.cross_entropy(logits, jnp.asarray([0], jnp.int32))
    np.testing.assert_allclose(value, [np.log(4)], rtol=1e-6)


@partial(jax.jit, static_argnums=0)
def loss_of(name: str, student, labels, teacher, hparams):
    return losses.LOSSES[name](student, Batch(labels, teacher), hparams)


def both(name: str, alpha: float, temperature: float, labels=None, teacher_seed=11):
    """The loss of that name on fixed logits, and those logits."""
    student, teacher = random_logits(10, (7, 5), 3.0), random_logits(teacher_seed, (7, 5), 3.0)
    labels = np.arange(7, dtype=np.int32) % 5 if labels is None else labels
    return (
        np.asarray(loss_of(name, student, labels, teacher, hparams(alpha, temperature))),
        student,
        teacher,
        labels,
    )


@pytest.mark.parametrize("name", losses.LOSSES)
def test_each_loss_is_per_example_finite_and_differentiable(name):
    value, student, teacher, labels = both(name, 0.5, 4.0)
    assert (
        value.shape == (7,)
        and value.dtype == np.float32
        and np.all(np.isfinite(value))
        and np.all(value >= 0)
    )
    # Per example: the loss of a row alone is that row of the losses. A relation of the batch says so.
    alone = loss_of(name, student[2:3], labels[2:3], teacher[2:3], hparams(0.5, 4.0))
    assert np.allclose(alone, value[2:3], rtol=1e-5) != isinstance(losses.LOSSES[name], BatchLoss)


@pytest.mark.parametrize("name", sorted(set(losses.LOSSES) - {"label_smoothing"}))
def test_alpha_zero_is_the_plain_student(name):
    value, student, _, labels = both(name, 0.0, 4.0)
    np.testing.assert_array_equal(value, losses.cross_entropy(jnp.asarray(student), jnp.asarray(labels)))
    np.testing.assert_array_equal(
        value, both(name, 0.0, 9.0, teacher_seed=12)[0]
    )  # no teacher, no temperature


@pytest.mark.parametrize("name", ["soft", "hard_label", "logits", "dist"])
def test_alpha_one_ignores_the_labels(name):
    value = both(name, 1.0, 4.0)[0]
    np.testing.assert_array_equal(value, both(name, 1.0, 4.0, labels=np.zeros(7, np.int32))[0])
    assert not np.array_equal(value, both(name, 1.0, 4.0, teacher_seed=12)[0])


@pytest.mark.parametrize("name", losses.WITHOUT_TEACHER)
def test_a_loss_without_teacher_reads_neither_teacher_nor_alpha(name):
    value = both(name, 1.0, 4.0)[0]
    np.testing.assert_array_equal(value, both(name, 0.3, 1.0, teacher_seed=12)[0])


def test_soft_loss_mixes_both_parts():
    """0.3 * T^2 KL + 0.7 * CE, in float64."""
    value, student, teacher, labels = both("soft", 0.3, 4.0)
    hard = -log_softmax(np.float64(student), axis=-1)[np.arange(7), labels]
    np.testing.assert_allclose(value, 0.3 * reference_kl(student, teacher, 4.0) + 0.7 * hard, rtol=1e-5)


def test_hard_label_is_cross_entropy_with_the_teachers_argmax():
    value, student, teacher, labels = both("hard_label", 0.3, 4.0)
    log_q = log_softmax(np.float64(student), axis=-1)
    taught, hard = (-log_q[np.arange(7), named] for named in (teacher.argmax(axis=-1), labels))
    np.testing.assert_allclose(value, 0.3 * taught + 0.7 * hard, rtol=1e-5)
    np.testing.assert_array_equal(
        value, both("hard_label", 0.3, 50.0)[0]
    )  # the temperature has no part in it


def test_logits_loss_is_half_the_squared_distance():
    value, student, teacher, labels = both("logits", 0.3, 4.0)
    hard = -log_softmax(np.float64(student), axis=-1)[np.arange(7), labels]
    distance = np.sum((np.float64(student) - teacher) ** 2, axis=-1) / 2
    np.testing.assert_allclose(value, 0.3 * distance + 0.7 * hard, rtol=1e-5)


DISTILLING = {name: one for name, one in losses.LOSSES.items() if name not in losses.WITHOUT_TEACHER}


def test_a_lone_teacher_is_taken_as_it_is_and_several_groups_are_one():
    first, second = (jnp.asarray(random_logits(seed, (num, 7, 5), 2.0)) for seed, num in ((15, 1), (16, 2)))
    temperature = jnp.float32(4)
    for loss_fn in DISTILLING.values():
        np.testing.assert_array_equal(losses.combine_teachers([first], temperature, loss_fn), first[0])
    for groups in ([second], [first, second], [first, second[:1]]):
        expected = losses.average_teachers(jnp.concatenate(groups), temperature)
        found = losses.combine_teachers(groups, temperature, losses.soft_loss)
        np.testing.assert_array_equal(found, expected)


def test_what_several_teachers_are_to_each_loss():
    """soft: the mean of their probabilities at T; hard_label: at T = 1, as the ensemble itself would answer,
    whatever T; logits: the mean of their logits, their size included. A loss of one's own: as soft."""
    teachers = random_logits(17, (3, 7, 5), 5.0)
    combine = lambda loss_fn: np.float64(  # noqa: E731
        losses.combine_teachers([jnp.asarray(teachers)], jnp.float32(4), loss_fn)
    )
    means = {t: np.log(softmax(np.float64(teachers) / t, axis=-1).mean(axis=0)) for t in (1, 4)}
    np.testing.assert_allclose(combine(DISTILLING["soft"]), 4 * means[4], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(combine(lambda *_: None), 4 * means[4], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(combine(DISTILLING["hard_label"]), means[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(combine(DISTILLING["logits"]), np.float64(teachers).mean(axis=0), rtol=1e-5)
    for name in ("hard_label", "logits", "dkd", "dist"):  # standardised logits or not
        loss_fn = DISTILLING[name]
        np.testing.assert_array_equal(combine(losses.standardized(loss_fn)), combine(loss_fn))
    assert set(losses.ENSEMBLE_TARGETS) <= set(DISTILLING.values())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("num_teachers", [1, 3])
def test_average_teachers_is_the_mean_of_probabilities(num_teachers, temperature):
    teachers = random_logits(13, (num_teachers, 7, 5), 5.0)
    mean = jax.jit(losses.average_teachers)(teachers, jnp.float32(temperature))
    at_t = np.float64(teachers) / temperature
    expected = softmax(at_t, axis=-1).mean(axis=0)
    np.testing.assert_allclose(softmax(np.float64(mean) / temperature, axis=-1), expected, rtol=1e-4)
    # In log space also where the probabilities themselves underflow.
    exact = temperature * (logsumexp(log_softmax(at_t, axis=-1), axis=0) - np.log(num_teachers))
    np.testing.assert_allclose(mean, exact, rtol=1e-5, atol=1e-5 * temperature)


def test_average_of_one_teacher_is_that_teacher():
    """Up to a constant a row, which no softmax sees; logits of 1e4 included."""
    teacher = random_logits(14, (7, 5), 1e4)
    shift = np.asarray(losses.average_teachers(jnp.asarray(teacher)[None], jnp.float32(4.0))) - teacher
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=0.02)


@pytest.mark.parametrize("name", DISTILLING)
def test_a_loss_that_distils_needs_a_teacher(name):
    with pytest.raises(ValueError, match="teacher_logits"):
        losses.LOSSES[name](jnp.zeros((7, 5)), Batch(jnp.zeros(7, jnp.int32)), hparams())


def test_wrong_shapes_are_refused():
    """(B,1) against (B,K) would broadcast; labels as floats or logits as integers would be another loss."""
    logits, temperature = jnp.zeros((7, 5)), jnp.float32(1)
    for student, teacher in [(logits, logits[:, :1]), (logits[0], logits[0]), (logits[:1], logits)]:
        with pytest.raises(AssertionError):
            losses.kl_at_temperature(student, teacher, temperature)
    with pytest.raises(AssertionError):
        losses.kl_at_temperature(logits, logits, jnp.ones(7))
    with pytest.raises(AssertionError):
        losses.average_teachers(logits, temperature)
    for labels in (jnp.zeros(7), jnp.zeros((7, 5), jnp.int32)):
        with pytest.raises(AssertionError):
            losses.cross_entropy(logits, labels)
