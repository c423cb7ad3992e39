"""The parts of the benchmark: each is measured, printed as it comes, and returned for the file."""

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.benchmarks import dense, methods, pictures, starts, torchdistill_pairs
from experiments.cli import machine, provenance
from kd_jax.errors import InputError
from kd_jax.io import run_files


class Options(NamedTuple):
    """workloads, runs: of the part speed; repeats: turns; precision: of the matrix products."""

    workloads: Sequence[str]
    runs: Sequence[int]
    repeats: int
    precision: str


def measure_starts(options: Options) -> list[dict]:
    rows = starts.measure_starts()
    for row in rows:
        seconds = f"{row['first_seconds']:.1f} s, then {row['second_seconds']:.1f} s"
        print(f"{row['program']}: first epoch after {seconds}")
    return rows


def vmap_sizes(options: Options) -> list[dict]:
    rows = dense.measure_vmap_sizes(options.repeats)
    for row in rows:
        rate, vmap_size = row["examples_per_second"]["median"], f"{row['vmap_size']} at a time"
        print(
            f"{row['workload']:<12}{row['runs']:>3} runs, {vmap_size:<15}{rate:>12,.0f} examples/s",
            flush=True,
        )
    return rows


def _medians(row: dict) -> tuple[float, float, float]:
    """examples/s, FLOP/s and share of the matrix peak"""
    rate, flops, share = (
        row[name]["median"] for name in ("examples_per_second", "flops_per_second", "share_of_peak")
    )
    return rate, flops, share


def speed(options: Options) -> list[dict]:
    if not dense.has_torch():
        print("no PyTorch here, so no rival and a peak by JAX alone: ./launch.sh setup bench adds it")
    columns = ("workload", "runs", "examples/s", "GFLOP/s", "of peak", "x best loop", "x loader loop")
    print(("{:<12}{:>5}{:>13}{:>9}{:>9}{:>21}{:>15}").format(*columns), flush=True)
    rows = []
    for workload in options.workloads:
        for number in options.runs:
            row = dense.measure_speed(workload, number, options.precision, options.repeats)
            rate, flops, share = _medians(row)
            line = f"{workload:<12}{number:>5}{rate:>13,.0f}{flops / 1e9:>9.0f}{share:>9.2f}"
            if "times_best_loop" in row:
                best, loader = row["times_best_loop"], row["times_loader_loop"]["median"]
                line += f"{best['median']:>9.2f} ({best['low']:.2f}-{best['high']:.2f}){loader:>15.1f}"
            print(line, flush=True)
            rows.append(row)
    return rows


def noise(options: Options) -> dict:
    row = dense.measure_noise(100, options.repeats)
    rate = row["examples_per_second"]["median"]
    print(f"{row['runs']} students on noise: {rate:,.0f} examples/s", flush=True)
    for name, rival in row["rivals"].items():
        print(f"  {rival['times']['median']:.2f} x PyTorch, {name}", flush=True)
    return row


def train_pictures(options: Options) -> list[dict]:
    rows = []
    for model in pictures.MODELS:
        numbers = pictures.numbers_of_runs(jax.default_backend())
        for row in pictures.measure_pictures(model, numbers, options.precision, options.repeats):
            rate, flops, share = _medians(row)
            line = f"{model:<24}{row['runs']:>3} runs{rate:>9,.0f} examples/s{flops / 1e9:>7.0f} GFLOP/s"
            line += f"{share:>6.2f} of peak"
            for name, rival in row["rivals"].items():
                line += f", {rival['times']['median']:.2f} x {name}"
            print(line, flush=True)
            rows.append(row)
    return rows


def convolutions(options: Options) -> list[dict]:
    rows = []
    for layer in pictures.LAYERS:
        for num_runs, vmap_size in pictures.ways_of_mapping(jax.default_backend(), machine.num_cores()):
            for way in layer.ways:
                how = options.precision, options.repeats, dense.BATCH_SIZE
                row = pictures.measure_layer(layer, way, num_runs, vmap_size, *how)
                flops, share = row["flops_per_second"]["median"], row["share_of_peak"]["median"]
                mapped = f"{num_runs} runs, {vmap_size or 'all'} at a time"
                print(
                    f"{layer.name:<40}{mapped:<24}{way:<10}{flops / 1e9:>8.1f} GFLOP/s{share:>6.2f} of peak",
                    flush=True,
                )
                rows.append(row)
    return rows


def compare_methods(options: Options) -> list[dict]:
    if not torchdistill_pairs.is_installed():
        print("no torchdistill here, so no rival: pip install --no-deps torchdistill torchvision adds it")
    rows = []
    for number in methods.NUM_RUNS:
        for row in methods.measure_methods(number, options.precision, options.repeats):
            rate, cost = row["examples_per_second"]["median"], row["cost"]["median"]
            line = f"{row['method']:<8}{row['runs']:>3} runs{rate:>9,.0f} examples/s{cost:>7.2f} x plain"
            for name, rival in row["rivals"].items():
                line += f", {rival['times']['median']:.2f} x torchdistill, {name}"
            print(line, flush=True)
            rows.append(row)
    return rows


MEASURE: dict[str, Callable[[Options], list[dict] | dict]] = {
    "starts": measure_starts,
    "vmap_sizes": vmap_sizes,
    "speed": speed,
    "noise": noise,
    "pictures": train_pictures,
    "convolutions": convolutions,
    "methods": compare_methods,
}


def run(wanted: Sequence[str], options: Options, out: Path | None) -> None:
    """Measures these parts, in this order. With `out`, a file there holds all of it: gpu.json, or one named
    by the instruction set of the CPU, as cpu_avx2.json.

    Errors: InputError for a folder that holds a benchmark already or cannot be written.
    """
    kinds = dense.instruction_set(), "gpu", "tpu"  # which of them it is shows once the rivals have started
    for file in (out / f"{kind}.json" for kind in kinds) if out else ():
        if file.exists():
            raise InputError("--out is taken", "a folder without a benchmark of this device", file)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise InputError("--out cannot be written", "a folder that this user may write", out)
    packages = ["jax", "jaxlib", "numpy", *(["torch"] if dense.has_torch() else [])]
    packages += ["torchdistill"] if "methods" in wanted and torchdistill_pairs.is_installed() else []
    # Those that start processes come first, before this one takes an accelerator's memory.
    measured = {part: MEASURE[part](options) for part in wanted}
    content = {
        "format": 1,
        "command": provenance.command(),
        "device": dense.device(),
        "platform": jax.default_backend(),
        "cores": machine.num_cores(),
        "versions": {"kd_jax": provenance.own_version(provenance.ROOT), "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "repeats": options.repeats,
        "batch_size": dense.BATCH_SIZE,
    } | measured
    print(f"{content['device']}; " + ", ".join(f"{name} {version(name)}" for name in packages))
    if out:
        kind = dense.instruction_set() if content["platform"] == "cpu" else content["platform"]
        file = out / f"{kind}.json"
        run_files.write(file, run_files.to_json(content))
        print(f"Wrote {file}")
