"""A run whose batch is split over devices is the run of the whole batch, to rounding.

States are compared after one epoch of three updates, with a tolerance: the parts' sums round differently.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from kd_jax import losses, models
from kd_jax.models import split_batch
from kd_jax.train import Config, augment, loop, optim, sweep
from kd_jax.types import Table

N, K, B = 24, 3, 8
RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(256, size=(N, 6, 6, 2)).astype(np.uint8)
LABELS = (np.arange(N) % K).astype(np.int32)
TABLE = Table(jnp.asarray(IMAGES), jnp.asarray(LABELS), (jnp.asarray(RANDOM.randn(1, N, K), jnp.float32),))
HELD_OUT = Table(jnp.asarray(IMAGES[:7]), jnp.asarray(LABELS[:7]))
CONFIG = Config(
    model=models.build("cnn-2-bn", K, dropout=0.5),
    image_shape=(6, 6, 2),
    num_classes=K,
    loss_fn=losses.LOSSES["soft"],
    # Continuous in the gradient: a gradient of the size of a rounding error must not make a whole step.
    optimizer=optim.Optimizer(optax.scale_by_adam, decoupled=True, options=(("eps", 1e-2),)),
    schedule=optim.SCHEDULES["cosine"](6),
    batch_size=B,
    num_updates=3,
    augment=augment.RandomTranslate(1),
)
DENSE = dataclasses.replace(CONFIG, model=models.build("mlp-6", K, dropout=0.5, input_dropout=0.1))


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax's schedules mix Python floats with integer counts, which the strict setting forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def hparams_of(num_runs: int):
    setting = sweep.make_hparams(K, [2], learning_rate=0.05, temperature=2, alpha=0.5)
    return sweep.stack_runs([setting], range(num_runs))


def train(monkeypatch, config, num_runs, parts):
    """(states, history) in numpy, after one epoch."""
    monkeypatch.setattr(sweep, "batch_parts", lambda config, hparams: parts)
    states = sweep.init_states(config, sweep.run_keys(range(num_runs), 1, 0))
    segments = loop.run_segments(config, TABLE, HELD_OUT, hparams_of(num_runs), states, 1, 1, 1)
    states, history, _ = next(segments)
    assert states.epoch.sharding.mesh.size == min(8, num_runs * parts)
    params = sweep.gather((states.params, states.model_state, states.opt_state), num_runs)
    return params, history


@pytest.mark.parametrize(
    "config, num_runs, parts",
    [
        (CONFIG, 1, 4),
        pytest.param(CONFIG, 3, 2, marks=pytest.mark.slow),
        pytest.param(DENSE, 1, 8, marks=pytest.mark.slow),
    ],
)
def test_a_split_batch_gives_the_states_of_the_whole_one(monkeypatch, config, num_runs, parts):
    """Batch statistics, dropout, augmentation, the omitted class and the validation included."""
    whole, split = (train(monkeypatch, config, num_runs, number) for number in (1, parts))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), split[0], whole[0])
    for name in ("train", "validation"):
        np.testing.assert_allclose(split[1][name].loss_sum, whole[1][name].loss_sum, rtol=1e-4)
        np.testing.assert_array_equal(split[1][name].support, whole[1][name].support)


def test_only_spare_devices_split_a_batch():
    """Of conftest's eight; a part is of equal size, and a fully connected network has all cores as it is."""
    parts = {num_runs: sweep.batch_parts(CONFIG, hparams_of(num_runs)) for num_runs in (1, 2, 3, 4, 5, 100)}
    assert parts == {1: 8, 2: 4, 3: 2, 4: 2, 5: 1, 100: 1}
    assert sweep.batch_parts(dataclasses.replace(CONFIG, batch_size=6), hparams_of(1)) == 6
    assert sweep.batch_parts(dataclasses.replace(CONFIG, batch_size=7), hparams_of(2)) == 1
    assert sweep.batch_parts(DENSE, hparams_of(1)) == 1


def test_examples_that_depend_on_each_other_are_not_split(monkeypatch):
    assert sweep.batch_parts(dataclasses.replace(CONFIG, mixup=1.0), hparams_of(1)) == 1
    assert sweep.batch_parts(dataclasses.replace(CONFIG, loss_fn=losses.LOSSES["dist"]), hparams_of(1)) == 1
    ablated = hparams_of(1).replace(teacher_ablation=np.zeros(1, np.int32))
    assert sweep.batch_parts(CONFIG, ablated) == 1
    monkeypatch.setattr(sweep.jax, "process_count", lambda: 2)
    assert sweep.batch_parts(CONFIG, hparams_of(1)) == 1


def test_one_run_on_eight_accelerators_has_all_eight(monkeypatch):
    monkeypatch.setattr(sweep.jax, "default_backend", lambda: "gpu")
    assert sweep.batch_parts(DENSE, hparams_of(1)) == 8
    mesh = sweep.runs_mesh(1, 8)
    assert mesh.shape == {"runs": 1, "batch": 8}


def test_parts_are_rows_in_the_order_of_devices():
    """[0..7] in four parts; their sum; joined again."""
    mesh = sweep.runs_mesh(1, 4)

    def function(x):
        part = split_batch.local_part(x)
        return part, split_batch.sum_over_parts(part), split_batch.join_parts(part)

    specs = PartitionSpec("batch"), PartitionSpec(), PartitionSpec()
    x = jnp.arange(8.0)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=PartitionSpec(), out_specs=specs, check_vma=False)
    parts, total, joined = jax.jit(mapped)(x)
    np.testing.assert_array_equal(parts, x)
    np.testing.assert_array_equal(total, [12, 16])
    np.testing.assert_array_equal(joined, x)
    assert all(np.array_equal(whole, x) for whole in function(x))  # no axis: the batch is whole
