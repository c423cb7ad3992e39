"""One run: what each step sees, in which mode, and what it does to the parameters, by derived numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from kd_jax import losses
from kd_jax.models import forward, init_variables, scale_pixels
from kd_jax.train import (
    augment,
    augment_and_scale,
    init_state,
    make_batch,
    optim,
    select_teacher,
    train_epoch,
    train_step,
    variables_of,
)
from kd_jax.types import Table
from tests.train.probes import (
    CACHED,
    EVALUATION,
    FULL_IMAGES,
    LABELS,
    PLAIN,
    PROBES,
    TABLE,
    B,
    K,
    M,
    N,
    Probe,
    U,
    config_of,
    fit_all,
    hparams,
    mean_logit,
    quick,
    small_state,
    stacked,
)


def misaligned(student, batch, hparams):
    """1 for each example whose student or teacher logits belong to another example, teacher or mode."""
    label = batch.labels.astype(jnp.float32)
    taught = label + 100 * (hparams.teacher.astype(jnp.float32) + 1) + EVALUATION
    wrong = (jnp.abs(student[:, 0] - label) > 1e-2) | (jnp.abs(batch.teacher_logits[:, 0] - taught) > 1e-2)
    return wrong.astype(jnp.float32)


def order_hash(batch):
    """A number that tells the batches of an epoch apart from those of another order."""
    return (batch.labels * batch.labels * jnp.arange(1, B + 1, dtype=jnp.int32)).astype(jnp.float32)


def aligned_or_hash(student, batch, hparams):
    return jnp.where(hparams.alpha > 0, order_hash(batch), misaligned(student, batch, hparams))


@pytest.mark.parametrize("source", ["cached", "queried"])
def test_each_example_meets_its_own_label_and_its_runs_own_teacher_in_evaluation_mode(source):
    """Through shuffling, masking and mapping, over three epochs with a validation after each."""
    mask = LABELS % 3 > 0  # 8 of 12 kept
    runs = stacked(
        hparams(teacher=0),
        hparams(teacher=1, mask=mask),
        *(hparams(alpha=1, temperature=t, teacher=m) for t, m in [(1, 0), (5, 1), (1, 0)]),
    )
    if source == "cached":
        config, table = config_of(aligned_or_hash), TABLE.replace(teacher_logits=(jnp.asarray(CACHED),))
    else:
        config, table = (
            config_of(aligned_or_hash, teacher_models=(Probe(),)),
            TABLE.replace(teacher_variables=(PROBES,)),
        )
    states, history = fit_all(config, table, TABLE, runs, [0, 1, 2, 2, 3], 3)
    train, loss = history["train"], np.asarray(history["train"].loss_sum)
    np.testing.assert_array_equal(loss[:2], 0)  # nothing misaligned
    # Every run does the same work. 12 examples once each; or 8 kept ones, once or twice, and no other.
    np.testing.assert_array_equal(train.support[0], np.ones((3, N)))
    np.testing.assert_array_equal(np.sum(train.support, axis=-1), np.full((5, 3), U * B))
    assert np.all(np.isin(train.support[1][:, mask], [1, 2])) and not np.any(train.support[1][:, ~mask])
    # Two settings of one seed share the order; its epochs and other seeds do not.
    np.testing.assert_array_equal(loss[2], loss[3])
    assert len(np.unique(loss[[2, 4]])) == 6
    # The student trains in training mode throughout; validation is in evaluation mode, where no step counts:
    # its first logit is then by far the largest, so class 0 alone is right.
    np.testing.assert_array_equal(states.model_state["batch_stats"]["steps"], np.full(5, 3 * U))
    np.testing.assert_array_equal(
        history["validation"].correct, np.broadcast_to(np.arange(K) == 0, (5, 3, K))
    )
    np.testing.assert_array_equal(history["validation"].support, np.ones((5, 3, K)))
    # The teacher names class 0 throughout, and so does the student (a tie on image 0 goes to class 0).
    np.testing.assert_array_equal(train.agree[0], np.full(3, N))


def sums_differ(student, batch, hparams):
    """alpha 0: 1 where teacher and student saw images of another sum; alpha 1: where the image was moved."""
    taught = batch.teacher_logits[:, 0] - 100 - EVALUATION
    original = jnp.asarray(IMAGE_SUMS)[batch.labels]
    seen = jnp.where(hparams.alpha > 0, original, taught)
    return (jnp.abs(student[:, 0] - seen) > 0.5).astype(jnp.float32)


IMAGE_SUMS = FULL_IMAGES.sum(axis=(1, 2, 3)).astype(np.float32)


CUT = augment.Cutout(2, (0,))
AUGMENTATIONS = {
    "translate": {"augment": augment.RandomTranslate(1)},
    "cutout": {"augment": CUT},
    "mixup": {"mixup": 1.0},
    "all": {
        "augment": augment.Chain((augment.RandomTranslate(1), augment.RandomFlip(), CUT)),
        "mixup": 1.0,
    },
}


@pytest.mark.parametrize("options", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_a_queried_teacher_sees_the_very_image_that_the_student_sees(options):
    """Images without a zero pixel lose some of their sum unless the shift is 0, one time in 9: of 24 examples
    about 21 move. A square always covers some; a mixture has another sum but by chance."""
    table = Table(jnp.asarray(FULL_IMAGES), jnp.asarray(LABELS), teacher_variables=(PROBES,))
    config = config_of(sums_differ, teacher_models=(Probe(),), **options)
    _, history = fit_all(config, table, None, stacked(hparams(), hparams(alpha=1)), [0, 0], 2)
    assert set(history) == {"train"}
    differ, moved = np.asarray(history["train"].loss_sum)
    np.testing.assert_array_equal(differ, 0)
    assert 16 <= moved.sum() <= 24


def test_a_mixture_meets_both_labels_by_their_shares():
    """Image i sums to its label i, so a mixture sums to the mixed label, m = s a + (1 - s) b. With the loss
    (label - sum)^2 it has s (a - m)^2 + (1 - s) (b - m)^2 = s (1 - s) (a - b)^2, which is 0 unmixed."""

    def squared(student, batch, hparams):
        return (batch.labels.astype(jnp.float32) - student[:, 0]) ** 2

    config, run = config_of(squared, mixup=1.0), jax.tree.map(jnp.asarray, hparams())
    state = small_state(config)
    index, step = jnp.asarray([3, 0, 7, 10], jnp.int32), jnp.int32(5)
    _, shares = augment_and_scale(config, state.key, TABLE.images[index], step)
    a, s = np.float64(index), np.float64(shares)
    _, counts = quick(partial(train_step, config))(TABLE, run, state, index, step)
    np.testing.assert_allclose(counts.loss_sum, np.sum(s * (1 - s) * (a - np.roll(a, -1)) ** 2), rtol=1e-4)
    assert np.ptp(s) > 0.1
    np.testing.assert_array_equal(
        np.flatnonzero(counts.support), np.sort(index)
    )  # counted as their own class
    plain = quick(partial(train_step, config_of(squared)))(TABLE, run, state, index, step)[1]
    assert float(plain.loss_sum) < 1e-6


@pytest.mark.parametrize("source", ["cached", "queried"])
def test_the_loss_of_a_mixture_is_that_against_the_mixed_target(source):
    """By NumPy: the cross-entropy with the mixed one-hot labels, and alpha T^2 times the divergence from the
    teacher's answer for the mixture, or from the mixed cached answers, whose cross-entropy is linear in them
    and whose own entropies are mixed alike."""
    alpha, temperature, index = 0.4, 3.0, jnp.arange(B, dtype=jnp.int32)
    teachers = quick(jax.vmap(partial(init_variables, PLAIN, image_shape=(3, 3, 1))))(
        jax.random.split(jax.random.key(1), M)
    )
    cached = np.random.RandomState(0).standard_normal((M, N, K)).astype(np.float32)
    table = Table(jnp.asarray(FULL_IMAGES), jnp.asarray(LABELS))
    if source == "cached":
        table = table.replace(teacher_logits=(jnp.asarray(cached),))
    else:
        table = table.replace(teacher_variables=(teachers,))
    config = config_of(
        losses.LOSSES["soft"], model=PLAIN, mixup=1.0, teacher_models=(PLAIN,) if source == "queried" else ()
    )
    state = small_state(config)
    run = jax.tree.map(jnp.asarray, hparams(alpha=alpha, temperature=temperature))
    images, shares = augment_and_scale(config, state.key, table.images[index], jnp.int32(0))
    _, counts = quick(partial(train_step, config))(
        select_teacher(config, table, run), run, state, index, jnp.int32(0)
    )

    def against(logits, targets):
        log_student = log_softmax(np.float64(logits) / temperature, axis=-1)
        taught = softmax(np.float64(targets) / temperature, axis=-1)
        return temperature**2 * np.sum(taught * (np.log(taught) - log_student), axis=-1)

    logits = np.asarray(forward(PLAIN, variables_of(state), images)[0])
    s, other = np.float64(shares), np.roll(np.arange(B), -1)
    mixed = s[:, None] * np.eye(K)[LABELS[:B]] + (1 - s)[:, None] * np.eye(K)[LABELS[other]]
    hard = -np.sum(mixed * log_softmax(np.float64(logits), axis=-1), axis=-1)
    if source == "queried":
        first = jax.tree.map(lambda leaf: leaf[0], teachers)
        soft = against(logits, forward(PLAIN, first, images)[0])
    else:
        soft = s * against(logits, cached[0, :B]) + (1 - s) * against(logits, cached[0, other])
    np.testing.assert_allclose(counts.loss_sum, np.sum(alpha * soft + (1 - alpha) * hard), rtol=1e-4)


def test_an_update_by_hand():
    """loss = mean over the batch of the first logit: its gradient in w is 1, whatever the batch size.

    schedule(step) = step + 1, rate 0.01, two epochs of three updates: w = -0.01 (1 + 2 + ... + 6) = -0.21.
    With the rate 0.02 twice that; at rate 0 nothing. The step goes on counting in the second epoch.
    """
    config = config_of(mean_logit, schedule=lambda step: step.astype(jnp.float32) + 1)
    runs = stacked(hparams(0.01), hparams(0.02), hparams(0.0))
    states, _ = fit_all(config, TABLE, None, runs, [0, 1, 2], 2)
    np.testing.assert_allclose(states.params["w"], [-0.21, -0.42, 0], rtol=1e-6)
    np.testing.assert_array_equal(states.epoch, [2, 2, 2])


def test_a_run_that_diverges_stays_as_it_was_and_the_other_goes_on():
    """Updates of 1 in the first epoch, of 3e38 after it. At rate 100, w = -300 and then -inf; at rate 0.001,
    -0.003, then three of -3e35 more an epoch."""
    config = config_of(mean_logit, schedule=lambda step: jnp.where(step < U, 1.0, 3e38))
    states, history = fit_all(config, TABLE, TABLE, stacked(hparams(100.0), hparams(0.001)), [0, 1], 3)
    np.testing.assert_allclose(states.params["w"], [-300, -1.8e36], rtol=1e-6)
    np.testing.assert_array_equal(states.diverged, [True, False])
    np.testing.assert_array_equal(states.epoch, [3, 3])
    np.testing.assert_array_equal(states.model_state["batch_stats"]["steps"], [U, 3 * U])
    lost = np.isnan(history["train"].loss_sum)
    np.testing.assert_array_equal(lost, [[False, True, True], [False] * 3])
    assert np.isfinite(history["validation"].loss_sum[0]).all()  # of the state that it keeps


@pytest.mark.parametrize("part", ["params", "model_state", "opt_state"])
def test_a_number_anywhere_in_the_state_that_is_not_finite_is_a_divergence(part):
    config = config_of(mean_logit, optimizer=optim.Optimizer(optax.trace, False, (("decay", 0.9),)))
    state = init_state(config, jax.random.key(0))
    assert not quick(partial(train_epoch, config, TABLE, hparams(0.01)))(state)[0].diverged
    poisoned = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), getattr(state, part))
    after, _ = quick(partial(train_epoch, config, TABLE, hparams(0.01)))(state.replace(**{part: poisoned}))
    assert after.diverged


def test_targets_of_each_kind():
    """paired: the run's own teacher; average: the mean of both teachers' probabilities at T; or no logits."""
    index = jnp.asarray([3, 0, 7], jnp.int32)
    teachers = np.random.RandomState(0).standard_normal((M, N, K)).astype(np.float32)
    images = scale_pixels(TABLE.images[index])
    cached = TABLE.replace(teacher_logits=(jnp.asarray(teachers),))

    def logits(table, teacher=0, **options):
        config, run = config_of(misaligned, **options), hparams(temperature=3, teacher=teacher)
        run = jax.tree.map(jnp.asarray, run)
        batch = make_batch(config, select_teacher(config, table, run), run, images, index)
        np.testing.assert_array_equal(batch.labels, [3, 0, 7])
        return batch.teacher_logits

    assert logits(TABLE) is None
    for teacher in range(M):
        np.testing.assert_array_equal(logits(cached, teacher), teachers[teacher, [3, 0, 7]])
    mean = softmax(np.float64(teachers[:, [3, 0, 7]]) / 3, axis=-1).mean(axis=0)
    np.testing.assert_allclose(
        softmax(np.asarray(logits(cached, average_teachers=True)) / 3, axis=-1), mean, rtol=1e-5
    )
    # Both queried teachers say 1100 and 1200 + i, on which their mean is almost certain, too.
    queried = TABLE.replace(teacher_variables=(PROBES,))
    np.testing.assert_allclose(logits(queried, 1, teacher_models=(Probe(),))[:, 0], [1203, 1200, 1207])
    average = logits(queried, 0, teacher_models=(Probe(),), average_teachers=True)
    # At T = 3, the mean of two probabilities that are both 1 to within e^-366: the odds of class 0 against
    # another are 2 / (e^-(1103/3) + e^-(1203/3)), the first of which decides: 1103 + 3 ln 2 for image 3.
    np.testing.assert_allclose(
        average[:, 0] - average[:, 1], np.array([1103, 1100, 1107]) + 3 * np.log(2), rtol=1e-6
    )
