"""The runs axis: how settings and seeds are stacked, keyed, padded and mapped."""

import importlib
import inspect
import pkgutil
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models
from kd_jax.train import loop, sweep
from kd_jax.types import HParams, Table


def setting(rate: float, mask=(True, True)) -> HParams:
    numbers = (np.float32(x) for x in (rate, 0, 1, 0.5))
    return HParams(*numbers, np.array(mask), np.int32(99))


def test_runs_are_stacked_setting_by_setting():
    """2 settings x 3 seeds, M = 2 teachers: student seed s learns from teacher s mod 2."""
    stacked = sweep.stack_runs([setting(0.1), setting(0.2, (True, False))], [4, 5, 6], num_teachers=2)
    np.testing.assert_array_equal(stacked.learning_rate, np.float32([0.1] * 3 + [0.2] * 3))
    np.testing.assert_array_equal(stacked.class_mask, [[True, True]] * 3 + [[True, False]] * 3)
    np.testing.assert_array_equal(stacked.teacher, [0, 1, 0] * 2)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(stacked)} == {6}
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(stacked)]
    assert dtypes == [np.float32] * 3 + [bool, np.int32]
    assert stacked.weight_decay is None  # none has any
    some = sweep.stack_runs([setting(0.1), setting(0.1).replace(weight_decay=np.float32(0.5))], [4, 5])
    np.testing.assert_array_equal(some.weight_decay, np.float32([0, 0, 0.5, 0.5]))
    assert not np.any(sweep.stack_runs([setting(0.1)], [4, 5, 6]).teacher)  # one teacher: the only one


def test_fresh_runs_are_fitted_under_their_teachers(monkeypatch):
    """What `fit_runs` hands on: 2 settings x 3 seeds on logits of 2 teachers, all epochs as one segment."""
    handed = {}
    state = SimpleNamespace(params={"w": np.arange(7)}, model_state={})

    def segments(config, table, validation, hparams, states, num_epochs, length, vmap_size):
        handed.update(hparams=hparams, epochs=(num_epochs, length))
        yield state, {"train": "counts"}, num_epochs

    monkeypatch.setattr(loop, "run_segments", segments)
    monkeypatch.setattr(sweep, "init_states", lambda config, keys: handed.update(keys=keys))
    table = Table(np.zeros((5, 2, 2, 1), np.uint8), np.zeros(5, np.int32), (np.zeros((2, 5, 3), np.float32),))
    settings = [sweep.make_hparams(3, omitted=[1], alpha=0.5), sweep.make_hparams(3)]
    variables, history = loop.fit_runs(
        SimpleNamespace(model=models.build("mlp-4", 3)), table, settings, range(3), 9, base=1
    )
    assert handed["epochs"] == (9, 9) and history == {"train": "counts"}
    np.testing.assert_array_equal(handed["hparams"].teacher, [0, 1, 0] * 2)
    np.testing.assert_array_equal(handed["hparams"].class_mask[[0, 3]], [[True, False, True], [True] * 3])
    assert jnp.all(handed["keys"] == sweep.run_keys(range(3), 2, 1))
    np.testing.assert_array_equal(variables["params"]["w"], np.arange(6))  # without the padding


def test_a_runs_key_depends_on_its_seed_alone():
    """Setting-major as in stack_runs: runs s, S + s, 2 S + s have one key; seeds and bases share none."""
    data = lambda seeds, num, base=0: np.asarray(jax.random.key_data(sweep.run_keys(seeds, num, base)))  # noqa: E731
    three = data([4, 5, 6], 3).reshape(3, 3, -1)
    np.testing.assert_array_equal(three, np.broadcast_to(data([4, 5, 6], 1), three.shape))
    assert len(np.unique(data(range(20), 1), axis=0)) == 20
    np.testing.assert_array_equal(data([5], 1)[0], three[0, 1])
    np.testing.assert_array_equal(
        data([5], 1)[0], jax.random.key_data(jax.random.fold_in(jax.random.key(0), 5))
    )
    assert not np.array_equal(data([5], 1, 1), data([5], 1, 0))


def test_no_draw_of_the_library_has_a_default_key():
    """A default key or base would be the same for teachers and students: they would start alike."""
    names = [f"kd_jax.{name}" for name in ("train", "models", "evaluate", "losses")]
    modules = [
        importlib.import_module(found.name)
        for name in names
        for found in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}.")
    ]
    parameters = [
        (function, parameter)
        for module in [*modules, *map(importlib.import_module, names)]
        for function in vars(module).values()
        if inspect.isfunction(function) and function.__module__.startswith("kd_jax")
        for parameter in inspect.signature(function).parameters.values()
        if re.fullmatch("(.*_)?(key|keys|base)", parameter.name)
    ]
    with_default = {
        (function.__name__, parameter.name)
        for function, parameter in parameters
        if parameter.default is not parameter.empty
    }
    assert {loop.fit_runs, sweep.run_keys} <= {function for function, _ in parameters}
    assert with_default == {("forward", "dropout_key")}  # None there: evaluation mode, where nothing is drawn


@pytest.mark.parametrize("num, multiple, padded", [(3, 2, 4), (4, 2, 4), (1, 4, 4), (5, 1, 5)])
def test_padding_repeats_the_last_run(num, multiple, padded):
    tree = {"x": jnp.arange(num, dtype=jnp.int32), "key": sweep.run_keys(range(num), 1, 0)}
    out = sweep.pad_runs(tree, multiple)
    np.testing.assert_array_equal(out["x"], [*range(num), *[num - 1] * (padded - num)])
    expected = sweep.run_keys([*range(num), *[num - 1] * (padded - num)], 1, 0)
    np.testing.assert_array_equal(jax.random.key_data(out["key"]), jax.random.key_data(expected))


@pytest.mark.parametrize("vmap_size", [None, 1, 2, 3, 7])
def test_mapping_in_any_chunk_is_the_function_of_each_run(vmap_size):
    """Five runs: in one, five, three, two and one pieces."""
    runs = {"a": jnp.arange(5.0), "b": jnp.arange(10.0).reshape(5, 2)}
    out = jax.jit(sweep.map_runs(lambda run: {"c": run["a"] * run["b"]}, vmap_size))(runs)
    np.testing.assert_array_equal(out["c"], np.arange(5)[:, None] * np.arange(10).reshape(5, 2))


@pytest.mark.parametrize("num_runs, size", [(1, 1), (3, 3), (8, 8), (100, 8)])
def test_the_mesh_has_no_more_devices_than_there_are_runs(num_runs, size):
    """Of conftest's eight: one run alone has the threads of all cores, and none is computed twice."""
    mesh = sweep.runs_mesh(num_runs)
    assert mesh.axis_names == ("runs",) and list(mesh.devices.flat) == jax.local_devices()[:size]


def test_every_process_gives_the_mesh_as_many_devices(monkeypatch):
    """Three of process 0 and two of process 1: two of each, whichever process asks."""
    kinds = [SimpleNamespace(process_index=process, id=i) for i, process in enumerate([0, 0, 0, 1, 1])]
    monkeypatch.setattr(sweep.jax, "devices", lambda: kinds)
    monkeypatch.setattr(sweep, "Mesh", lambda devices, names, axis_types: [device.id for device in devices])
    assert sweep.runs_mesh(100) == [0, 1, 3, 4]
    assert (
        sweep.runs_mesh(3) == [0, 1, 3, 4] and sweep.runs_mesh(2) == [0, 3] and sweep.runs_mesh(1) == [0, 3]
    )


def test_the_data_are_one_copy_for_all_cores():
    """Eight devices of one CPU read the same memory; placing what is placed does nothing."""
    mesh = sweep.runs_mesh(8)
    images = np.random.RandomState(0).randint(256, size=(101, 7, 3)).astype(np.uint8)[1:]
    placed = sweep.put_on_mesh(images, mesh, sweep.REPLICATED)
    assert len({shard.data.unsafe_buffer_pointer() for shard in placed.addressable_shards}) == 1
    np.testing.assert_array_equal(placed, images)
    assert sweep.put_on_mesh(placed, mesh, sweep.REPLICATED) is placed


def test_runs_are_split_and_gathered():
    """Five runs on eight devices: one each, three of them padding, which gathering drops."""
    mesh = sweep.runs_mesh(8)
    tree = {"x": np.arange(10, dtype=np.float32).reshape(5, 2), "key": sweep.run_keys(range(5), 1, 0)}
    placed = sweep.put_on_mesh(sweep.pad_runs(tree, mesh.size), mesh, sweep.SHARDED)
    assert {shard.data.shape for shard in placed["x"].addressable_shards} == {(1, 2)}
    np.testing.assert_array_equal(sweep.gather(placed["x"], 5), tree["x"])
    assert jnp.array_equal(jax.random.key_data(placed["key"])[:5], jax.random.key_data(tree["key"]))


def test_the_default_chunk_is_of_the_device():
    dense, convolutional = models.build("mlp-4", 3), models.build("cnn-2", 3)
    assert {sweep.default_vmap_size("cpu", model) for model in (dense, convolutional)} == {1}
    for platform in ("gpu", "tpu"):
        assert sweep.default_vmap_size(platform, dense) is None
        assert sweep.default_vmap_size(platform, convolutional) == 1
