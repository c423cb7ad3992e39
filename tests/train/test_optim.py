"""Each optimiser against optax's own with the same rate, each schedule against derived numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd_jax.train import optim
from kd_jax.types import HParams

RATE, DECAY = 0.05, 0.1


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax's Adam and schedules mix Python floats with integer counts, which the strict setting forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


# The same update by optax alone. adam and sgd take weight decay into the gradient (L2), adamw beside it.
REFERENCE = {
    "adam": optax.chain(optax.add_decayed_weights(DECAY), optax.adam(RATE)),
    "adamw": optax.adamw(RATE, weight_decay=DECAY),
    "sgd": optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=0.9, nesterov=True)),
}


def hparams(rate=RATE, decay=DECAY) -> HParams:
    number = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    return HParams(number(rate), number(decay), number(1), number(1), jnp.ones(2, bool), jnp.int32(0))


def trees():
    """Parameters and three steps' gradients."""
    random = np.random.RandomState(0)

    def tree():
        return {
            name: jnp.asarray(random.randn(*shape), jnp.float32)
            for name, shape in (("a", (3, 2)), ("b", (2,)))
        }

    return tree(), [tree() for _ in range(3)]


def ours(name: str, rate=1.0, hparams=hparams()):  # noqa: B008
    optimizer = optim.OPTIMIZERS[name]
    params, gradients = trees()
    state = optimizer.direction.init(params)
    for gradient in gradients:
        params, state = optim.apply_gradients(optimizer, jnp.float32(rate), gradient, state, params, hparams)
    return params


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimiser_is_optaxs(name):
    params, gradients = trees()
    state = REFERENCE[name].init(params)
    for gradient in gradients:
        updates, state = REFERENCE[name].update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours(name), params)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_schedule_scales_the_whole_step(name):
    """A schedule at 0.4 is a rate 0.4 times as large, the decay's part included; at 0 nothing moves."""
    scaled, smaller = ours(name, rate=0.4), ours(name, hparams=hparams(0.4 * RATE))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), scaled, smaller)
    jax.tree.map(np.testing.assert_array_equal, ours(name, rate=0.0), trees()[0])


def test_first_steps_by_hand():
    """One parameter p = 2, gradient 1 at each step, rate 0.05, no decay.

    sgd, Nesterov momentum 0.9: m1 = 1, step 1 + 0.9 m1 = 1.9; m2 = 1.9, step 1 + 0.9 m2 = 2.71:
    2 - 0.05 * 4.61.
    adam: every bias-corrected ratio is 1: 2 - 0.05 * 2.
    adamw with decay 0.1: p <- p (1 - 0.005) - 0.05 twice: 1.94, then 1.8803.
    adam with decay 0.1 (L2): the gradients 1.2 and about 1.19 have nearly the ratio 1: 1.9000 to 3 digits.
    """

    def two_steps(name, decay):
        optimizer, params = optim.OPTIMIZERS[name], {"p": jnp.asarray([2.0])}
        state = optimizer.direction.init(params)
        for _ in range(2):
            gradient = {"p": jnp.ones(1)}
            params, state = optim.apply_gradients(
                optimizer, jnp.float32(1), gradient, state, params, hparams(decay=decay)
            )
        return float(params["p"][0])

    assert two_steps("sgd", 0.0) == pytest.approx(2 - 0.05 * 4.61, rel=1e-6)
    assert two_steps("adam", 0.0) == pytest.approx(1.9, rel=1e-5)
    assert two_steps("adamw", 0.1) == pytest.approx(1.8803, rel=1e-5)
    assert two_steps("adam", 0.1) == pytest.approx(1.9, rel=1e-3)


# (updates, {update: value})
EXPECTED = {
    "constant": (100, {0: 1, 50: 1, 99: 1}),
    # (1 + cos(pi u / 100)) / 2
    "cosine": (100, {0: 1, 25: 0.853553, 50: 0.5, 75: 0.146447, 100: 0}),
    # Five updates up, then half a cosine over 95: half way at 5 + 95 / 2 = 52.5, between 52 and 53.
    "warmup_cosine": (100, {0: 0, 2: 0.4, 5: 1, 52: 0.508267, 53: 0.491733, 100: 0}),
    # CIFAR's usual 240: a tenth each at 150, 180 and 210.
    "steps": (240, {0: 1, 149: 1, 150: 0.1, 179: 0.1, 180: 0.01, 209: 0.01, 210: 0.001, 239: 0.001}),
}


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_schedule_has_the_derived_values(name):
    num_updates, values = EXPECTED[name]
    at = jax.jit(jax.vmap(optim.SCHEDULES[name](num_updates)))(jnp.asarray(list(values), jnp.int32))
    np.testing.assert_allclose(at, list(values.values()), atol=1e-6)


@pytest.mark.parametrize(
    "name, num_updates",
    [(name, num) for name in optim.SCHEDULES for num in (1, 2, 3, 20, 999)],
)
def test_schedule_of_any_length_lies_in_0_to_1(name, num_updates):
    at = np.asarray(jax.vmap(optim.SCHEDULES[name](num_updates))(jnp.arange(num_updates, dtype=jnp.int32)))
    assert np.all((at >= 0) & (at <= 1)) and at.max() > 0.9


def test_clip_columns_is_numpys():
    """Column norms of the kernel 5, 1, 0 under a limit of 2: (3, 4) -> (1.2, 1.6), the others to the bit."""
    kernel = np.float32([[3, 0.6, 0], [4, 0.8, 0]])
    bias = np.full(3, 9, np.float32)
    params = {"hidden_0": {"kernel": kernel, "bias": bias}, "logits": {"kernel": 9 * kernel, "bias": bias}}
    clipped = optim.clip_columns(jax.tree.map(jnp.asarray, params), 2.0)
    np.testing.assert_allclose(clipped["hidden_0"]["kernel"][:, 0], [1.2, 1.6], rtol=1e-6)
    np.testing.assert_array_equal(clipped["hidden_0"]["kernel"][:, 1:], kernel[:, 1:])
    np.testing.assert_array_equal(clipped["hidden_0"]["bias"], bias)
    jax.tree.map(np.testing.assert_array_equal, clipped["logits"], params["logits"])


def test_clip_columns_of_a_convolution():
    """A unit's incoming weights are all entries of its kernel but the last axis."""
    kernel = np.random.RandomState(0).randn(3, 3, 2, 4).astype(np.float32)
    clipped = optim.clip_columns({"conv": {"kernel": jnp.asarray(kernel)}}, 1.5)["conv"]["kernel"]
    norms = np.linalg.norm(np.float64(kernel).reshape(18, 4), axis=0)
    assert norms.min() > 1.5
    np.testing.assert_allclose(clipped, kernel * (1.5 / norms), rtol=1e-5)
