"""Measure speed: examples/s and share of the matrix peak, side by side with PyTorch, and what more runs cost.

All is measured in one run and compared within it: ours, each rival and the matrix peak take turns, and a
ratio is of one turn. With --out, a file in that folder holds all of it: gpu.json, or cpu_avx2.json by the
instruction set. What is measured, and how, is in experiments/benchmarks/dense.py and pictures.py. The rivals
need `./launch.sh setup bench`.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

import jax
from absl import flags

from experiments.benchmarks import dense, pictures
from experiments.cli import common
from kd_jax import nearest
from kd_jax.io import run_files
from kd_jax.types import InputError

FLAGS = flags.FLAGS
EXAMPLE = "benchmark --parts=speed,vmap_sizes --runs=1,8 --out=runs/benchmark"
flags.declare_key_flag("out")  # of common's flags these two mean something here
flags.declare_key_flag("precision")
PARTS = ("starts", "growth", "extras", "vmap_sizes", "speed", "noise", "pictures", "convolutions")
flags.DEFINE_string("parts", "speed", f"What to measure, comma list: {','.join(PARTS)}.")
flags.DEFINE_string("workloads", ",".join(dense.UPDATES), "Of the part speed, comma list.")
flags.DEFINE_string("runs", "1,8,64", "Numbers of runs of the part speed, comma list.")
flags.DEFINE_integer("repeats", 3, "Turns; the table shows their median.", lower_bound=1)
flags.DEFINE_integer("growth_of", 0, "One row of the part growth, in a process of its own.", lower_bound=0)
flags.DEFINE_enum("rival_of", None, pictures.MODELS, "Serve as a PyTorch process of the part pictures.")


def starts() -> list[dict]:
    rows = dense.measure_starts()
    for row in rows:
        seconds = f"{row['first_seconds']:.1f} s, then {row['second_seconds']:.1f} s"
        print(f"{row['program']}: first epoch after {seconds}")
    return rows


def growth() -> list[dict]:
    own = [sys.executable, "-P", "-m", "experiments.benchmark"]
    rows = []
    for number in (1, 8, 64, 256):
        row = json.loads(subprocess.check_output([*own, f"--growth_of={number}"]))
        peak, state = (row[f"{name}_bytes"] / 2**20 for name in ("peak_memory", "state"))
        print(
            f"{number:>4} runs: {peak:,.0f} MiB, of which weights and moments {state:,.0f}; "
            f"compiled in {row['compile_seconds']:.1f} s; {row['examples_per_second']:,.0f} examples/s",
            flush=True,
        )
        rows.append(row)
    return rows


def extras() -> dict:
    shares = dense.measure_extras(FLAGS.repeats)
    each, end = 100 * shares["evaluation_share"]["median"], 100 * shares["assessment_share"]
    print(f"evaluation {each:.1f} %, biases at the end {end:.1f} % of the training time", flush=True)
    return shares


def vmap_sizes() -> list[dict]:
    rows = dense.measure_vmap_sizes(FLAGS.repeats)
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


def speed() -> list[dict]:
    if not dense.has_torch():
        print("no PyTorch here, so no rival and a peak by JAX alone: ./launch.sh setup bench adds it")
    columns = ("workload", "runs", "examples/s", "GFLOP/s", "of peak", "x best loop", "x loader loop")
    print(("{:<12}{:>5}{:>13}{:>9}{:>9}{:>21}{:>15}").format(*columns), flush=True)
    rows = []
    for workload in FLAGS.workloads.split(","):
        for number in map(int, FLAGS.runs.split(",")):
            row = dense.measure_speed(workload, number, FLAGS.precision, FLAGS.repeats)
            rate, flops, share = _medians(row)
            line = f"{workload:<12}{number:>5}{rate:>13,.0f}{flops / 1e9:>9.0f}{share:>9.2f}"
            if "times_best_loop" in row:
                best, loader = row["times_best_loop"], row["times_loader_loop"]["median"]
                line += f"{best['median']:>9.2f} ({best['low']:.2f}-{best['high']:.2f}){loader:>15.1f}"
            print(line, flush=True)
            rows.append(row)
    return rows


def noise() -> dict:
    row = dense.measure_noise(100, FLAGS.repeats)
    rate = row["examples_per_second"]["median"]
    print(f"{row['runs']} students on noise: {rate:,.0f} examples/s", flush=True)
    for name, rival in row["rivals"].items():
        print(f"  {rival['times']['median']:.2f} x PyTorch, {name}", flush=True)
    return row


def train_pictures() -> list[dict]:
    rows = []
    for model in pictures.MODELS:
        numbers = pictures.numbers_of_runs(jax.default_backend())
        for row in pictures.measure_pictures(model, numbers, FLAGS.precision, FLAGS.repeats):
            rate, flops, share = _medians(row)
            line = f"{model:<24}{row['runs']:>3} runs{rate:>9,.0f} examples/s{flops / 1e9:>7.0f} GFLOP/s"
            line += f"{share:>6.2f} of peak"
            for name, rival in row["rivals"].items():
                line += f", {rival['times']['median']:.2f} x {name}"
            print(line, flush=True)
            rows.append(row)
    return rows


def convolutions() -> list[dict]:
    rows = []
    for layer in pictures.LAYERS:
        for num_runs, vmap_size in pictures.ways_of_mapping(jax.default_backend(), common.num_cores()):
            for way in layer.ways:
                options = FLAGS.precision, FLAGS.repeats, dense.BATCH_SIZE
                row = pictures.measure_layer(layer, way, num_runs, vmap_size, *options)
                flops, share = row["flops_per_second"]["median"], row["share_of_peak"]["median"]
                mapped = f"{num_runs} runs, {vmap_size or 'all'} at a time"
                print(
                    f"{layer.name:<40}{mapped:<24}{way:<10}{flops / 1e9:>8.1f} GFLOP/s{share:>6.2f} of peak",
                    flush=True,
                )
                rows.append(row)
    return rows


MEASURE: dict[str, Callable[[], list[dict] | dict]] = {
    "starts": starts,
    "growth": growth,
    "extras": extras,
    "vmap_sizes": vmap_sizes,
    "speed": speed,
    "noise": noise,
    "pictures": train_pictures,
    "convolutions": convolutions,
}


def check_flags() -> None:
    for name, known in (("parts", PARTS), ("workloads", tuple(dense.UPDATES))):
        if unknown := [word for word in str(FLAGS[name].value).split(",") if word not in known]:
            given = ", ".join(map(repr, unknown)) + nearest.name(unknown[0], known)
            raise InputError(f"unknown --{name}", f"a list of {', '.join(known)}", given)
    for word in f"{FLAGS.runs},{FLAGS.growth_of or 1}".split(","):
        if not (re.fullmatch("[1-9][0-9]{0,3}", word) and (word == "1" or int(word) % 2 == 0)):
            raise InputError(
                "--runs cannot be this", "1 or even numbers below 10000, comma list", repr(FLAGS.runs)
            )


def main(argv: Sequence[str]) -> None:
    common.refuse_arguments(argv)
    check_flags()
    if FLAGS.growth_of:
        print(json.dumps(dense.measure_growth(FLAGS.growth_of)))
        return
    if FLAGS.rival_of:
        pictures.serve(FLAGS.rival_of)
        return
    out = common.require_folder("out", "") if FLAGS.out else None
    kinds = dense.instruction_set(), "gpu", "tpu"  # which of them it is shows once the rivals have started
    for file in (out / f"{kind}.json" for kind in kinds) if out else ():
        if file.exists():
            raise InputError("--out is taken", "a folder without a benchmark of this device", file)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise InputError("--out cannot be written", "a folder that this user may write", out)
    packages = ["jax", "jaxlib", "numpy", *(["torch"] if dense.has_torch() else [])]
    wanted = [part for part in PARTS if part in FLAGS.parts.split(",")]
    # Those that start processes come first, before this one takes an accelerator's memory.
    measured = {part: MEASURE[part]() for part in wanted}
    content = {
        "format": 1,
        "command": common.command(),
        "device": dense.device(),
        "platform": jax.default_backend(),
        "cores": common.num_cores(),
        "versions": {"kd_jax": common.own_version(common.ROOT), "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "repeats": FLAGS.repeats,
        "batch_size": dense.BATCH_SIZE,
    } | measured
    print(f"{content['device']}; " + ", ".join(f"{name} {version(name)}" for name in packages))
    if out:
        kind = content["platform"]
        file = out / f"{dense.instruction_set() if kind == 'cpu' else kind}.json"
        run_files.write(file, run_files.to_json(content))
        print(f"Wrote {file}")


if __name__ == "__main__":
    common.run(main, EXAMPLE)
