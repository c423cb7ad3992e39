"""Classify images with a trained network: predict RUN --images=FOLDER|FILE|ARRAYS.npz --out=predictions.csv

RUN is a run folder of train_teacher or distill. Images are read as training reads them: files are decoded and
resized alike, and the network's own normalisation is used. A row of the csv file is an image: its path below
the folder, or its number in the array, and its most probable classes, with their numbers, names and
probabilities at T = 1. The bias correction that the run recorded for its omitted classes is applied.
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
EXAMPLE = 'predict runs/quickstart --setting="T=20 omit=3" --images=photos --out=predictions.csv'
for name in (*network_flags.NAMES, "image_size", "skip_unreadable", "out"):
    flags.declare_key_flag(name)  # of the shared flags these mean something here
shared.find("out").help = "File to write, which is not there yet."
shared.group(
    "Data",
    flags.DEFINE_string(
        "images", None, "A folder of images, an image file, or an .npz with an array images."
    ),
)
shared.group(
    "Model",
    flags.DEFINE_bool("ensemble", False, "The mean of the probabilities of all seeds of the setting."),
)
shared.group(
    "Where it goes, and how the work is done",
    flags.DEFINE_integer(
        "top_k", 3, "Number of classes of each image, the most probable ones.", lower_bound=1
    ),
)


def main(argv: Sequence[str]) -> None:
    """Errors: InputError for what cannot be read, and where --out exists; then nothing is written."""
    if len(argv) != 2:
        expected = "predict RUN, one run folder of train_teacher or distill"
        raise InputError("no run to predict with", expected, " ".join(argv[1:]) or "nothing")
    out, images = shared.require_folder("out", "predictions.csv"), shared.require("images", "photos")
    from experiments.settings import networks
    from experiments.studies import predict

    options = shared.read(predict.PredictConfig, images=images, out=out)
    predict.run(Path(os.path.expanduser(argv[1])), shared.read(networks.Choice), options)


if __name__ == "__main__":
    run(main, EXAMPLE)
