"""What the omitted classes come to along the way: against scikit-learn and by the rules' own definitions."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from kd_jax import losses
from kd_jax.evaluate import bias_correction
from kd_jax.evaluate.monitor import ridge_probe, track
from kd_jax.io import tidy
from kd_jax.models import build, forward, predict, predict_features, scale_pixels
from kd_jax.train import Config, loop, optim, sweep, variables_of
from kd_jax.types import HParams, Table

RANDOM = np.random.RandomState(0)
K, N = 3, 42
MODEL = build("mlp-8-6", K)


def table(num):
    labels = np.arange(num, dtype=np.int32) % K
    images = RANDOM.randint(0, 120, (num, 4, 4, 1)).astype(np.uint8)
    images[np.arange(num), labels, labels, 0] = 255
    return Table(jnp.asarray(images), jnp.asarray(labels))


def test_the_probe_is_ridge_regression():
    features, labels = RANDOM.normal(size=(N, 5)).astype(np.float32), np.arange(N) % K
    features[:, 0] += labels
    scores = np.asarray(jax.jit(ridge_probe, static_argnums=2)(features, labels.astype(np.int32), K))
    scaler = StandardScaler().fit(features[::2])
    reference = RidgeClassifier(alpha=1e-3 * N / 2).fit(scaler.transform(features[::2]), labels[::2])
    expected = reference.decision_function(scaler.transform(features[1::2]))  # of targets -1 and 1
    np.testing.assert_allclose(2 * scores - 1, expected, rtol=1e-3, atol=1e-4)
    assert scores.shape == (N // 2, K)


def test_features_are_the_models_last_whatever_the_batch():
    for model in (MODEL, build("cnn-4-6", K)):
        images = table(230).images  # more than one batch of a convolutional network
        variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), train=False)
        logits, last = jax.jit(lambda v, i, model=model: predict_features(model, v, i))(variables, images)
        np.testing.assert_allclose(logits, predict(model, variables, images), rtol=1e-5, atol=1e-6)
        features = np.asarray(list(forward(model, variables, scale_pixels(images))[1].values())[-1])
        np.testing.assert_allclose(last, features.reshape(230, -1), rtol=1e-4, atol=1e-5)


def hparams(masks):
    runs = len(masks)
    full = lambda value: np.full(runs, value, np.float32)  # noqa: E731
    return HParams(full(0.3), None, full(1), full(0), np.array(masks), np.zeros(runs, np.int32))


def test_history_tells_what_could_be_got_out_and_training_is_as_without():
    config = Config(
        MODEL,
        (4, 4, 1),
        K,
        losses.labels_loss,
        optim.Optimizer(optax.identity, decoupled=False),
        optim.Constant(0),
        6,
        5,
    )
    train, held_out = table(30), table(N)
    masks = [[True] * 3, [True, True, False]]
    outcomes = []
    for own in (config, dataclasses.replace(config, monitor=track)):
        states = sweep.init_states(own, sweep.run_keys([0, 1], 1, 0))
        ((states, history, _),) = loop.run_segments(own, train, held_out, hparams(masks), states, 2, 2, 1)
        outcomes.append((sweep.gather(states.params, 2), history, sweep.gather(variables_of(states), 2)))
    # Two programs, which may round otherwise.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), outcomes[0][0], outcomes[1][0])
    history = {
        name: {"correct": np.asarray(c.correct), "support": np.asarray(c.support)}
        for name, c in outcomes[1][1].items()
    }
    assert set(history) == {"train", "validation", "corrected", "probe"}

    # After the last epoch, run 1, which missed class 2: as many are called so as there are.
    own = jax.tree.map(lambda leaf: leaf[1], outcomes[1][2])
    logits, omitted = predict(MODEL, own, held_out.images), jnp.asarray([False, False, True])
    chosen = bias_correction.prior_matching_bias(logits, omitted, jnp.float32(1 / 3))
    predicted = np.asarray(bias_correction.add_class_bias(logits, omitted, chosen)).argmax(-1)
    assert np.sum(predicted == 2) == N // 3
    right = np.bincount(np.asarray(held_out.labels)[predicted == held_out.labels], minlength=K)
    np.testing.assert_array_equal(history["corrected"]["correct"][1, -1], right)
    np.testing.assert_array_equal(history["corrected"]["correct"][0], history["validation"]["correct"][0])
    assert history["probe"]["support"].sum() == 2 * 2 * (N // 2)

    full = {
        name: dict(counts, loss_sum=np.ones((2, 2)), agree=np.zeros((2, 2)))
        for name, counts in history.items()
    }
    rows = tidy.history_rows(full, ["a", "b"], [0, 0], [(), (2,)])
    found = {(r.setting, r.metric): r.value for r in rows if r.epoch == 2 and r.split == "validation"}
    assert found["b", "accuracy_omitted_corrected"] == right[2] / (N // 3)
    assert (
        "accuracy_omitted_corrected" in {m for _, m in found} and ("a", "accuracy_omitted_probe") not in found
    )
    assert found["a", "accuracy_corrected"] == found["a", "accuracy"]
