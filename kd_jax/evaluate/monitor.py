"""Accuracy on the omitted classes during training: counts on the validation split after an epoch.

The counts as trained are those of the evaluation. Here: under the bias that the known share of the omitted
classes gives (`bias_correction.prior_matching_bias`), and by a linear probe of the last hidden layer.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.evaluate import bias_correction
from kd_jax.models import predict_features
from kd_jax.train import counts
from kd_jax.types import Counts, HParams, Table, Variables


def ridge_probe(features: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Scores of a linear probe on the examples of odd index, fitted on those of even index: ridge
    regression of the one-hot labels on standardised features, penalty 1e-3 an example.

    Args: features f32[N,D], labels i32[N], N >= 2.  Returns: f32[N // 2, K].
    Source: Alain & Bengio 2017, section 3 (there logistic regression, which has no closed form).
    """
    fitted, judged = features[::2], features[1::2]
    mean, deviation = jnp.mean(fitted, axis=0), jnp.std(fitted, axis=0)
    scaled = lambda x: (x - mean[None]) / jnp.maximum(deviation, 1e-6)[None]  # noqa: E731
    x, y = scaled(fitted), jax.nn.one_hot(labels[::2], num_classes, dtype=jnp.float32)
    centre = jnp.mean(y, axis=0, keepdims=True)
    gram = x.T @ x + 1e-3 * x.shape[0] * jnp.eye(x.shape[1], dtype=jnp.float32)
    return scaled(judged) @ jax.scipy.linalg.solve(gram, x.T @ (y - centre), assume_a="pos") + centre


def track(
    model: Any, variables: Variables, validation: Table, hparams: HParams, num_classes: int
) -> dict[str, Counts]:
    """{"corrected": of all validation examples, "probe": of those of odd index}; the former as trained where
    no class is omitted. The share of the omitted classes is the split's, which is stratified."""
    omitted = ~hparams.class_mask
    logits, features = predict_features(model, variables, validation.images)
    logits = logits[:, :num_classes]
    share = jnp.mean(omitted[validation.labels].astype(jnp.float32))
    chosen = bias_correction.prior_matching_bias(logits, omitted, share)
    scores = ridge_probe(features, validation.labels, num_classes)
    return {
        "corrected": counts.count(bias_correction.add_class_bias(logits, omitted, chosen), validation.labels),
        "probe": counts.count(scores, validation.labels[1::2]),
    }
