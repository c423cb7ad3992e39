"""One run of a real network: the examples and teacher outputs of its steps, dropout, max-norm, evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from kd_jax import losses
from kd_jax.losses import teacher_ablations
from kd_jax.models import init_variables, predict
from kd_jax.train import (
    evaluate,
    fit,
    init_state,
    train_epoch,
    train_step,
    variables_of,
)
from kd_jax.types import Table
from tests.train.probes import (
    FULL_IMAGES,
    LABELS,
    PLAIN,
    SMALL,
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
    labels_only,
    mean_logit,
    quick,
    small_state,
    stacked,
)


@pytest.mark.parametrize("num_shots", [None, 0, 1])
def test_the_shots_of_a_masked_class_are_met(num_shots):
    """Each class has one example: of two that are masked, an epoch of 12 meets it only where left is 1."""
    mask = np.arange(K) >= 2
    run = hparams(mask=mask).replace(num_shots=None if num_shots is None else np.int32(num_shots))
    run = jax.tree.map(jnp.asarray, run)
    config = config_of(labels_only, model=PLAIN)
    _, counts = quick(partial(train_epoch, config))(TABLE, run, small_state(config))
    assert np.all(np.asarray(counts.support)[2:] > 0) and counts.support.sum() == B * U
    np.testing.assert_array_equal(np.asarray(counts.support)[:2], [1, 1] if num_shots else [0, 0])


@pytest.mark.parametrize("name", teacher_ablations.TEACHER_ABLATIONS)
def test_the_loss_gets_the_ablated_teacher_logits(name):
    """The loss of a step is that against the ablated answer, shuffled by the run's key and the step."""
    logits = np.random.RandomState(1).normal(size=(1, N, K)).astype(np.float32)
    table = TABLE.replace(teacher_logits=(jnp.asarray(logits),))
    config = config_of(losses.soft_loss, model=PLAIN)
    state, index = small_state(config), jnp.asarray([5, 0, 3, 2], jnp.int32)
    number = list(teacher_ablations.TEACHER_ABLATIONS).index(name)
    run = hparams(temperature=2.0, alpha=1.0, mask=np.arange(K) != 4).replace(
        teacher_ablation=np.int32(number)
    )
    run = jax.tree.map(jnp.asarray, run)
    step = quick(partial(train_step, config))
    found = [float(step(table, run, state, index, jnp.int32(i))[1].loss_sum) for i in (0, 1)]
    for i in (0, 1):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 7), i)
        told = teacher_ablations.ablate_teacher_logits(
            run.teacher_ablation, key, table.teacher_logits[0][0, index], run.class_mask, run.temperature
        )
        student = predict(PLAIN, variables_of(state), table.images[index])
        expected = jnp.sum(losses.kl_at_temperature(student, told, run.temperature))
        assert found[i] == pytest.approx(float(expected), rel=1e-5)
    assert (found[0] == found[1]) == (name != "shuffled")


def test_dropout_is_drawn_anew_at_each_step_and_is_the_steps_own():
    config = config_of(labels_only, model=SMALL)
    step = quick(partial(train_step, config))
    state, run = small_state(config), jax.tree.map(jnp.asarray, hparams())
    index = jnp.arange(B, dtype=jnp.int32)
    table = TABLE.replace(images=TABLE.images * jnp.uint8(20))
    sums = [float(step(table, run, state, index, jnp.int32(i))[1].loss_sum) for i in (0, 1, 0)]
    assert sums[0] == sums[2] != sums[1]
    exact = -np.asarray(log_softmax(np.asarray(predict(SMALL, variables_of(state), table.images)), axis=-1))
    assert (
        abs(sums[0] - exact[np.arange(B), np.arange(B)].sum()) > 1e-3
    )  # in evaluation mode it would be this


def test_max_norm_holds_after_the_update():
    """Hidden columns end at a norm of at most 0.1, larger ones at exactly that; the classifier is free."""
    config = config_of(labels_only, model=SMALL, max_norm=0.1)
    state = small_state(config)
    step = quick(partial(train_step, config))
    index, run = jnp.arange(B, dtype=jnp.int32), jax.tree.map(jnp.asarray, hparams(rate=0.1))
    params = step(TABLE, run, state, index, jnp.int32(0))[0].params
    np.testing.assert_allclose(np.linalg.norm(params["hidden_0"]["kernel"], axis=0), 0.1, rtol=1e-5)
    assert np.linalg.norm(params["logits"]["kernel"], axis=0).max() > 0.2


def test_a_teacher_with_dropout_answers_as_in_prediction():
    """Queried during distillation, over two epochs: the targets are `predict`'s, and its variables stay."""
    teachers = quick(jax.vmap(partial(init_variables, SMALL, image_shape=(3, 3, 1))))(
        jax.random.split(jax.random.key(1), M)
    )
    images = jnp.asarray(FULL_IMAGES)
    answers = jnp.stack(
        [predict(SMALL, jax.tree.map(lambda x, m=m: x[m], teachers), images) for m in range(M)]
    )
    before = jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), teachers)

    def differs(student, batch, hparams):
        off = jnp.abs(batch.teacher_logits - answers[hparams.teacher, batch.labels])
        return (jnp.max(off, axis=-1) > 1e-4).astype(jnp.float32) + 0.0 * student[:, 0]

    config = config_of(differs, model=SMALL, teacher_models=(SMALL,))
    table = Table(images, jnp.asarray(LABELS), teacher_variables=(teachers,))
    _, history = fit_all(config, table, None, stacked(hparams(0.1), hparams(0.1, teacher=1)), [0, 1], 2)
    np.testing.assert_array_equal(history["train"].loss_sum, np.zeros((2, 2)))
    assert np.abs(answers[0] - answers[1]).max() > 0.1
    jax.tree.map(
        lambda leaf, bits: np.testing.assert_equal(np.asarray(leaf).tobytes(), bits), teachers, before
    )


def test_history_beyond_the_epochs_run_stays_empty():
    """`length` bounds the history; the epoch count is traced, so one program serves any count up to it."""
    config, runs = config_of(mean_logit), hparams(0.01)
    state = init_state(config, jax.random.key(0))
    program = quick(
        lambda epochs: fit(config, TABLE, TABLE, jax.tree.map(jnp.asarray, runs), state, epochs, 4)
    )
    for epochs in (0, 2, 4):
        after, history = program(jnp.int32(epochs))
        assert int(after.epoch) == epochs
        for counts in history.values():
            np.testing.assert_array_equal(np.sum(counts.support, axis=-1), [N] * epochs + [0] * (4 - epochs))


def test_evaluation_changes_nothing():
    """Twice the same counts; the step counter of the batch statistics has not moved."""
    variables = {"params": {"w": jnp.zeros(())}, "batch_stats": {"steps": jnp.zeros(())}}
    one, two = (evaluate(Probe(), variables, TABLE.images, TABLE.labels) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert float(variables["batch_stats"]["steps"]) == 0
