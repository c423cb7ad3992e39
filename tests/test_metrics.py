"""Counts against NumPy and scikit-learn; every example of a table counted once, whatever the batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix

from kd_jax import metrics, models
from kd_jax.train import evaluate

K = 4
RANDOM = np.random.RandomState(0)
LOGITS = RANDOM.standard_normal((11, K)).astype(np.float32)
TEACHER = RANDOM.standard_normal((11, K)).astype(np.float32)
LABELS = RANDOM.randint(K - 1, size=11).astype(np.int32)  # no example of the last class
PREDICTED = LOGITS.argmax(axis=-1)


def expected(rows) -> dict:
    labels, right = LABELS[rows], (PREDICTED == LABELS)[rows]
    return {
        "correct": np.bincount(labels[right], minlength=K),
        "total": np.bincount(labels, minlength=K),
        "loss_sum": -log_softmax(np.float64(LOGITS), axis=-1)[np.arange(11), LABELS][rows].sum(),
        "agree": np.equal(PREDICTED, TEACHER.argmax(axis=-1))[rows].sum(),
    }


def check(counts, wanted: dict):
    for name in ("correct", "total", "agree"):
        value = getattr(counts, name)
        assert value.dtype == jnp.int32
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)
    assert counts.loss_sum.dtype == jnp.float32
    np.testing.assert_allclose(counts.loss_sum, wanted["loss_sum"], rtol=1e-6)


def count(rows=slice(None), **options):
    return metrics.count(jnp.asarray(LOGITS[rows]), jnp.asarray(LABELS[rows]), **options)


def test_count_is_numpys():
    check(count(teacher_logits=jnp.asarray(TEACHER)), expected(slice(None)))


def test_no_teacher_no_agreement():
    check(count(), expected(slice(None)) | {"agree": 0})


def test_the_losses_given_are_the_ones_summed():
    check(count(losses=jnp.arange(11.0)), expected(slice(None)) | {"agree": 0, "loss_sum": 55.0})


def test_batches_of_unequal_size_add_up():
    """The mean of batch means would weigh the last, short batch too much; sums do not."""
    parts = [count(slice(start, start + 4)) for start in (0, 4, 8)]
    whole = metrics.zero_counts(K)
    for part in parts:
        whole = metrics.add_counts(whole, part)
    check(whole, expected(slice(None)) | {"agree": 0})
    check(
        metrics.zero_counts(K), dict.fromkeys(("correct", "total"), np.zeros(K)) | {"loss_sum": 0, "agree": 0}
    )


def test_confusion_is_scikit_learns():
    """Rows are the true classes, columns the predicted ones."""
    ours = metrics.confusion(jnp.asarray(PREDICTED, jnp.int32), jnp.asarray(LABELS), K)
    assert ours.dtype == jnp.int32
    np.testing.assert_array_equal(ours, confusion_matrix(LABELS, PREDICTED, labels=range(K)))


@pytest.mark.parametrize("num, batch_size", [(10, 4), (10, 5), (3, 1000), (1, 1)])
def test_prediction_and_evaluation_see_each_example_once(num, batch_size):
    """In padded batches as in one pass, in order; the counts cover each example exactly once."""
    model = models.build("mlp", K)
    images = RANDOM.randint(256, size=(num, 4, 4, 1)).astype(np.uint8)
    labels = RANDOM.randint(K, size=num).astype(np.int32)
    kernel, bias = RANDOM.standard_normal((16, K)), RANDOM.standard_normal(K)
    logits = images.reshape(num, 16) / 255 @ kernel + bias
    variables = {"params": {"logits": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}}

    @jax.jit
    def run(images, labels):
        return models.predict(model, variables, images, batch_size), evaluate(
            model, variables, images, labels
        )

    ours, counts = run(images, labels)
    assert ours.shape == (num, K)
    np.testing.assert_allclose(ours, logits, atol=1e-5)
    np.testing.assert_array_equal(counts.total, np.bincount(labels, minlength=K))
    right = labels[logits.argmax(axis=-1) == labels]
    np.testing.assert_array_equal(counts.correct, np.bincount(right, minlength=K))
    loss = -log_softmax(logits, axis=-1)[np.arange(num), labels].sum()
    np.testing.assert_allclose(counts.loss_sum, loss, rtol=1e-5)


def test_a_run_with_one_number_that_is_not_finite_is_named():
    params = {"a": jnp.ones((3, 2, 2)).at[1, 0, 1].set(jnp.nan), "b": jnp.ones(3).at[2].set(jnp.inf)}
    assert metrics.finite_runs(params).tolist() == [True, False, False]
