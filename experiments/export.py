"""Write a trained network as a file for use elsewhere: export RUN --format=stablehlo --out=student.stablehlo

RUN is a run folder of train_teacher or distill. stablehlo: a program that jax.export reads without this code,
on CPUs, NVIDIA GPUs and TPUs: any number of uint8 images in, probabilities out; normalisation and bias
correction are in it. safetensors: the weights, in torchvision's key names and layouts for ResNet, ShuffleNet
and VGG in the ImageNet form, else in this code's; the classifier's bias holds the correction. A json file
beside it says what the network is, which images it takes and what its classes are called.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli import flags as shared
from experiments.cli import network_flags
from experiments.cli.main import run
from kd_jax.errors import InputError

FLAGS = flags.FLAGS
EXAMPLE = 'export runs/quickstart --setting="T=20 omit=3" --format=stablehlo --out=student.stablehlo'
FORMATS = ("stablehlo", "safetensors")
for name in (*network_flags.NAMES, "out"):
    flags.declare_key_flag(name)  # of the shared flags these mean something here
shared.find("out").help = "File to write, which is not there yet."
shared.group(
    "Where it goes, and how the work is done",
    flags.DEFINE_enum("format", "stablehlo", FORMATS, "Kind of file."),
)


def main(argv: Sequence[str]) -> None:
    """Errors: InputError for what cannot be read, and where --out exists; then nothing is written."""
    if len(argv) != 2:
        expected = "export RUN, one run folder of train_teacher or distill"
        raise InputError("no run to export", expected, " ".join(argv[1:]) or "nothing")
    out = shared.require_folder("out", "student.stablehlo")
    from experiments.settings import networks
    from experiments.studies import export

    choice = shared.read(networks.Choice, ensemble=False)
    export.run(Path(os.path.expanduser(argv[1])), choice, FLAGS.format, out)


if __name__ == "__main__":
    run(main, EXAMPLE)
