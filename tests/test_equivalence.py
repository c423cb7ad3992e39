"""A whole sweep, done in every way it can be done: the outcome is the same.

Three settings x three seeds of a small network with normalised images, dropout, augmentation, Adam and
a schedule, distilled from two teachers on 24 random images in up to five epochs. One program a way, shared by
the tests: compiling takes the time.
What runs the same program is equal to the bit. Two programs that compute the same thing round differently,
and how depends on the CPU: their states are compared after one epoch of three updates, with a tolerance.
Counts of predictions are never compared between two programs: a rounding error may turn a prediction.
"""

import dataclasses
import functools
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from kd_jax import losses, models
from kd_jax.io import checkpoint
from kd_jax.train import Config, augment, evaluate, fit, init_state, loop, optim, sweep, variables_of
from kd_jax.types import HParams, Table, TrainState

N, K, M, B, U, EPOCHS = 24, 3, 2, 8, 3, 5
SEEDS = (0, 1, 2)
FROZEN = 2  # the setting whose rate is 0
RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(256, size=(N, 4, 4, 1)).astype(np.uint8)
LABELS = (np.arange(N) % K).astype(np.int32)
TEACHERS = RANDOM.standard_normal((M, N, K)).astype(np.float32)


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax's Adam and schedules mix Python floats with integer counts, which the strict setting forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def setting(rate, decay, temperature, alpha, mask) -> HParams:
    numbers = (np.float32(x) for x in (rate, decay, temperature, alpha))
    return HParams(*numbers, np.array(mask), np.int32(0))


SETTINGS = (
    setting(0.05, 0.0, 2, 1.0, [True, True, True]),
    setting(0.02, 1e-3, 4, 0.5, [True, False, True]),
    setting(0.0, 0.0, 1, 0.0, [True, True, True]),
)
HPARAMS = sweep.stack_runs(SETTINGS, SEEDS, M)
R = len(SETTINGS) * len(SEEDS)  # 9: padded to 10 on two devices
# Adam divides a gradient by its own size, so that a gradient of the size of a rounding error would make a
# whole step. A large eps makes the step continuous in the gradient.
SMOOTH_ADAM = optim.Optimizer(optax.scale_by_adam, decoupled=True, options=(("eps", 1e-2),))
STAGES = (augment.RandomTranslate(1), augment.RandomFlip(), augment.Cutout(2, (128,)))
CONFIG = Config(
    model=models.build("mlp-6", K, dropout=0.5, input_dropout=0.1, normalize=((0.5,), (0.3,))),
    image_shape=(4, 4, 1),
    num_classes=K,
    loss_fn=losses.LOSSES["soft"],
    optimizer=SMOOTH_ADAM,
    schedule=optim.SCHEDULES["warmup_cosine"](EPOCHS * U),
    batch_size=B,
    num_updates=U,
    max_norm=2.0,
    augment=augment.Chain(STAGES),
)


def table(images=IMAGES, teachers=TEACHERS) -> Table:
    return Table(jnp.asarray(images), jnp.asarray(LABELS), (jnp.asarray(teachers),))


HELD_OUT = Table(jnp.asarray(IMAGES[:7]), jnp.asarray(LABELS[:7]))


@functools.cache
def start() -> TrainState:
    """The nine initial states, in numpy."""
    return plain(sweep.init_states(CONFIG, sweep.run_keys(SEEDS, len(SETTINGS), 0)))


def fresh(rows=slice(None)) -> TrainState:
    """A copy of them on the device: each sweep donates its own."""
    states = jax.tree.map(lambda leaf: jnp.array(leaf[rows]), start())
    return states.replace(key=jax.random.wrap_key_data(states.key))


def plain(tree):
    """Keys as their data, all in numpy; of states on the mesh, without the padding."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    tree = jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)
    mapped = isinstance(tree, TrainState) and tree.epoch.ndim
    return jax.tree.map(lambda leaf: leaf[:R], tree) if mapped else tree


def joined(histories):
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *histories)


@pytest.fixture(autouse=True)
def _two_devices(monkeypatch):
    """Unless a test says otherwise."""
    mesh_of(monkeypatch, 2)


def train(
    data=None, held_out=HELD_OUT, states=None, length=EPOCHS, vmap_size=None, config=CONFIG, epochs=EPOCHS
):
    """(final states, history) in numpy. `epochs` is traced: any number of them runs the same program."""
    states = fresh() if states is None else states
    data = table() if data is None else data
    segments = loop.run_segments(config, data, held_out, HPARAMS, states, epochs, length, vmap_size)
    done = [(plain(states), history, epoch) for states, history, epoch in segments]
    states, _, epoch = done[-1]
    assert epoch == epochs
    return states, joined([history for _, history, _ in done])


@functools.cache
def reference(epochs=EPOCHS):
    """All at once, two devices, in one segment."""
    return train(epochs=epochs)


def same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other):
    """(states, history) of two programs after one epoch: floats differ by rounding alone. Of the counts only
    the totals are compared."""

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    jax.tree.map(compare, one[0], other[0])
    for split in one[1] | other[1]:
        for name in ("loss_sum", "support"):
            compare(getattr(one[1][split], name), getattr(other[1][split], name))


def row(tree, run):
    return jax.tree.map(lambda leaf: leaf[run], tree)


def differ(one, other) -> bool:
    return bool(np.max(np.abs(one.params["hidden_0"]["kernel"] - other.params["hidden_0"]["kernel"])) > 1e-3)


def test_the_same_sweep_twice_gives_the_same_bits():
    same_bits(reference(), train())


def test_every_run_differs_from_every_other():
    states, _ = reference()
    assert all(differ(row(states, a), row(states, b)) for a in range(R) for b in range(a))


def test_settings_share_their_initialisation_and_seeds_do_not():
    states = start()
    for seed in range(3):
        same_bits(row(states, seed), row(states, 3 + seed))
        same_bits(row(states, seed), row(states, 6 + seed))
    assert all(differ(row(states, a), row(states, b)) for a, b in [(0, 1), (0, 2), (1, 2)])


def solo_is_mapped(config, mapped):
    """Run by run by `fit` alone: no map, no placement, no padding.  mapped: (states, history) of all
    runs after one epoch."""
    states, history = mapped
    solo = jax.jit(lambda hparams, state: fit(config, table(), HELD_OUT, hparams, state, jnp.int32(1), 1))
    for run in (0, 4, 8):
        after, counts = solo(row(HPARAMS, run), fresh(run))
        close((plain(after), plain(counts)), (row(states, run), row(history, run)))


def test_a_mapped_run_is_its_solo_run():
    solo_is_mapped(CONFIG, reference(1))


def test_the_chunk_changes_only_the_cost():
    """Five runs a device, one after another."""
    close(train(vmap_size=1, epochs=1), reference(1))


def mesh_of(monkeypatch, num_devices: int) -> None:
    devices = np.array(jax.local_devices()[:num_devices])
    mesh = Mesh(devices, ("runs",), axis_types=(AxisType.Auto,))
    monkeypatch.setattr(sweep, "runs_mesh", lambda num_runs, parts=1: mesh)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_any_number_of_devices_gives_what_two_give(monkeypatch, num_devices):
    """Nine runs are padded to 9 and 16."""
    on_two = reference(1)
    mesh_of(monkeypatch, num_devices)
    close(train(epochs=1), on_two)


def test_segments_and_resuming_give_the_same_bits(tmp_path):
    """Epochs 2 + 2 + 1; and stopped after 2, saved, loaded into another start, and continued to 5."""
    whole = train(length=2)
    close(train(length=2, epochs=1), reference(1))
    segments = loop.run_segments(CONFIG, table(), HELD_OUT, HPARAMS, fresh(), EPOCHS, 2, None)
    states, first, epoch = next(segments)
    assert epoch == 2 and np.all(plain(states).epoch == 2) and first["train"].support.shape == (R, 2, K)
    checkpoint.save(tmp_path / "epoch_2", {"states": states}, {"epoch": 2})
    arrays, _ = checkpoint.load(tmp_path / "epoch_2")
    others = sweep.init_states(CONFIG, sweep.run_keys([7, 8, 9], len(SETTINGS), 0))
    loaded = checkpoint.rebuild(others, arrays["states"])
    after, rest = train(states=loaded, length=2)
    same_bits((after, joined([first, rest])), whole)


def test_the_grid_is_traced_once(monkeypatch):
    """Nine runs in three segments, then other settings, masks and seeds: one trace of `fit`."""
    monkeypatch.setattr(loop, "fit", chex.assert_max_traces(fit, n=1))

    def run(settings, seeds, epochs):
        hparams = sweep.stack_runs(settings, seeds, M)
        states = fresh().replace(key=sweep.run_keys(seeds, len(settings), 0))
        list(loop.run_segments(CONFIG, table(), None, hparams, states, epochs, 2, None))

    run(SETTINGS, SEEDS, EPOCHS)
    run((setting(0.3, 0.1, 9, 0.2, [False, False, True]),) * 3, (5, 6, 7), 3)
    with pytest.raises(AssertionError, match="traced"):  # the counter does count
        list(
            loop.run_segments(
                dataclasses.replace(CONFIG, max_norm=3.0), table(), None, HPARAMS, fresh(), 3, 2, None
            )
        )


def other_class_1() -> Table:
    """Other images and other teacher logits of class 1, which setting 1 never sees and setting 0 does."""
    images, teachers = IMAGES.copy(), TEACHERS.copy()
    images[LABELS == 1] = 255 - images[LABELS == 1]
    teachers[:, LABELS == 1] *= -1
    return table(images, teachers)


def class_1_touches_setting_0_alone(changed, usual):
    """Of (states, history): setting 1's are the same to the bit."""
    for run in range(R):
        if run // 3 == 1:
            same_bits(row(changed, run), row(usual, run))
        elif run // 3 == 0:
            assert differ(row(changed[0], run), row(usual[0], run))
    seen = usual[1]["train"].support
    assert not np.any(seen[3:6, :, 1]) and np.all(seen[3:6, :, [0, 2]] >= 8)
    np.testing.assert_array_equal(seen.sum(axis=-1), U * B)  # equal work


def test_a_masked_class_does_not_touch_its_run():
    class_1_touches_setting_0_alone(train(other_class_1()), reference())


def test_mixup_keeps_runs_and_masks_apart():
    """In a program of its own, which takes long to compile: partners come from the same run's batch, which
    holds seen classes only."""
    config = dataclasses.replace(CONFIG, mixup=0.5)
    mixed = train(config=config)
    assert differ(row(mixed[0], 0), row(reference()[0], 0))
    solo_is_mapped(config, train(config=config, epochs=1))
    class_1_touches_setting_0_alone(train(other_class_1(), config=config), mixed)


def test_each_run_learns_from_its_own_teacher():
    """Seeds 0, 1, 2 learn from teachers 0, 1, 0: another teacher 1 changes the runs of seed 1 alone."""
    states, _ = train(table(teachers=np.stack([TEACHERS[0], -TEACHERS[1]])))
    for run in range(2 * len(SEEDS)):
        if run % 3 == 1:
            assert differ(row(states, run), row(reference()[0], run))
        else:
            same_bits(row(states, run), row(reference()[0], run))


def test_validation_does_not_touch_training():
    """With none at all the student trains the same: it is in training mode after a validation, too."""
    states, history = train(held_out=None, length=2, epochs=2)
    assert set(history) == {"train"}
    expected, expected_history = reference(2)
    close((states, history), (expected, {"train": expected_history["train"]}))


def test_dropout_is_active_in_every_epoch_and_absent_from_validation():
    """At a rate of 0 the network stays as it began: its validation loss is that of `evaluate` at every epoch,
    its training loss is another in each, by dropout and augmentation."""
    states, history = reference()
    for run in range(3 * FROZEN, R):
        same_bits(row(states, run).params, row(start(), run).params)
        counts = evaluate(CONFIG.model, variables_of(row(start(), run)), HELD_OUT.images, HELD_OUT.labels)
        np.testing.assert_allclose(history["validation"].loss_sum[run], counts.loss_sum, rtol=1e-4)
        assert len(np.unique(history["train"].loss_sum[run])) == EPOCHS


def test_the_validation_of_an_epoch_is_of_the_state_after_it():
    """The last one's loss is that of the final state, and not that of the state before."""
    states, history = reference(2)
    for run in (0, 4):
        counts = evaluate(CONFIG.model, variables_of(row(states, run)), HELD_OUT.images, HELD_OUT.labels)
        before, last = history["validation"].loss_sum[run, -2:]
        np.testing.assert_allclose(last, counts.loss_sum, rtol=1e-4)
        assert abs(last - before) > 1e-3 * last


def test_learning_happens():
    """The training loss of each run that has a rate falls."""
    loss = reference()[1]["train"].loss_sum[:3]
    assert np.all(loss[:, -1] < 0.95 * loss[:, 0])


@pytest.mark.parametrize("num_devices", [2, 8])
def test_no_collective_in_the_compiled_program(monkeypatch, num_devices):
    """Runs never speak to each other: the devices compute side by side."""
    mesh_of(monkeypatch, num_devices)
    mesh = sweep.runs_mesh(R)
    shared = sweep.put_on_mesh((table(), HELD_OUT), mesh, sweep.REPLICATED)
    runs = sweep.put_on_mesh(sweep.pad_runs((HPARAMS, fresh()), num_devices), mesh, sweep.SHARDED)
    text = loop._segment.lower(CONFIG, EPOCHS, None, mesh, *shared, jnp.int32(2), *runs).compile().as_text()
    assert "while" in text and re.search(
        rf"num_partitions={num_devices}|sharding=.devices=.{num_devices}", text
    )
    names = (
        r"all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter|ragged-all"
    )
    assert not re.findall(names, text)


def test_init_states_is_init_state_of_each_key():
    one = jax.jit(partial(init_state, CONFIG), compiler_options=sweep.QUICK_COMPILE)(fresh(1).key)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), plain(one), row(start(), 1))
    assert np.all(start().epoch == 0)


def test_batch_statistics_are_each_runs_own():
    model = models.build("cnn-2-bn", K, dropout=0.5)
    config = dataclasses.replace(CONFIG, model=model, augment=None)
    starts = [sweep.init_states(config, sweep.run_keys(SEEDS, len(SETTINGS), 0)) for _ in range(2)]
    together, alone = (
        train(states=states, config=config, vmap_size=vmap_size, epochs=1)[0]
        for states, vmap_size in zip(starts, (None, 1), strict=True)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), together, alone)
    means = together.model_state["batch_stats"]["block_0_0_norm"]["mean"]
    assert len(np.unique(means[:, 0])) == R
