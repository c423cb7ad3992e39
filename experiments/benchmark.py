"""Measure speed: examples/s and share of the matrix peak, side by side with PyTorch.

All is measured in one run and compared within it: ours, each rival and the matrix peak take turns, and a
ratio is of one turn. With --out, a file in that folder holds all of it: gpu.json, or cpu_avx2.json by the
instruction set. What is measured, and how, is in experiments/benchmarks/. The rivals
need `./launch.sh setup bench`; those of the part `methods` also need torchdistill and torchvision, which are
installed beside PyTorch without their dependencies.
"""

import re
from collections.abc import Sequence

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import refuse_arguments, run
from kd_jax.errors import InputError, nearest_name

FLAGS = flags.FLAGS
EXAMPLE = "benchmark --parts=speed,vmap_sizes --runs=1,8 --out=runs/benchmark"
flags.declare_key_flag("out")  # of the shared flags these two mean something here
flags.declare_key_flag("precision")
WORKLOADS = ("mlp-30-30", "mlp-300-300", "mlp-800-800", "teacher")
PICTURE_MODELS = ("cnn-32x32-64x64-d64-bn", "resnet-20")
PARTS = ("starts", "vmap_sizes", "speed", "noise", "pictures", "convolutions", "methods")
shared.group(
    "What is measured",
    flags.DEFINE_string("parts", "speed", f"What to measure, comma list: {','.join(PARTS)}."),
    flags.DEFINE_string("workloads", ",".join(WORKLOADS), "Of the part speed, comma list."),
    flags.DEFINE_string("runs", "1,8,64", "Numbers of runs of the part speed, comma list."),
    flags.DEFINE_integer("repeats", 3, "Turns; the table shows their median.", lower_bound=1),
)
shared.group(
    "Of the processes that it starts",
    flags.DEFINE_enum("rival_of", None, PICTURE_MODELS, "Serve as a PyTorch process of the part pictures."),
)


def require_known(name: str, words: Sequence[str], known: Sequence[str]) -> None:
    """Refuses a word of a list flag that is not known."""
    if unknown := [word for word in words if word not in known]:
        given = ", ".join(map(repr, unknown)) + nearest_name(unknown[0], known)
        raise InputError(f"unknown --{name}", f"a list of {', '.join(known)}", given)


def require_numbers_of_runs(text: str, *words: str) -> None:
    """Refuses numbers of runs that the cores could not share evenly.  text: of --runs."""
    for word in words:
        if not (re.fullmatch("[1-9][0-9]{0,3}", word) and (word == "1" or int(word) % 2 == 0)):
            raise InputError("--runs cannot be this", "1 or even numbers below 10000, comma list", repr(text))


def main(argv: Sequence[str]) -> None:
    refuse_arguments(argv)
    parts, workloads, numbers = (str(FLAGS[name].value).split(",") for name in ("parts", "workloads", "runs"))
    require_known("parts", parts, PARTS)
    require_known("workloads", workloads, WORKLOADS)
    require_numbers_of_runs(FLAGS.runs, *numbers)
    from experiments.benchmarks import parts as benchmark
    from experiments.benchmarks import pictures

    if FLAGS.rival_of:
        pictures.serve(FLAGS.rival_of)
    else:
        out = shared.require_folder("out", "") if FLAGS.out else None
        options = benchmark.Options(workloads, list(map(int, numbers)), FLAGS.repeats, FLAGS.precision)
        benchmark.run([part for part in PARTS if part in parts], options, out)


if __name__ == "__main__":
    run(main, EXAMPLE)
