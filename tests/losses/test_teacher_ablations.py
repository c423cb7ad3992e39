"""Ablations of the teacher's answer: by hand, and what each leaves as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from kd_jax.losses.teacher_ablations import TEACHER_ABLATIONS, ablate_teacher_logits

P = np.array([0.5, 0.05, 0.3, 0.1, 0.05])  # class 3 is missing


def ablated(name, logits, temperature=1.0, key=0, omitted=3):
    """Probabilities at that temperature."""
    mask = jnp.arange(logits.shape[-1], dtype=jnp.int32) != omitted
    number = jnp.int32(list(TEACHER_ABLATIONS).index(name))
    found = jax.jit(ablate_teacher_logits)(
        number, jax.random.key(key), jnp.asarray(logits, jnp.float32), mask, temperature
    )
    return softmax(np.float64(found) / temperature, axis=-1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("full", P),
        ("omitted_removed", np.array([0.5, 0.05, 0.3, 0, 0.05]) / 0.9),
        ("top1", [0.5, 0.125, 0.125, 0.125, 0.125]),
        ("top2", [0.5, 0.2 / 3, 0.3, 0.2 / 3, 0.2 / 3]),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_by_hand(name, expected, temperature):
    np.testing.assert_allclose(
        ablated(name, temperature * np.log(P)[None], temperature)[0], expected, atol=1e-6
    )


def test_shuffled_keeps_the_named_class_and_the_values_but_not_whose_they_are():
    logits = np.tile(np.log(P), (4000, 1))
    found = ablated("shuffled", logits)
    np.testing.assert_allclose(found[:, 0], 0.5, atol=1e-6)
    np.testing.assert_allclose(np.sort(found, axis=-1), np.sort(softmax(logits, axis=-1), axis=-1), atol=1e-6)
    # Each other class holds each of the four values equally often: its mean is that of the four, 1/8.
    spread = np.std(P[1:]) / np.sqrt(4000)
    np.testing.assert_allclose(found[:, 1:].mean(axis=0), 0.125, atol=5 * spread)
    assert not np.array_equal(found, ablated("shuffled", logits, key=1))


@pytest.mark.parametrize("name", TEACHER_ABLATIONS)
def test_a_teacher_who_is_certain_gives_numbers(name):
    logits = np.float32([[1e4, 0, -1e4, 0, 0], [0, 0, 0, 0, 0]])
    for temperature in (0.01, 1.0, 1e4):
        found = ablated(name, logits, temperature)
        assert np.all(np.isfinite(found))
        if name != "omitted_removed":
            seen = softmax(np.float64(logits[0]) / temperature)
            np.testing.assert_allclose(found[0].max(), seen.max(), rtol=1e-4)
