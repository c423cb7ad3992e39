"""Feature losses within a run: alone as mapped, resumed as in one piece, on two devices as on one; omitted
classes.

Small fully connected networks on 24 random images, a program for each method. Where the same program runs
twice the bits are the same; two programs round differently, so states are compared after three updates with
a tolerance.
"""

import dataclasses
import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from kd_jax import losses, models
from kd_jax.io import checkpoint
from kd_jax.train import Config, init_state, loop, optim, sweep, train_epoch, variables_of
from kd_jax.train.config import FeatureMatch
from kd_jax.types import Table

N, K, B, U, SEEDS = 24, 3, 8, 3, (0, 1, 2)
RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(256, size=(N, 4, 4, 1)).astype(np.uint8)
LABELS = (np.arange(N) % K).astype(np.int32)
TEACHER, STUDENT = models.build("mlp-5-4", K), models.build("mlp-6-3", K)
BOTH = ("hidden_0", "hidden_1")
SMOOTH_ADAM = optim.Optimizer(optax.scale_by_adam, decoupled=True, options=(("eps", 1e-2),))
# Of a vector attention is 1 whatever it is: at is compared on a convolution, which takes longer to compile.
METHODS = [name for name in losses.FEATURE_LOSSES if name != "at"]


@pytest.fixture(autouse=True)
def _optax_promotes():
    with jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def teachers():
    """Two teachers' variables, leading axis 2."""
    keys = jax.random.split(jax.random.key(9), 2)
    init = lambda key: models.init_variables(TEACHER, key, IMAGES.shape[1:])  # noqa: E731
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(init), compiler_options=sweep.QUICK_COMPILE)(keys))


@functools.cache
def answers():
    """(logits f32[2,N,K], layers f32[2,N,D] of each)."""

    def of(one):
        images = jnp.asarray(IMAGES, jnp.float32) / 255
        logits, features, _ = models.forward(TEACHER, one, images)
        return logits, tuple(features[layer] for layer in BOTH)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(of))(teachers()))


def config(name: str) -> Config:
    layers = BOTH if losses.FEATURE_LOSSES[name].layers == "maps" else BOTH[-1:]
    match = FeatureMatch(name, layers, layers, TEACHER, N, 5)
    return Config(
        STUDENT, IMAGES.shape[1:], K, losses.soft_loss, SMOOTH_ADAM, optim.SCHEDULES["constant"](9), B, U,
        feature_match=match,
    )  # fmt: skip


def table(name: str, poison: bool = False) -> Table:
    """With cached answers; poison: nan instead of those of class 1."""
    logits, layers = answers()
    if poison:
        spoil = lambda x: np.where((LABELS == 1)[:, None], np.float32(np.nan), x)  # noqa: E731
        logits, layers = spoil(logits), tuple(map(spoil, layers))
    chosen = layers if losses.FEATURE_LOSSES[name].layers == "maps" else layers[-1:]
    order = np.argsort(LABELS, kind="stable").astype(np.int32)
    sizes = np.bincount(LABELS).astype(np.int32)
    return jax.tree.map(jnp.asarray, Table(IMAGES, LABELS, (logits,), None, chosen, order, sizes))


def hparams(name: str, omitted=()):
    one = sweep.make_hparams(K, omitted, 0.02, 0.0, 4.0, 0.5)
    weight = np.float32(losses.FEATURE_LOSSES[name].weight / 10)
    return sweep.stack_runs([one.replace(feature_weight=weight)], SEEDS, 2)


def segments(name, epochs, states=None, length=1, vmap_size=1, tables=None, omitted=()):
    """(states in numpy without padding, keys as data) after these epochs."""
    own = config(name)
    states = sweep.init_states(own, sweep.run_keys(SEEDS, 1, 0)) if states is None else states
    tables = table(name) if tables is None else tables
    for after, _, _ in loop.run_segments(
        own, tables, None, hparams(name, omitted), states, epochs, length, vmap_size
    ):
        plain = in_numpy(after)
    return plain


def in_numpy(states):
    states = states.replace(key=jax.random.key_data(states.key))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(SEEDS)], states)


def same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    """And what the tables hold is computed, not traced."""
    answers()
    mesh_of(monkeypatch, 1)


def mesh_of(monkeypatch, num):
    mesh = Mesh(np.array(jax.local_devices()[:num]), ("runs",), axis_types=(AxisType.Auto,))
    monkeypatch.setattr(sweep, "runs_mesh", lambda num_runs, parts=1: mesh)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_mapped_is_solo_resumed_is_whole_and_sharded_is_unsharded(name, monkeypatch, tmp_path):
    whole = segments(name, 2)
    own = config(name)
    # Resumed from a checkpoint, into another start.
    states = sweep.init_states(own, sweep.run_keys(SEEDS, 1, 0))
    half, _, _ = next(loop.run_segments(own, table(name), None, hparams(name), states, 2, 1, 1))
    checkpoint.save(tmp_path / "epoch_1", {"states": half}, {"epoch": 1})
    arrays, _ = checkpoint.load(tmp_path / "epoch_1")
    others = sweep.init_states(own, sweep.run_keys([7, 8, 9], 1, 0))
    same_bits(segments(name, 2, checkpoint.rebuild(others, arrays["states"])), whole)
    # Alone, and on two devices with a padding run, vmapped there.
    first = segments(name, 1)
    solo = jax.jit(lambda h, state: train_epoch(own, table(name), h, state)[0])
    started = jax.tree.map(lambda leaf: leaf[1], sweep.init_states(own, sweep.run_keys(SEEDS, 1, 0)))
    alone = solo(jax.tree.map(lambda leaf: leaf[1], hparams(name)), started)
    alone = alone.replace(key=jax.random.key_data(alone.key))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(lambda a, b: close(a, b[1]), alone, first)
    mesh_of(monkeypatch, 2)
    jax.tree.map(close, segments(name, 1, vmap_size=None), first)
    assert not np.allclose(first.params["hidden_1"]["kernel"][0], first.params["hidden_1"]["kernel"][1])


QUICK = ("crd",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_an_omitted_class_reaches_no_loss(name):
    """Teacher logits and layers of class 1 are nan: the run without it has the same bits as with the true
    ones, and the memory rows of class 1 stay as drawn."""
    true = segments(name, 1, omitted=[1])
    poisoned = segments(name, 1, omitted=[1], tables=table(name, poison=True))
    same_bits(poisoned, true)
    assert not np.any(true.diverged)
    if name == "crd":
        before = in_numpy(sweep.init_states(config(name), sweep.run_keys(SEEDS, 1, 0))).of_features["memory"]
        after = true.of_features["memory"]
        for old, new in ((before.student, after.student), (before.teacher, after.teacher)):
            same_bits(old[:, LABELS == 1], new[:, LABELS == 1])
            assert np.all(np.any(old[:, LABELS != 1] != new[:, LABELS != 1], axis=-1))
        assert np.all(after.z > 0)


def test_the_connector_is_trained_and_is_no_part_of_the_student():
    states = segments("fitnet", 1)
    before = in_numpy(sweep.init_states(config("fitnet"), sweep.run_keys(SEEDS, 1, 0)))
    kernel = lambda state: state.of_features["connector"]["conv_0"]["kernel"]  # noqa: E731
    assert np.all(np.abs(kernel(states) - kernel(before)).max(axis=(1, 2)) > 1e-4)
    assert set(variables_of(states)["params"]) == {"hidden_0", "hidden_1", "logits"}


@pytest.mark.slow
def test_a_weight_of_zero_is_the_loss_of_the_logits_alone():
    """And a weight above it moves the student: the weight is a traced number, an axis of the grid."""
    own = config("fitnet")
    step = jax.jit(lambda h, state: train_epoch(own, table("fitnet"), h, state)[0].params)
    plain = dataclasses.replace(own, feature_match=None)
    key, numbers = jax.random.key(3), jax.tree.map(lambda leaf: leaf[0], hparams("fitnet"))
    off, on = (step(numbers.replace(feature_weight=jnp.float32(w)), init_state(own, key)) for w in (0, 10))
    without = jax.jit(lambda h, state: train_epoch(plain, table("fitnet"), h, state)[0].params)
    expected = without(numbers.replace(feature_weight=None), init_state(plain, key))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), off, expected)
    assert np.abs(on["hidden_1"]["kernel"] - off["hidden_1"]["kernel"]).max() > 1e-3


@pytest.mark.slow
def test_a_queried_teacher_gives_what_is_cached():
    own = config("sp")
    state = init_state(own, jax.random.key(3))
    numbers = jax.tree.map(lambda leaf: jnp.asarray(leaf[1]), hparams("sp"))
    cached = jax.jit(lambda: train_epoch(own, table("sp"), numbers, state)[0].params)()
    asked = dataclasses.replace(own, teacher_models=(TEACHER,))
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf[1:2]), teachers())
    queried = Table(jnp.asarray(IMAGES), jnp.asarray(LABELS), None, (one,))
    found = jax.jit(lambda: train_epoch(asked, queried, numbers, state)[0].params)()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, cached)


def test_a_feature_loss_needs_the_teachers_layers():
    own, state = config("sp"), None
    bare = table("sp").replace(teacher_features=None)
    numbers = jax.tree.map(lambda leaf: leaf[0], hparams("sp"))
    state = jax.eval_shape(lambda: init_state(own, jax.random.key(0)))
    with pytest.raises(ValueError, match="teacher_features"):
        jax.eval_shape(functools.partial(train_epoch, own, bare, numbers), state)


def test_a_checkpoint_of_an_older_version_is_read(tmp_path):
    """Its states have no `of_features`."""
    plain = dataclasses.replace(config("sp"), feature_match=None)
    states = sweep.init_states(plain, sweep.run_keys(SEEDS, 1, 0))
    arrays = flax.serialization.to_state_dict(in_numpy(states))
    assert arrays.pop("of_features") == {}
    checkpoint.save(tmp_path / "epoch_000001", {"states": arrays, "history": {}}, {"epoch": 1, "num_runs": 3})
    template = jax.eval_shape(jax.vmap(functools.partial(init_state, plain)), states.key)
    loaded, _ = loop._load(tmp_path / "epoch_000001", template)
    same_bits(in_numpy(loaded).params, in_numpy(states).params)
    assert loaded.of_features == {}
