"""The generator in a run's state: objectives against NumPy, when it is updated, resumed, mapped, diverged."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses, models
from kd_jax.models.generator import Generator, generate, init_generator
from kd_jax.train import fit, generator, init_state, make_config, optim
from kd_jax.train.sweep import QUICK_COMPILE, make_hparams
from kd_jax.types import GeneratorHParams, Table

RANDOM = np.random.RandomState(0)
quick = partial(jax.jit, compiler_options=QUICK_COMPILE)
KEY_DATA = np.array([0, 1], np.uint32)  # wrapped anew where it is used: JAX refuses a key that comes twice
NUMBERS = GeneratorHParams(np.float32(1e-3), np.float32(0.1), np.float32(5))


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (8, 8, 1)])
def test_shapes(shape):
    network = Generator(shape, 4)

    def run(key):
        return generate(network, init_generator(network, key, 100), jnp.zeros((3, 100)))

    assert jax.eval_shape(run, jax.random.key(0)).shape == (3, *shape)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def test_objectives_are_those_of_the_papers():
    student, teacher = RANDOM.randn(2, 5, 3).astype(np.float32)
    features = RANDOM.randn(5, 7).astype(np.float32)
    answers = generator.Answers(student, teacher, features)
    p, q = softmax(teacher.astype(np.float64)), softmax(student.astype(np.float64))
    kl = (p * np.log(p / q)).sum(-1).mean()
    np.testing.assert_allclose(generator.adversarial_loss(answers, NUMBERS), -kl, rtol=1e-5)
    mean = p.mean(0)
    expected = -np.log(p.max(-1)).mean() - 0.1 * np.abs(features).mean() + 5 * (mean * np.log10(mean)).sum()
    np.testing.assert_allclose(generator.dafl_loss(answers, NUMBERS), expected, rtol=1e-5)
    # The adversarial one reaches both networks.
    gradients = jax.grad(lambda answers: generator.adversarial_loss(answers, NUMBERS))(answers)
    assert np.abs(gradients.teacher).max() > 1e-3 and np.abs(gradients.student).max() > 1e-3


MODEL = models.build("mlp-6", 3)
U, B = 4, 5


@pytest.fixture(autouse=True)
def _promoting():
    with jax.numpy_dtype_promotion("standard"):  # optax promotes
        yield


@pytest.fixture(scope="module")
def run():
    """(config, table, hparams of R = 2 runs): two teachers, one for each run."""
    objective, _ = generator.OBJECTIVES["adversarial"]
    config = make_config(
        MODEL, (U * B, 4, 4, 1), losses.soft_loss, 3, batch_size=B, schedule=optim.Constant,
        teacher_models=(MODEL,), has_labels=False,
        generator=generator.GeneratorConfig(objective, interval=2, width=2),
    )  # fmt: skip
    init = partial(models.init_variables, MODEL, image_shape=(4, 4, 1))
    teachers = quick(jax.vmap(init))(jax.random.split(jax.random.key(3), 2))
    table = Table(
        jnp.zeros((U * B, 4, 4, 1), jnp.uint8), jnp.zeros(U * B, jnp.int32), teacher_variables=(teachers,)
    )
    one = make_hparams(3, learning_rate=1e-2, temperature=2, alpha=1).replace(generator=NUMBERS)
    hparams = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), one)
    return config, table, hparams.replace(teacher=jnp.arange(2, dtype=jnp.int32))


@pytest.fixture(scope="module")
def mapped(run):
    """mapped(epochs, states or None for fresh ones, rates of the generators) of both runs, in one program;
    each run has a teacher of its own, and the same key."""
    config, table, hparams = run

    def two(rates, states, fresh, epochs):
        def one(hparams, rate, state):
            start = init_state(config, jax.random.wrap_key_data(KEY_DATA))
            state = jax.tree.map(partial(jnp.where, fresh), start.replace(key=None), state)
            state = state.replace(key=start.key)
            hparams = hparams.replace(generator=hparams.generator.replace(learning_rate=rate))
            state, _ = fit(config, table, None, hparams, state, epochs, 3)
            return state.replace(key=None)

        return jax.vmap(one)(hparams, rates, states)

    shapes = jax.eval_shape(jax.vmap(partial(init_state, config)), jax.random.split(jax.random.key(0), 2))
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.replace(key=None))
    program = quick(two)

    def call(epochs, states=None, rates=(1e-3, 1e-3)):
        given = empty if states is None else states
        return program(jnp.array(rates, jnp.float32), given, jnp.asarray(states is None), jnp.int32(epochs))

    return call


@pytest.mark.slow
def test_resumed_to_the_bit(mapped):
    whole, resumed = mapped(3), mapped(2, mapped(1))
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    assert whole.generator.opt_state.count.tolist() == [3 * U // 2] * 2  # one for every two of the student's
    # Each run has its own teacher, and so another generator.
    dense = whole.generator.params["dense"]["kernel"]
    assert np.abs(dense[0] - dense[1]).max() > 1e-4


@pytest.mark.slow
def test_mapped_as_alone(run, mapped):
    config, table, hparams = run
    first = jax.tree.map(lambda leaf: leaf[0], hparams)

    def fit_one():
        state = init_state(config, jax.random.wrap_key_data(KEY_DATA))
        return fit(config, table, None, first, state, jnp.int32(1), 1)[0]

    alone = quick(fit_one)()
    both = mapped(1)
    for name in ("params", "generator"):
        pairs = zip(*(jax.tree.leaves(getattr(state, name)) for state in (both, alone)), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one[0], other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_generator_that_diverges_stops_its_run_alone(mapped):
    start, after = mapped(0), mapped(1, rates=(np.inf, 1e-3))
    assert after.diverged.tolist() == [True, False]
    kept = lambda state: jax.tree.leaves((state.params, state.generator))  # noqa: E731
    for before, now in zip(kept(start), kept(after), strict=True):
        np.testing.assert_array_equal(before[0], now[0])
        assert np.isfinite(now[1]).all()
    assert np.any(
        start.generator.params["dense"]["kernel"][1] != after.generator.params["dense"]["kernel"][1]
    )
