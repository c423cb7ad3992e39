"""DKD, NKD, DIST, logit standardisation, divergences and label smoothing against independent references.

torchdistill's classes where it has the loss (in float64), else NumPy in float64 from the paper's equation,
whose gradient is taken by central differences. f32 is compared to 1e-5 of the largest reference number.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kd_jax import losses
from kd_jax.losses import modern_logits
from kd_jax.losses.teacher_ablations import NEVER
from kd_jax.types import Batch, BatchLoss, HParams
from tests.torch_modules import import_or_skip

SHAPES = [(16, 10), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((1, 2), (64, 100)))]
VARIANTS = losses.LOSSES | losses.DIVERGENCES
VARIANTS |= {
    f"standardized_{name}": losses.standardized(losses.LOSSES[name]) for name in ("soft", "dkd", "dist")
}
TAUGHT = {name: one for name, one in VARIANTS.items() if name not in losses.WITHOUT_TEACHER}


def hparams(num_classes, alpha=1.0, temperature=4.0, beta=None, logit_mask=None) -> HParams:
    number = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    mask = jnp.ones(num_classes, bool)
    own = HParams(number(0), number(0), number(temperature), number(alpha), mask, jnp.int32(0))
    return own.replace(beta=None if beta is None else number(beta), logit_mask=logit_mask)


def draw(shape, scale=3.0, seed=0):
    random = np.random.RandomState(seed)
    student, teacher = (scale * random.standard_normal((2, *shape))).astype(np.float32)
    return student, teacher, random.randint(shape[1], size=shape[0]).astype(np.int32)


def ours(loss_fn, student, teacher, labels, numbers):
    """(mean of the entries, its gradient by the student, the entries)."""
    of = lambda s: loss_fn(s, Batch(labels, teacher), numbers)  # noqa: E731
    entries, pull = jax.vjp(of, student)
    return jnp.mean(entries), pull(jnp.full_like(entries, 1 / len(labels)))[0], entries


compiled = jax.jit(ours, static_argnums=0)


def same(found, expected):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 0.1))


def by_differences(reference, student):
    """Gradient of a per-example function f64[B,K] -> f64[B], of its mean."""
    student, step = np.float64(student), 1e-5
    gradient = np.zeros_like(student)
    for k in range(student.shape[1]):
        shift = np.eye(student.shape[1])[k] * step
        gradient[:, k] = (reference(student + shift) - reference(student - shift)) / (2 * step)
    return gradient / len(student)


def split(logits, labels, temperature):
    """Logarithms of (p_target, 1 - p_target) f64[B,2] and of the others renormalised f64[B,K-1]."""
    rows, others = np.arange(len(labels)), np.arange(logits.shape[1]) != labels[:, None]
    p = softmax(np.float64(logits) / temperature, axis=1)
    rest = np.float64(logits)[others].reshape(len(labels), -1)
    both = np.stack([p[rows, labels], p[others].reshape(len(labels), -1).sum(1)], axis=1)
    return np.log(both), log_softmax(rest / temperature, axis=1)


def kl(log_p, log_q):
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=1)


def dkd(student, teacher, labels, temperature, beta):
    """Zhao et al. 2022, equation 7: KL(b^T || b^S) + beta KL(p^T || p^S), times T^2 as in their code."""
    (b_s, n_s), (b_t, n_t) = (split(x, labels, temperature) for x in (student, teacher))
    return temperature**2 * (kl(b_t, b_s) + beta * kl(n_t, n_s))


def nkd(student, teacher, labels, temperature, gamma):
    """Yang et al. 2023, equation 7: -T_t log S_t - gamma lambda^2 sum N(T_i) log N(S_i)."""
    rows = np.arange(len(labels))
    target = softmax(np.float64(teacher), axis=1)[rows, labels]
    of_target = -target * log_softmax(np.float64(student), axis=1)[rows, labels]
    n_s, n_t = (split(x, labels, temperature)[1] for x in (student, teacher))
    return of_target - gamma * temperature**2 * np.sum(np.exp(n_t) * n_s, axis=1)


def smoothed(student, teacher, labels, temperature, share):
    """Szegedy et al. 2016, section 7: cross-entropy with (1 - eps) delta + eps / K."""
    targets = (1 - share) * np.eye(student.shape[1])[labels] + share / student.shape[1]
    return -np.sum(targets * log_softmax(np.float64(student), axis=1), axis=1)


def reverse(student, teacher, labels, temperature, beta):
    """T^2 KL(q || p)."""
    log_q, log_p = (log_softmax(np.float64(x) / temperature, axis=1) for x in (student, teacher))
    return temperature**2 * kl(log_q, log_p)


def jensen_shannon(student, teacher, labels, temperature, beta):
    """Lin 1991: T^2 (H(m) - (H(p) + H(q)) / 2)."""
    q, p = (softmax(np.float64(x) / temperature, axis=1) for x in (student, teacher))
    entropy = lambda r: -np.sum(r * np.log(r), axis=1)  # noqa: E731
    return temperature**2 * (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)


REFERENCES = {
    "dkd": (dkd, 4.0, 8.0),
    "nkd": (nkd, 2.0, 1.5),
    "label_smoothing": (smoothed, 1.0, 0.1),
    "reverse_kl": (reverse, 4.0, None),
    "jensen_shannon": (jensen_shannon, 4.0, None),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_values_and_gradients_are_those_of_the_papers_equation(name, shape):
    """With beta given, and with None: the paper's value."""
    reference, temperature, beta = REFERENCES[name]
    student, teacher, labels = draw(shape, seed=shape[0])
    exact = lambda s: reference(s, teacher, labels, temperature, beta)  # noqa: E731
    mean, gradient, entries = compiled(
        VARIANTS[name], student, teacher, labels, hparams(shape[1], 1.0, temperature)
    )
    same(entries, exact(student))
    same(mean, exact(student).mean())
    same(gradient, by_differences(exact, student))


@pytest.mark.parametrize("name", losses.BETAS)
def test_beta_is_traced_and_its_default_is_the_papers(name):
    student, teacher, labels = draw((6, 6))
    default, given, other = (
        ours(losses.LOSSES[name], student, teacher, labels, hparams(6, beta=beta))[2]
        for beta in (None, losses.BETAS[name], 0.5)
    )
    np.testing.assert_allclose(given, default, rtol=1e-6)
    assert not np.allclose(other, default)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dist_is_torchdistills(shape):
    """`DISTLoss` with beta 1 and gamma 1.5, whose T^2 is ours."""
    torch, theirs = import_or_skip("torchdistill.losses.mid_level")
    student, teacher, labels = draw(shape, seed=1 + shape[0])
    logits = torch.tensor(np.float64(student), requires_grad=True)
    loss = theirs.DISTLoss("s", "output", "t", "output", beta=1.0, gamma=1.5, tau=4.0)
    value = loss({"s": {"output": logits}}, {"t": {"output": torch.tensor(np.float64(teacher))}})
    value.backward()
    mean, gradient, _ = compiled(losses.LOSSES["dist"], student, teacher, labels, hparams(shape[1], beta=1.5))
    same(mean, value.item())
    same(gradient, logits.grad.numpy())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_standardised_soft_targets_are_torchdistills(shape):
    """`LogitStdKDLoss`, whose alpha is the weight of the labels: 0.3 CE + 0.7 T^2 KL."""
    torch, theirs = import_or_skip("torchdistill.losses.mid_level")
    student, teacher, labels = draw(shape, seed=2 + shape[0])
    logits = torch.tensor(np.float64(student), requires_grad=True)
    loss = theirs.LogitStdKDLoss("s", "output", "t", "output", temperature=2.0, alpha=0.3)
    answers = {"t": {"output": torch.tensor(np.float64(teacher))}}
    value = loss({"s": {"output": logits}}, answers, torch.tensor(labels, dtype=torch.int64))
    value.backward()
    mean, gradient, _ = compiled(
        VARIANTS["standardized_soft"], student, teacher, labels, hparams(shape[1], 0.7, 2.0)
    )
    same(mean, value.item())
    same(gradient, logits.grad.numpy())


@pytest.mark.parametrize("name", VARIANTS)
def test_hidden_logits_have_no_part(name):
    """Two of six logits are hidden, as `mask_logits` hides them: the loss of the other four alone, and no
    gradient for the two."""
    student, teacher, _ = draw((6, 6), seed=3)
    labels, seen = np.array([0, 1, 3, 4, 0, 1], np.int32), np.array([1, 1, 0, 1, 1, 0], bool)
    hidden = [np.where(seen, x, np.float32(NEVER)) for x in (student, teacher)]
    numbers = hparams(6, 0.6, logit_mask=jnp.asarray(seen))
    _, gradient, entries = ours(VARIANTS[name], *hidden, labels, numbers)
    places = np.cumsum(seen) - 1
    rest = (student[:, seen], teacher[:, seen], places[labels].astype(np.int32))
    _, alone, expected = ours(VARIANTS[name], *rest, hparams(4, 0.6))
    np.testing.assert_allclose(entries, expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(gradient[:, seen], alone, rtol=1e-4, atol=1e-5)
    assert not np.any(gradient[:, ~seen])


@pytest.mark.parametrize("name", VARIANTS)
def test_extreme_logits_are_finite(name):
    """Logits to 1e6 and equal ones, T of 0.01 and 1e4; a batch of one."""
    for scale, temperature in ((1e6, 0.01), (1e6, 1e4), (0.0, 1.0)):
        student, teacher, labels = draw((6, 6), scale, seed=4)
        mean, gradient, entries = ours(VARIANTS[name], student, teacher, labels, hparams(6, 0.5, temperature))
        assert np.isfinite(mean) and np.all(np.isfinite(gradient)) and np.all(np.isfinite(entries))


@pytest.mark.parametrize("name", sorted(TAUGHT))
def test_the_teacher_gets_no_gradient_and_a_like_student_is_at_rest(name):
    """Where student and teacher agree, the gradient of the teacher's part is 0 (of hard labels and NKD's
    target it is not: these are no distances)."""
    student, teacher, labels = draw((6, 6), seed=5)
    of = lambda t: jnp.mean(VARIANTS[name](student, Batch(labels, t), hparams(6)))  # noqa: E731
    assert not np.any(jax.jit(jax.grad(of))(teacher))
    if name not in ("hard_label", "nkd"):
        same(ours(VARIANTS[name], student, student, labels, hparams(6))[1], np.zeros((6, 6)))


@pytest.mark.parametrize("name", VARIANTS)
def test_only_a_batch_loss_relates_the_examples_of_a_batch(name):
    student, teacher, labels = draw((6, 6), seed=6)
    other = np.concatenate([student[:1], -student[1:]])
    one, two = (ours(VARIANTS[name], s, teacher, labels, hparams(6, 0.5))[2] for s in (student, other))
    assert np.allclose(one[0], two[0], rtol=1e-5) != isinstance(VARIANTS[name], BatchLoss)


def test_the_logit_of_an_omitted_class_is_learnt_in_the_part_of_the_others():
    """Labels 0 to 4 of six classes. DKD's target part gives logit 5 the gradient q_5 (p_t - q_t) / (1 - q_t),
    by its share among the others; its other part the difference of the renormalised probabilities."""
    student, teacher, _ = draw((6, 6), seed=7)
    labels = (np.arange(6) % 5).astype(np.int32)
    target, both = (
        ours(modern_logits.dkd_loss, student, teacher, labels, hparams(6, temperature=1.0, beta=beta))[1]
        for beta in (0.0, 1.0)
    )
    q_5 = softmax(np.float64(student), axis=1)[:, 5]
    p_t, q_t = (np.exp(split(x, labels, 1.0)[0][:, 0]) for x in (teacher, student))
    same(target[:, 5], q_5 * (p_t - q_t) / (1 - q_t) / 6)
    n_s, n_t = (np.exp(split(x, labels, 1.0)[1][:, -1]) for x in (student, teacher))
    same(both[:, 5] - target[:, 5], (n_s - n_t) / 6)
