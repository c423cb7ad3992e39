"""The cost of methods: what is measured of ours and of torchdistill's loops, and the page's table of it."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.benchmarks import (
    dense,
    methods,
    parts,
    pictures,
    torch_networks,
    torchdistill_loops,
    torchdistill_pairs,
)
from experiments.gallery import performance
from experiments.studies import distill
from kd_jax import losses, models
from kd_jax.train import init_state, train_epoch

OPTIONS = parts.Options(workloads=(), runs=(), repeats=2, precision="float32")
needs_torchdistill = pytest.mark.skipif(
    not torchdistill_pairs.is_installed(), reason="torchdistill is not installed"
)


def test_methods_are_those_of_the_library():
    assert {*methods.METHODS} <= {*losses.LOSSES, *losses.FEATURE_LOSSES}
    assert {*torchdistill_pairs.METHODS} == {*methods.METHODS} - {"dkd"}


@pytest.fixture
def small(monkeypatch):
    """Three methods of a small network, short passes, and rivals of known rates."""
    rates = {"soft": {"queried": 50.0, "cached": 100.0}, "crd": {"queried": 25.0}, "dkd": {}}

    def make_rivals(method, training, table):
        return {name: lambda updates, rate=rate: rate for name, rate in rates[method].items()}

    monkeypatch.setattr(methods, "METHODS", ("soft", "dkd", "crd"))
    monkeypatch.setattr(methods, "STUDENT", "mlp-3")
    monkeypatch.setattr(methods, "TEACHER", "mlp-4")
    monkeypatch.setattr(methods, "NUM_RUNS", (2,))
    monkeypatch.setattr(methods, "NUM_EXAMPLES", 32)
    monkeypatch.setattr(methods, "NUM_NEGATIVES", 5)
    monkeypatch.setattr(methods, "make_rivals", make_rivals)
    monkeypatch.setattr(dense, "BATCH_SIZE", 8)


def content(rows):
    versions = {"jax": "1", "torchdistill": "2"}
    return {"device": "a device", "platform": "cpu", "versions": versions, "repeats": 2, "methods": rows}


def test_methods_are_measured_printed_and_put_into_the_page(small, capsys):
    with jax.numpy_dtype_promotion("standard"):  # optax's cosine promotes
        rows = parts.MEASURE["methods"](OPTIONS)
    named = {(row["method"], row["runs"]): row for row in rows}
    assert list(named) == [("soft", 2), ("dkd", 2), ("crd", 2)]
    for (name, runs), row in named.items():
        assert row["examples_per_second"]["low"] > 0
        assert row["cost"]["median"] == 1 if name == "soft" else row["cost"]["low"] > 0
        assert row["layers"] == (["hidden_0"] if name == "crd" else []) and row["cached"]
        assert row["updates"] == methods.num_updates(runs, "cpu")
        for rival in row["rivals"].values():
            expected = row["examples_per_second"]["median"] / rival["examples_per_second"]["median"]
            assert rival["times"]["median"] == pytest.approx(expected)
    crd = named["crd", 2]["rivals"]
    assert {*crd} == {"queried"} and crd["queried"]["cost"]["median"] == 2.0
    printed = capsys.readouterr().out
    assert printed.count("examples/s") == len(rows) and printed.count("x torchdistill, cached") == 1
    head, _, *lines = performance.methods([content(rows)]).splitlines()[2:]
    assert head.count("torchdistill") == 3 and {line.count("|") for line in lines} == {head.count("|")}
    for row, line in zip(rows, lines, strict=True):
        rate = f"{row['examples_per_second']['median']:,.0f}"
        assert line.startswith(f"| `{row['method']}` | {row['runs']} | cached | {rate} | ")
        assert line.count("2.00 (2.00 to 2.00)") == (row["method"] == "crd")
        assert line.endswith(" |  |") == (row["method"] != "soft")
    alone = [row | {"rivals": {}} for row in rows]
    assert performance.methods([content(alone)]).count("torchdistill") == 1  # its version


def test_layers_are_cached_where_distill_caches_them(small, monkeypatch):
    """`hidden_0` of the teacher has 4 numbers, so 16 bytes of each of CIFAR's images."""
    monkeypatch.setattr(methods, "CACHED_BYTES", 16 * methods.CIFAR_EXAMPLES)
    teacher, table = methods.make_teacher(), dense.random_table(methods.NUM_EXAMPLES, pictures.CIFAR)
    given = "crd", 1, "float32", teacher, table
    cached = methods.make_training(*given)
    assert cached.cached and not cached.config.teacher_models and cached.table.teacher_variables is None
    assert [leaf.shape for leaf in cached.table.teacher_features] == [(1, 32, 4)]
    assert cached.table.class_sizes.sum() == 32 and cached.table.teacher_logits is table.teacher_logits
    monkeypatch.setattr(methods, "CACHED_BYTES", 16 * methods.CIFAR_EXAMPLES - 1)
    queried = methods.make_training(*given)
    assert not queried.cached and queried.config.teacher_models == teacher.models
    assert queried.table.teacher_features is None and queried.table.teacher_logits is None
    assert methods.CIFAR_EXAMPLES == 50_000 and distill.CACHED_BYTES == 2**31


def test_each_method_has_a_training_of_the_networks_that_are_measured():
    """An epoch of one run is traced, not compiled: no layer, connector or row of the table is missing. Of
    CIFAR-10, all maps of the teacher take 5.7 GB, more than is cached."""
    teacher, table = methods.make_teacher(), dense.random_table(256, pictures.CIFAR)
    queried = set()
    for method in methods.METHODS:
        given = methods.make_training(method, 2, "float32", teacher, table)
        first = jax.tree.map(lambda leaf: leaf[0], methods.make_hparams(method, 1))
        state = jax.eval_shape(lambda key, config=given.config: init_state(config, key), jax.random.key(0))
        with jax.numpy_dtype_promotion("standard"):
            after, counts = jax.eval_shape(partial(train_epoch, given.config), given.table, first, state)
        assert jax.tree.structure(after) == jax.tree.structure(state) and counts.loss_sum.shape == ()
        queried |= set() if given.cached else {method}
    assert queried == {"at", "vid", "review"}


def test_without_torchdistill_or_its_method_there_is_no_rival(monkeypatch):
    table = dense.random_table(8, pictures.CIFAR)
    training = methods.make_training("dkd", 1, "float32", methods.make_teacher(), table)
    assert methods.make_rivals("dkd", training, table) == {}
    monkeypatch.setattr(torchdistill_pairs, "is_installed", lambda: False)
    assert methods.make_rivals("soft", training, table) == {}


def work_of(method: str) -> torchdistill_pairs.Work:
    """With the layers that our method reads."""
    teacher, table = methods.make_teacher(), dense.random_table(8, pictures.CIFAR)
    match = methods.make_training(method, 1, "float32", teacher, table).config.feature_match
    layers = (match.student_layers, match.teacher_layers) if match else ((), ())
    return torchdistill_pairs.Work("resnet-8", "resnet-20", table, *layers, 4, 2, 4.0, 0.9, 1.0, 5)


@needs_torchdistill
@pytest.mark.parametrize("spec", ["resnet-8", "resnet-20"])
def test_the_layers_are_ours(spec):
    """Shapes of the modules' outputs, with the channels last."""
    import torch

    shapes = models.layer_shapes(models.build(spec, 10), pictures.CIFAR)
    found, network = {}, torch_networks.build(spec)
    for name, layer in zip(shapes, torchdistill_pairs.layers_of(spec, [*shapes]), strict=True):
        network.get_submodule(layer.path).register_forward_hook(
            lambda _, given, out, name=name: found.update({name: tuple(out.shape)})
        )
        side, width = (1, shapes[name][-1]) if len(shapes[name]) == 2 else shapes[name][2:]
        assert (layer.side, layer.width) == (side, width)
    network(torch.zeros(1, *pictures.CIFAR))
    ours = {name: (shape[0], *np.roll(shape[1:], 1)) for name, shape in shapes.items()}
    assert found == ours


@needs_torchdistill
@pytest.mark.parametrize("method", torchdistill_pairs.METHODS)
def test_a_loop_of_torchdistill_trains_every_parameter_that_the_method_has(method):
    """The loss is finite, and each parameter has a gradient, those of the method's own modules too."""
    import torch

    work = work_of(method)
    step, parameters = torchdistill_loops.step_of(method, work, cached=False)
    value = step(torch.arange(4))
    value.backward()
    assert value.ndim == 0 and torch.isfinite(value)
    assert all(p.grad is not None and torch.all(torch.isfinite(p.grad)) for p in parameters)
    plain = sum(p.numel() for p in torch_networks.build(work.student).parameters())
    has_own = method in losses.FEATURE_LOSSES and losses.FEATURE_LOSSES[method].connector is not None
    assert (sum(p.numel() for p in parameters) > plain) == has_own
    assert torchdistill_loops.loop(method, work, 1)(1) > 0


@needs_torchdistill
@pytest.mark.parametrize("method", ["soft", "dist"])
def test_with_cached_logits_the_loss_is_of_these_and_no_teacher_is_asked(method, monkeypatch):
    import torch

    work, asked = work_of(method), []
    build = torch_networks.build

    def watched(spec):
        network = build(spec)
        if spec == work.teacher:
            network.register_forward_hook(lambda *_: asked.append(spec))
        return network

    monkeypatch.setattr(torch_networks, "build", watched)
    step, _ = torchdistill_loops.step_of(method, work, cached=True)
    first = step(torch.arange(4)).item()
    changed = work._replace(table=work.table.replace(teacher_logits=(-work.table.teacher_logits[0],)))
    torch.manual_seed(0)
    one, _ = torchdistill_loops.step_of(method, work, cached=True)
    torch.manual_seed(0)
    other, _ = torchdistill_loops.step_of(method, changed, cached=True)
    assert np.isfinite(first) and one(torch.arange(4)).item() != other(torch.arange(4)).item()
    assert asked == []
    torchdistill_loops.step_of(method, work, cached=False)[0](torch.arange(4))
    assert asked == [work.teacher]
