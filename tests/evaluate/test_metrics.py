"""Counts against NumPy and scikit-learn; every example of a table counted once, whatever the batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from kd_jax import models
from kd_jax.evaluate import metrics
from kd_jax.io import tidy
from kd_jax.train import evaluate
from kd_jax.train.counts import all_finite, count, zero_counts

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
        "support": np.bincount(labels, minlength=K),
        "loss_sum": -log_softmax(np.float64(LOGITS), axis=-1)[np.arange(11), LABELS][rows].sum(),
        "agree": np.equal(PREDICTED, TEACHER.argmax(axis=-1))[rows].sum(),
    }


def check(counts, wanted: dict):
    for name in ("correct", "support", "agree"):
        value = getattr(counts, name)
        assert value.dtype == jnp.int32
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)
    assert counts.loss_sum.dtype == jnp.float32
    np.testing.assert_allclose(counts.loss_sum, wanted["loss_sum"], rtol=1e-6)


def count_of(rows=slice(None), **options):
    return count(jnp.asarray(LOGITS[rows]), jnp.asarray(LABELS[rows]), **options)


def test_count_is_numpys():
    check(count_of(teacher_logits=jnp.asarray(TEACHER)), expected(slice(None)))


def test_no_teacher_no_agreement():
    check(count_of(), expected(slice(None)) | {"agree": 0})


def test_the_losses_given_are_the_ones_summed():
    check(count_of(losses=jnp.arange(11.0)), expected(slice(None)) | {"agree": 0, "loss_sum": 55.0})


def test_batches_of_unequal_size_add_up():
    """The mean of batch means would weigh the last, short batch too much; sums do not."""
    parts = [count_of(slice(start, start + 4)) for start in (0, 4, 8)]
    whole = zero_counts(K)
    for part in parts:
        whole = jax.tree.map(jnp.add, whole, part)
    check(whole, expected(slice(None)) | {"agree": 0})
    check(zero_counts(K), dict.fromkeys(("correct", "support"), np.zeros(K)) | {"loss_sum": 0, "agree": 0})


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
    np.testing.assert_array_equal(counts.support, np.bincount(labels, minlength=K))
    right = labels[logits.argmax(axis=-1) == labels]
    np.testing.assert_array_equal(counts.correct, np.bincount(right, minlength=K))
    loss = -log_softmax(logits, axis=-1)[np.arange(num), labels].sum()
    np.testing.assert_allclose(counts.loss_sum, loss, rtol=1e-5)


def test_a_run_with_one_number_that_is_not_finite_is_named():
    params = {"a": jnp.ones((3, 2, 2)).at[1, 0, 1].set(jnp.nan), "b": jnp.ones(3).at[2].set(jnp.inf)}
    assert jax.vmap(all_finite)(params).tolist() == [True, False, False]


# --- how good the probabilities are ----------------------------------------------------------------------


def of_probabilities(rows):
    return jnp.asarray(np.log(np.float32(rows)))


def test_calibration_by_hand():
    """Confidences 0.5, 0.53, 0.98 and 0.99: bins ]7/15, 8/15] and ]14/15, 1]. In the first, 1 of 2 is right
    and the confidences sum to 1.03: off by 0.03. In the last, 1 of 2 is right: 1.97 - 1 = 0.97 off. Of 4
    examples: (0.03 + 0.97) / 4 = 0.25."""
    logits = of_probabilities([[0.5, 0.3, 0.2], [0.53, 0.27, 0.2], [0.01, 0.98, 0.01], [0.005, 0.005, 0.99]])
    sums = metrics.quality(logits, jnp.asarray([0, 1, 1, 0], jnp.int32))
    bins = {name: np.asarray(value) for name, value in sums["bins"].items()}
    assert np.flatnonzero(bins["count"]).tolist() == [7, 14]
    assert bins["count"][[7, 14]].tolist() == [2, 2] and bins["correct"][[7, 14]].tolist() == [1, 1]
    np.testing.assert_allclose(bins["confidence"][[7, 14]], [1.03, 1.97], rtol=1e-6)
    rows = {row.metric: row.value for row in tidy.quality_rows("s", 0, "test", {**sums, "bins": bins})}
    assert rows["ece"] == pytest.approx(0.25, rel=1e-6)
    # Labels 0, 1, 1, 0 have the probabilities 0.5, 0.27, 0.98, 0.005.
    assert rows["nll"] == pytest.approx(-np.log([0.5, 0.27, 0.98, 0.005]).mean(), rel=1e-6)
    assert set(rows) == {"ece", "nll"}  # of three classes all are among the first five


def test_the_edge_of_a_bin_belongs_to_the_lower_one():
    """Confidence 1 is in the last bin, not in a sixteenth; of 16 classes alike, 1/16 is in the first."""
    sure = jnp.asarray([[200.0, 0.0]])
    alike = jnp.zeros((1, 16))
    for logits, bin_ in ((sure, 14), (alike, 0)):
        bins = metrics.calibration_bins(logits, jnp.zeros(1, jnp.int32))
        assert np.flatnonzero(bins["count"]).tolist() == [bin_]


def expected_calibration_error(logits, labels):
    """As Guo et al. define it, by NumPy: a loop over the bins with the interval written out."""
    p = softmax(np.float64(logits), axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    error = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("num_classes, scale", [(2, 1), (6, 3), (100, 4)])
def test_quality_is_numpys(num_classes, scale):
    random = np.random.RandomState(num_classes)
    logits, teacher = scale * random.standard_normal((2, 500, num_classes)).astype(np.float32)
    labels = np.where(random.rand(500) < 0.7, logits.argmax(axis=1), random.randint(num_classes, size=500))
    arguments = map(jnp.asarray, (logits, labels.astype(np.int32), teacher))
    sums = jax.tree.map(np.asarray, jax.jit(metrics.quality)(*arguments))
    rows = {row.metric: row.value for row in tidy.quality_rows("s", 3, "test", sums)}
    p, q = softmax(np.float64(teacher), axis=1), softmax(np.float64(logits), axis=1)
    expected = {
        "nll": log_loss(labels, q, labels=range(num_classes)),
        "ece": expected_calibration_error(logits, labels),
        "agreement": np.mean(logits.argmax(axis=1) == teacher.argmax(axis=1)),
        "kl_to_teacher": rel_entr(p, q).sum() / 500,
    }
    if num_classes > 5:
        expected["top5_accuracy"] = top_k_accuracy_score(labels, logits, k=5, labels=range(num_classes))
    assert rows == {metric: pytest.approx(value, rel=1e-5, abs=1e-7) for metric, value in expected.items()}


def test_of_a_run_that_diverged_nothing_is_right_and_the_rest_is_undefined():
    logits = jnp.full((4, 6), jnp.nan)
    sums = jax.tree.map(np.asarray, metrics.quality(logits, jnp.arange(4, dtype=jnp.int32), logits))
    rows = {row.metric: row.value for row in tidy.quality_rows("s", 0, "test", sums)}
    assert rows["top5_accuracy"] == 0
    assert all(np.isnan(rows[metric]) for metric in ("nll", "ece"))
    sums["nll"] = np.float32(np.inf)
    assert np.isnan({row.metric: row.value for row in tidy.quality_rows("s", 0, "test", sums)}["nll"])
