"""The benchmark of pictures: its arithmetic, its rivals, what it measures, and the README's blocks of it."""

import contextlib
import importlib.util

import jax
import numpy as np
import pytest

from experiments.benchmarks import dense, parts, pictures, torch_networks
from experiments.gallery import pages, performance
from kd_jax import models
from kd_jax.models import conv, cost
from kd_jax.train import sweep

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
SMALL = pictures.Layer(6, 4, 4)


def test_flops_of_a_training_step_of_the_compression_student():
    """Pixels x window x channels: 1024 x 9 x (3 x 32 + 32 x 32), 256 x 9 x (32 x 64 + 64 x 64), then
    64 x 64 x 64 and 64 x 10; two operations each; forward, by weights, by inputs."""
    products = 1024 * 9 * (3 * 32 + 32 * 32) + 256 * 9 * (32 * 64 + 64 * 64) + 64**3 + 640
    assert pictures.flops_per_example(models.build(pictures.MODELS[0], 10)) == 3 * 2 * products


def test_flops_of_a_layer():
    assert pictures.Layer(6, 4, 5).flops == 3 * 2 * 36 * 9 * 4 * 5
    assert pictures.Layer(7, 4, 5, stride=2).flops == 3 * 2 * 16 * 9 * 4 * 5
    assert pictures.Layer(6, 4, 4, groups=4).flops == 3 * 2 * 36 * 9 * 4
    assert pictures.Layer(6, 4, 5, size=1).flops == 3 * 2 * 36 * 4 * 5


@needs_torch
@pytest.mark.parametrize("spec", [*pictures.MODELS, "cnn-4-8x8-d8-d6-bn", "resnet-8"])
def test_the_rival_is_the_same_network(spec):
    """As many parameters, and so many channels and pixels everywhere; convolutions see channels last."""
    import torch

    ours = jax.eval_shape(
        lambda key: models.init_variables(models.build(spec, 10), key, pictures.CIFAR), jax.random.key(0)
    )
    network = torch_networks.build(spec)
    assert sum(leaf.numel() for leaf in network.parameters()) == cost.num_parameters(ours)
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _, given, out: seen.append(
                    (given[0].is_contiguous(memory_format=torch.channels_last), out)
                )
            )
    assert network(torch.zeros(2, 32, 32, 3)).shape == (2, 10)
    assert all(last for last, _ in seen)
    pairs = zip(seen, convolutions(network), strict=True)
    products = sum(out[0].numel() * m.weight[0].numel() for (_, out), m in pairs)
    dense = sum(m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Linear))
    assert 6 * (products + dense) == pictures.flops_per_example(models.build(spec, 10))


def convolutions(network):
    """In the order of execution, which here is that of the definition."""
    import torch

    return [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]


@pytest.mark.slow
@needs_torch
def test_rivals_in_processes_of_their_own():
    with pictures.several_processes(pictures.MODELS[0], 2) as together:
        assert together(1) > 0
        assert together(1) > 0


@pytest.fixture
def small(monkeypatch):
    """Small data, short passes, and rivals and a peak of known rates."""

    @contextlib.contextmanager
    def candidates(model):
        yield {"eager": lambda updates: 100.0, "processes": lambda updates: 50.0}

    monkeypatch.setattr(pictures, "candidates", candidates)
    monkeypatch.setattr(pictures, "MODELS", ("cnn-4-bn",))
    monkeypatch.setattr(pictures, "LAYERS", (SMALL, pictures.Layer(6, 4, 4, groups=4)))
    monkeypatch.setattr(pictures, "PASS_SECONDS", 0.01)
    monkeypatch.setattr(pictures, "num_updates", lambda *_: 2)
    monkeypatch.setattr(pictures, "numbers_of_runs", lambda _: (1, 2))
    monkeypatch.setattr(dense, "NUM_TRAIN", 64)
    monkeypatch.setattr(dense, "BATCH_SIZE", 8)
    monkeypatch.setattr(dense, "matrix_peak", lambda precision: 1e9)


OPTIONS = parts.Options(workloads=(), runs=(), repeats=2, precision="float32")


def content(**parts):
    return {"device": "a device", "platform": "cpu", "versions": {"jax": "1"}, "repeats": 2} | parts


def test_training_is_measured_printed_and_put_into_the_readme(small, capsys):
    with jax.numpy_dtype_promotion("standard"):  # optax's cosine promotes
        rows = parts.MEASURE["pictures"](OPTIONS)
    one, two = rows
    assert (one["runs"], two["runs"]) == (1, 2)
    assert set(one["rivals"]) == {"eager"} and set(two["rivals"]) == {"eager", "processes"}
    for row in rows:
        rate = row["examples_per_second"]["median"]
        assert row["flops_per_second"]["median"] == pytest.approx(rate * row["flops_per_example"])
        assert row["share_of_peak"]["median"] == pytest.approx(rate * row["flops_per_example"] / 1e9)
        assert row["rivals"]["eager"]["times"]["median"] == pytest.approx(rate / 100)
    assert two["rivals"]["processes"]["times"]["median"] == pytest.approx(
        2 * two["rivals"]["eager"]["times"]["median"]
    )
    printed = capsys.readouterr().out
    text = performance.pictures([content(pictures=rows)])
    for row in rows:
        rate = f"{row['examples_per_second']['median']:,.0f}"
        assert rate in printed and f"| cnn-4-bn | {row['runs']} | {rate} |" in text
    head, _, *lines = text.splitlines()[2:]
    assert "eager" in head and "process a core" in head and "compiled" not in head
    assert {line.count("|") for line in lines} == {head.count("|")}
    alone = [{**one, "rivals": {}}]
    assert "PyTorch" not in performance.pictures([content(pictures=alone)])


def test_layers_are_measured_printed_and_put_into_the_readme(small, capsys):
    rows = parts.MEASURE["convolutions"](OPTIONS)
    assert [(row["layer"], row["way"]) for row in rows] == [
        (layer.name, way) for layer in pictures.LAYERS for way in layer.ways
    ]
    assert all(row["flops_per_second"]["low"] > 0 for row in rows)
    assert capsys.readouterr().out.count("GFLOP/s") == len(rows)
    text = performance.convolutions([content(convolutions=rows)])
    for row in rows:
        (line,) = [
            line for line in text.splitlines() if line.startswith(f"| {row['layer']} | {row['way']} |")
        ]
        assert f"({row['share_of_peak']['median']:.2f})" in line


@pytest.mark.parametrize(
    "layer", [SMALL, pictures.Layer(6, 4, 5, stride=2), pictures.Layer(6, 4, 4, groups=4)]
)
def test_all_ways_and_mappings_take_the_same_steps(layer):
    results = [
        pictures.steps_of(layer, way, 3, vmap_size, "float32", 2)(2)
        for way in layer.ways
        for vmap_size in (None, 1)
    ]
    for images, kernels in results:
        assert images.shape[1:] == (2, 6, 6, 4) and np.abs(images).max() > 0
        np.testing.assert_allclose(images, results[0][0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(kernels, results[0][1], rtol=1e-6)


def test_a_slow_step_is_timed_once(monkeypatch):
    monkeypatch.setattr(dense, "matrix_peak", lambda precision: 1e9)
    monkeypatch.setattr(pictures, "PATIENCE", 0.0)
    row = pictures.measure_layer(SMALL, "canonical", 1, 1, "float32", 3, 2)
    assert row["examples_per_second"]["low"] == row["examples_per_second"]["high"]


def wrong_defaults(content) -> list[str]:
    """Layers where the way that is taken is more than a tenth slower than another, with the runs mapped as
    they are by default. Rows without a size are of ways that are gone."""
    platform = content["platform"]
    default = sweep.default_vmap_size(platform, models.build("cnn-4", 10))
    rates: dict[tuple, dict[str, float]] = {}
    asked = {}
    for row in content["convolutions"]:
        if "size" in row and (row["runs"] == 1 or row["vmap_size"] == default):
            key = row["layer"], row["runs"]
            rates.setdefault(key, {})[row["way"]] = row["flops_per_second"]["median"]
            asked[key] = conv.preferred_way(platform, row["size"], row["channels"], row["groups"])
    taken = {key: own[asked[key]] for key, own in rates.items()}
    return [layer for (layer, runs), own in rates.items() if taken[layer, runs] < 0.9 * max(own.values())]


def test_the_default_way_of_convolving_is_the_measured_best():
    """Wherever it was measured; and the check itself tells a slower way from a faster one."""
    for found in performance.read(pages.RESULTS / "benchmark"):
        if "convolutions" in found:
            assert not wrong_defaults(found)
    row = {"layer": "a", "size": 3, "channels": 4, "groups": 1, "runs": 2, "vmap_size": 1}
    both = [
        {**row, "way": "library", "flops_per_second": {"median": 2.0}},
        {**row, "way": "canonical", "flops_per_second": {"median": 1.0}},
    ]
    assert wrong_defaults(content(convolutions=both)) == ["a"]
    both[1]["flops_per_second"] = {"median": 1.9}
    assert not wrong_defaults(content(convolutions=both))


def test_blocks_are_those_of_what_is_measured(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "cpu_avx2.json").write_text('{"speed": [], "vmap_sizes": []}')
    assert set(performance.blocks_of(tmp_path)) == {"speed", "vmap_sizes", "methods_cost"}
    (tmp_path / "pictures" / "cpu_avx2.json").write_text('{"convolutions": [], "starts": []}')
    blocks = {"speed", "vmap_sizes", "convolutions", "starts", "methods_cost"}
    assert set(performance.blocks_of(tmp_path)) == blocks
    assert performance.blocks_of(tmp_path)["methods_cost"]() == "No result yet."
