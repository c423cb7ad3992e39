"""Accuracy against size and time of finished runs: compression RUN [RUN...] [--out=FOLDER]

Reads the results and the checkpoint of each run folder of train_teacher or distill, counts what its model
costs, and measures the latency of a forward pass here, as it is and as `export` writes it: the machine should
be idle. Prints the table; with --out, compression.json, .md, .png and .svg in that folder hold it.

Latency is that of the compiled forward pass, from uint8 images on the device to logits, on one device (an
operation uses all cores of a CPU): the median of repeated calls, each waited for, so dispatch is part of it.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import run
from kd_jax.errors import InputError

FLAGS = flags.FLAGS
EXAMPLE = "compression runs/quickstart_teacher runs/quickstart --out=runs/compression"
flags.declare_key_flag("out")  # of the shared flags this one means something here


def main(argv: Sequence[str]) -> None:
    """Errors: InputError for a folder that is no finished run; then nothing is measured."""
    if not argv[1:]:
        raise InputError("no run to report on", "compression RUN [RUN...]", "no folder")
    out = None if FLAGS.out is None else shared.require_folder("out", "runs/compression")
    from experiments.studies import compression

    compression.run([Path(folder) for folder in argv[1:]], out)


if __name__ == "__main__":
    run(main, EXAMPLE)
