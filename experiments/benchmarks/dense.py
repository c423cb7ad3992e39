"""Speed of dense networks against PyTorch, and of ways of mapping their runs.

Images are random, of MNIST's size: nothing depends on what they show.
"""

import dataclasses
import importlib.util
import itertools
import platform
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import rivals
from experiments.cli import machine
from kd_jax import losses, models
from kd_jax.train import Config, augment, loop, noise, optim, sweep, variables_of
from kd_jax.types import HParams, Table

TEACHER = "mlp-1200-1200"
BATCH_SIZE, NUM_TRAIN, NUM_CLASSES = 128, 54_000, 10
MNIST = (28, 28, 1)
# Updates of a timed pass, so that one of 64 runs takes seconds. A full epoch has 422; the epoch's own costs,
# as its shuffling, fall on fewer updates here, against us.
UPDATES = {"mlp-30-30": 422, "mlp-300-300": 211, "mlp-800-800": 106, "teacher": 53}


def random_table(num: int, image_shape: tuple[int, int, int] = MNIST) -> Table:
    """Images u8[N,h,w,c], labels i32[N] and logits f32[1,N,10] of one teacher at random."""
    random = np.random.RandomState(0)
    images = random.randint(256, size=(num, *image_shape), dtype=np.uint8)
    labels = random.randint(NUM_CLASSES, size=num).astype(np.int32)
    logits = 3 * random.standard_normal((1, num, NUM_CLASSES)).astype(np.float32)
    return Table(jnp.asarray(images), jnp.asarray(labels), (jnp.asarray(logits),))


def make_config(
    workload: str, num_updates: int, precision: str = "float32", image_shape: tuple[int, int, int] = MNIST
) -> Config:
    """The teacher (dropout 0.2 and 0.5, random shifts, max-norm 3) or a student distilled at T = 20."""
    teacher = workload == "teacher"
    return Config(
        model=models.build(
            TEACHER if teacher else workload,
            NUM_CLASSES,
            input_dropout=0.2 if teacher else 0.0,
            dropout=0.5 if teacher else 0.0,
            precision=precision,
        ),
        image_shape=image_shape,
        num_classes=NUM_CLASSES,
        loss_fn=losses.LOSSES["labels" if teacher else "soft"],
        optimizer=optim.OPTIMIZERS["adam"],
        schedule=optim.SCHEDULES["cosine"](1000 * num_updates),
        batch_size=BATCH_SIZE,
        num_updates=num_updates,
        max_norm=3.0 if teacher else None,
        augment=augment.RandomTranslate(2) if teacher else None,
    )


def make_hparams(num_runs: int) -> HParams:
    """Two settings, with every class and without class 3, by as many seeds; one run: the first of them."""
    settings = [sweep.make_hparams(NUM_CLASSES, omitted, 1e-3, 0.0, 20.0, 1.0) for omitted in ((), (3,))]
    return sweep.stack_runs(settings[: min(2, num_runs)], range(max(1, num_runs // 2)))


def train_epochs(
    config: Config,
    num_runs: int,
    vmap_size: int | None,
    hparams: HParams | None = None,
    table: Table | None = None,
) -> Iterator:
    """Trains for ever, one epoch of `config` a step; the first is the compilation.

    hparams, table: by default those of `make_hparams` and `random_table`.
    """
    hparams = make_hparams(num_runs) if hparams is None else hparams
    states = sweep.init_states(config, sweep.run_keys(range(num_runs), 1, base=0))
    table = random_table(NUM_TRAIN, config.image_shape) if table is None else table
    yield from loop.run_segments(config, table, None, hparams, states, 2**30, 1, vmap_size)


def seconds(step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def flops_per_example(widths: Sequence[int]) -> int:
    """Of the matrix products of a training step: forward, gradients of weights and of inputs, two a product.
    The first layer's inputs need no gradient. All else (optimiser, dropout, loss) is not counted."""
    sizes = (784, *widths, NUM_CLASSES)
    products = [a * b for a, b in itertools.pairwise(sizes)]
    return 2 * (3 * sum(products) - products[0])


def matrix_peak(precision: str = "float32", size: int = 2048) -> float:
    """FLOP/s of a matrix product: the best of five by JAX, and on a CPU by PyTorch if it is there."""
    if jax.default_backend() != "cpu":
        size *= 4
    multiply = jax.jit(jnp.matmul)
    a = jnp.ones((size, size), models.PRECISIONS[precision])
    multiply(a, a).block_until_ready()
    best = 2 * size**3 / min(seconds(lambda: multiply(a, a).block_until_ready()) for _ in range(5))
    if has_torch() and jax.default_backend() == "cpu" and precision == "float32":
        best = max(best, rivals.matrix_peak(machine.num_cores()))
    return best


def device() -> str:
    """Kind and number of devices; of a CPU its model, for its cores are the devices."""
    if jax.default_backend() != "cpu":
        return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    info = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return f"{machine.num_cores()} cores of {match.group(1) if match else platform.processor() or 'a CPU'}"


def instruction_set() -> str:
    """The widest that this machine's CPU offers: cpu_avx512, cpu_avx2, or cpu_ and the architecture."""
    info = Path("/proc/cpuinfo")
    offered = info.read_text().split() if info.exists() else []
    known = {"avx512f": "avx512", "avx2": "avx2"}
    return f"cpu_{next((known[flag] for flag in known if flag in offered), platform.machine())}"


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def median_and_range(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the turns."""
    return {"median": float(np.median(values)), "low": float(min(values)), "high": float(max(values))}


def times(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """How many times another rate ours is, turn by turn."""
    return median_and_range([a / b for a, b in zip(ours, others, strict=True)])


def rates(flops: int, ours: Sequence[float], peaks: Sequence[float]) -> dict:
    """What a row says of the turns' examples/s, of `flops` each, and matrix peaks."""
    flop_rates = [rate * flops for rate in ours]
    return {
        "flops_per_example": flops,
        "examples_per_second": median_and_range(ours),
        "flops_per_second": median_and_range(flop_rates),
        "matrix_peak": median_and_range(peaks),
        "share_of_peak": times(flop_rates, peaks),
    }


def widths_of(workload: str) -> tuple[int, ...]:
    return tuple(int(word) for word in (TEACHER if workload == "teacher" else workload).split("-")[1:])


def measure_speed(workload: str, num_runs: int, precision: str, repeats: int) -> dict:
    """One row of the table."""
    updates, widths = UPDATES[workload], widths_of(workload)
    config = make_config(workload, updates, precision)
    vmap_size = sweep.default_vmap_size(jax.default_backend(), config.model)
    ours = train_epochs(config, num_runs, vmap_size)
    first = seconds(lambda: next(ours))
    best, loader, how = None, None, None
    if has_torch() and jax.default_backend() == "cpu":
        model = TEACHER if workload == "teacher" else workload
        work = rivals.Work(model, random_table(NUM_TRAIN), BATCH_SIZE, updates, workload == "teacher")
        candidates = rivals.loops(work, num_runs, machine.num_cores())
        trial = min(updates, 50)
        for run in candidates.values():
            run(5)  # the first compiles
        how = max(candidates, key=lambda name: candidates[name](trial))
        best, loader = candidates[how], rivals.loader_loop(work, machine.num_cores())
    turns: dict[str, list[float]] = {"ours": [], "peak": [], "best": [], "loader": []}
    for _ in range(repeats):
        turns["peak"].append(matrix_peak(precision))
        turns["ours"].append(num_runs * updates * BATCH_SIZE / seconds(lambda: next(ours)))
        if best is not None and loader is not None:
            turns["best"].append(best(min(updates, 200)))
            turns["loader"].append(loader(min(updates, 40)))
    flops = flops_per_example(widths)
    row = {
        "workload": workload,
        "runs": num_runs,
        "precision": precision,
        "vmap_size": vmap_size,
        "updates": updates,
        "first_pass_seconds": first,
    } | rates(flops, turns["ours"], turns["peak"])
    if best is not None:
        row["best_loop"] = {"how": how, "examples_per_second": median_and_range(turns["best"])}
        row["loader_loop"] = {"examples_per_second": median_and_range(turns["loader"])}
        for name in ("best", "loader"):
            row[f"times_{name}_loop"] = times(turns["ours"], turns[name])
    return row


def measure_noise(num_runs: int, repeats: int) -> dict:
    """Students of subliminal learning (mlp-256-256, 3 auxiliary outputs, batches of 1,024): examples/s on
    noise drawn at every step, and of PyTorch with all models in one bmm, or ten at a time."""
    updates, spec = 6, "mlp-256-256"
    model = models.build(spec, NUM_CLASSES + 3, initial="fan_in", normalize=((0.5,), (0.5,)))
    config = dataclasses.replace(
        make_config(spec, updates),
        model=model,
        batch_size=rivals.NOISE_BATCH,
        noise=noise.uniform,
        has_labels=False,
        teacher_models=(model,),
        schedule=optim.SCHEDULES["constant"](0),
    )
    states = sweep.init_states(config, sweep.run_keys(range(num_runs), 1, base=0))
    teachers = sweep.gather(variables_of(states), num_runs)
    one = sweep.make_hparams(NUM_CLASSES, (), 3e-4, 0.0, 1.0, 1.0)
    hparams = sweep.stack_runs([one], range(num_runs), num_runs).replace(
        logit_mask=np.tile(np.arange(NUM_CLASSES + 3) >= NUM_CLASSES, (num_runs, 1))
    )
    table = random_table(NUM_TRAIN).replace(teacher_logits=None, teacher_variables=(teachers,))
    vmap_size = sweep.default_vmap_size(jax.default_backend(), config.model)
    ours = loop.run_segments(config, table, None, hparams, states, 2**30, 1, vmap_size)
    next(ours)
    turns: dict[str, list[float]] = {"ours": []}
    loops = {}
    if has_torch() and jax.default_backend() == "cpu":
        loops = {
            f"{number} in one bmm": rivals.noise_loop(spec, NUM_CLASSES, number, machine.num_cores())
            for number in sorted({num_runs, min(num_runs, 10)})
        }
        for timed in loops.values():
            timed(1)
    for _ in range(repeats):
        rate = num_runs * updates * rivals.NOISE_BATCH / seconds(lambda: next(ours))
        turns["ours"].append(rate)
        for name, timed in loops.items():
            turns.setdefault(name, []).append(timed(2))
    rivals_ = {
        name: {
            "examples_per_second": median_and_range(turns[name]),
            "times": times(turns["ours"], turns[name]),
        }
        for name in loops
    }
    return {
        "runs": num_runs,
        "model": spec,
        "examples_per_second": median_and_range(turns["ours"]),
        "rivals": rivals_,
    }


def measure_vmap_sizes(repeats: int) -> list[dict]:
    """Examples/s of 16 students (64 on an accelerator) in each way of mapping them."""
    num_runs = 16 if jax.default_backend() == "cpu" else 64
    rows = []
    for workload in ("mlp-30-30", "mlp-300-300", "mlp-800-800"):
        updates = UPDATES[workload] // 2
        vmap_sizes = (1, 2, 4, None)
        ways = {
            vmap_size: train_epochs(make_config(workload, updates), num_runs, vmap_size)
            for vmap_size in vmap_sizes
        }
        for way in ways.values():
            next(way)
        rates: dict[int | None, list[float]] = {vmap_size: [] for vmap_size in vmap_sizes}
        for _ in range(repeats):
            for vmap_size, way in ways.items():
                rates[vmap_size].append(num_runs * updates * BATCH_SIZE / seconds(lambda way=way: next(way)))
        rows += [
            {
                "workload": workload,
                "runs": num_runs,
                "vmap_size": "all" if vmap_size is None else vmap_size,
                "examples_per_second": median_and_range(rates[vmap_size]),
            }
            for vmap_size in vmap_sizes
        ]
    return rows
