"""What the benchmark measures of pictures: the training of convolutional students against PyTorch, and single
convolutions by every way of kd_jax/models/conv.py. Images are random, of CIFAR's size.

Left out: a rival of compiled one-thread processes, and one that trains several students in one program.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks import dense, rivals
from experiments.cli import machine
from kd_jax import models
from kd_jax.models import conv, cost
from kd_jax.train import sweep

MODELS = ("cnn-32x32-64x64-d64-bn", "resnet-20")
CIFAR = (32, 32, 3)
RIVAL_UPDATES = 8  # of a timed pass, one to two seconds of two cores
Rate = Callable[[int], float]  # (updates) -> examples a second


def numbers_of_runs(platform: str) -> tuple[int, ...]:
    return (1, 2, 8) if platform == "cpu" else (1, 8, 32)


def num_updates(num_runs: int, platform: str) -> int:
    """Of a timed pass: seconds of two cores, or of an accelerator."""
    return max(4, 16 // num_runs) if platform == "cpu" else 100


def flops_per_example(model) -> int:
    """Of a training step: three times the forward pass as models/cost.py counts it (products alone; those
    of the gradients by weights and by inputs, of the first layer too, are as many each)."""
    shapes = jax.eval_shape(partial(models.init_variables, model, image_shape=CIFAR), jax.random.key(0))
    return 3 * cost.forward_flops(model, shapes, CIFAR)


def make_work(model: str) -> rivals.Work:
    return rivals.Work(
        model, dense.random_table(dense.NUM_TRAIN, CIFAR), dense.BATCH_SIZE, RIVAL_UPDATES, False
    )


def serve(model: str) -> None:
    """The one-thread PyTorch process: of each number of updates on stdin, examples/s on stdout."""
    run = rivals.loop(make_work(model), num_threads=1, compiled=False)
    for line in sys.stdin:
        print(run(int(line)), flush=True)


@contextlib.contextmanager
def several_processes(model: str, number: int) -> Iterator[Rate]:
    """The rate of that many one-thread processes together, each with a run of its own, at the same time."""
    command = [sys.executable, "-P", "-m", "experiments.benchmark", f"--rival_of={model}"]
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(number)
        ]

        def run(updates: int) -> float:
            for process in started:
                print(updates, file=process.stdin, flush=True)
            return sum(float(process.stdout.readline()) for process in started if process.stdout)

        yield run  # on leaving, each finds the end of its stdin and ends


@contextlib.contextmanager
def candidates(model: str) -> Iterator[dict[str, Rate]]:
    """The rivals by name, each past its first update, which may compile: none without PyTorch, or on an
    accelerator (the PyTorch of the extra `bench` is a CPU's)."""
    if not dense.has_torch() or jax.default_backend() != "cpu":
        yield {}
        return
    cores, work = machine.num_cores(), make_work(model)
    with several_processes(model, cores) as together:
        loops = {"eager": rivals.loop(work, cores, False), "compiled": rivals.loop(work, cores, True)}
        loops["processes"] = together
        for run in loops.values():
            run(2)
        yield loops


def measure_pictures(model: str, numbers: Sequence[int], precision: str, repeats: int) -> Iterator[dict]:
    """A row for each number of runs: `model` distilled, as measures.make_config has it."""
    with candidates(model) as others:
        for num_runs in numbers:
            # A single run cannot be split over processes.
            fair = {name: run for name, run in others.items() if num_runs > 1 or name != "processes"}
            yield _measure_row(model, num_runs, precision, repeats, fair)


def _measure_row(model: str, num_runs: int, precision: str, repeats: int, others: dict[str, Rate]) -> dict:
    platform = jax.default_backend()
    updates = num_updates(num_runs, platform)
    config = dense.make_config(model, updates, precision, CIFAR)
    vmap_size = sweep.default_vmap_size(platform, config.model)
    ours = dense.train_epochs(config, num_runs, vmap_size)
    first = dense.seconds(lambda: next(ours))
    turns: dict[str, list[float]] = {name: [] for name in ("peak", "ours", *others)}
    for _ in range(repeats):
        turns["peak"].append(dense.matrix_peak(precision))
        seconds = dense.seconds(lambda: next(ours))
        turns["ours"].append(num_runs * updates * dense.BATCH_SIZE / seconds)
        for name, run in others.items():
            turns[name].append(run(RIVAL_UPDATES))
    row = {
        "workload": model,
        "runs": num_runs,
        "precision": precision,
        "vmap_size": vmap_size,
        "updates": updates,
        "first_pass_seconds": first,
    } | dense.rates(flops_per_example(config.model), turns["ours"], turns["peak"])
    row["rivals"] = {
        name: {
            "examples_per_second": dense.median_and_range(turns[name]),
            "times": dense.times(turns["ours"], turns[name]),
        }
        for name in others
    }
    return row


class Layer(NamedTuple):
    """A convolution of `side` x `side` images, padded by k // 2. groups: 1, or channels (depthwise)."""

    side: int
    channels: int
    features: int
    size: int = 3
    stride: int = 1
    groups: int = 1

    @property
    def name(self) -> str:
        form = f"{self.size}x{self.size}" + (f" stride {self.stride}" if self.stride > 1 else "")
        form += " depthwise" if self.groups > 1 else ""
        return f"{form}, {self.channels} to {self.features} at {self.side}x{self.side}"

    @property
    def ways(self) -> tuple[str, ...]:
        """Those of conv.WAYS that can compute it."""
        has_products = self.groups > 1 or self.size == 1
        return ("library", "canonical", "products") if has_products else ("library", "canonical")

    @property
    def flops(self) -> int:
        """Of one image, forward and both gradients."""
        out = -(-self.side // self.stride)
        return 3 * 2 * out**2 * self.size**2 * self.channels // self.groups * self.features


LAYERS = (
    Layer(32, 16, 16),
    Layer(32, 32, 32),
    Layer(16, 64, 64),
    Layer(8, 128, 128),
    Layer(8, 256, 256),
    Layer(4, 512, 512),
    Layer(32, 64, 128, stride=2),
    Layer(32, 64, 16, size=1),
    Layer(32, 64, 64, groups=64),
)
PASS_SECONDS = 0.5  # of a timed pass
PATIENCE = 1.0  # a step that takes longer is timed once


def ways_of_mapping(platform: str, cores: int) -> tuple[tuple[int, int | None], ...]:
    """(runs, vmap_size): on a CPU a run a core, as several train there; else vmapped, and one by one."""
    if platform == "cpu":
        return ((cores, 1),)
    return (1, 1), (8, None), (8, 1), (32, None), (32, 1)


def steps_of(layer: Layer, way: str, num_runs: int, vmap_size: int | None, precision: str, batch_size: int):
    """(num_steps) -> (): that many steps of forward and both gradients in a compiled loop, in every run.

    A step's input is the gradient by the images of the step before, so that none can be left out or moved
    out of the loop; the number of steps is traced, so that even one is in a loop.
    """
    convolve = partial(conv.WAYS[way], stride=layer.stride, padding=layer.size // 2, groups=layer.groups)

    def one_run(number, run):
        def step(_, carry):
            out, pull = jax.vjp(convolve, *carry)
            of_images, of_kernel = pull(out)
            return of_images, carry[1] - 1e-9 * of_kernel

        return jax.lax.fori_loop(0, number, step, run)

    mesh = sweep.runs_mesh(num_runs)
    image_keys, kernel_keys = jax.random.split(jax.random.key(0), (2, num_runs))
    shape = (layer.size, layer.size, layer.channels // layer.groups, layer.features)
    scale = (layer.size**2 * layer.channels / layer.groups) ** -0.5
    dtype = models.PRECISIONS[precision]
    images = jax.vmap(
        lambda key: jax.random.normal(key, (batch_size, layer.side, layer.side, layer.channels))
    )
    kernels = jax.vmap(lambda key: scale * jax.random.normal(key, shape))
    runs = jax.tree.map(lambda leaf: leaf.astype(dtype), (images(image_keys), kernels(kernel_keys)))
    runs = sweep.put_on_mesh(sweep.pad_runs(runs, mesh.size), mesh, sweep.SHARDED)
    mapped = jax.jit(sweep.over_runs(one_run, mesh, vmap_size))
    return lambda number: jax.block_until_ready(mapped(jnp.int32(number), runs))


def measure_layer(
    layer: Layer,
    way: str,
    num_runs: int,
    vmap_size: int | None,
    precision: str,
    repeats: int,
    batch_size: int,
) -> dict:
    """A row of the part `convolutions`."""
    run = steps_of(layer, way, num_runs, vmap_size, precision, batch_size)
    run(0)  # compiles
    once = dense.seconds(lambda: run(1))
    steps = max(1, round(PASS_SECONDS / once))
    peak = partial(dense.matrix_peak, precision)
    turns = [(once, peak())]
    if once < PATIENCE:
        turns = [(dense.seconds(lambda: run(steps)) / steps, peak()) for _ in range(repeats)]
    ours, peaks = [num_runs * batch_size / seconds for seconds, _ in turns], [peak for _, peak in turns]
    return {
        "layer": layer.name,
        "size": layer.size,
        "channels": layer.channels,
        "groups": layer.groups,
        "way": way,
        "runs": num_runs,
        "vmap_size": vmap_size,
        "precision": precision,
        "steps": steps,
    } | dense.rates(layer.flops, ours, peaks)
