"""Make images of classes from a teacher alone: synthesize RUN writes an .npz dataset and a contact sheet.

RUN is a run folder of train_teacher; each of its teachers makes as many images. No image of its data is read.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import run
from kd_jax.errors import InputError

FLAGS = flags.FLAGS
METHODS = ("class_impressions", "deep_inversion")  # a test holds them equal to those of settings/synthesis.py
EXAMPLE = "synthesize runs/teacher --classes=3 --num_images=500 --out=runs/threes.npz"
flags.declare_key_flag("out")
flags.declare_key_flag("batch_size")
flags.declare_key_flag("translate")
shared.find("out").help = "The .npz file to write, which is not there yet; its sheet is a .png beside it."
shared.find(
    "translate"
).help = "Largest shift of the images before each update, in pixels; where not given, by method."
shared.group(
    "Synthesis of images",
    flags.DEFINE_string("classes", None, "Classes, numbers or names joined by +, or all."),
    flags.DEFINE_integer(
        "num_images",
        500,
        "Training images of each class and teacher; the test split has a tenth as many.",
        lower_bound=1,
        upper_bound=1_000_000,
    ),
    flags.DEFINE_enum("method", "class_impressions", METHODS, "How they are made."),
    flags.DEFINE_integer(
        "updates", None, "Of each image (default: by method).", lower_bound=1, upper_bound=10_000_000
    ),
    flags.DEFINE_float("pixel_rate", None, "Learning rate of the pixels (default: by method)."),
    flags.DEFINE_float("target_temperature", None, "Of the teacher's softmax (default: by method)."),
    flags.DEFINE_string("scales", None, "Two scales of the Dirichlet concentrations (default: 1,0.1)."),
    flags.DEFINE_float("total_variation", None, "Weight of the total variation (default: by method)."),
    flags.DEFINE_float("l2", None, "Weight of the mean squared pixel (default: by method)."),
    flags.DEFINE_float(
        "statistics", None, "Weight of the batch-norm statistics (deep_inversion; default 1)."
    ),
    flags.DEFINE_float("first_layer", None, "Factor of the first batch normalisation (default 10)."),
    flags.DEFINE_integer("seed", 0, "Of all draws.", lower_bound=0, upper_bound=2**31 - 1),
    flags.DEFINE_bool("untrained", False, "A control: the teachers as they were before their training."),
)


def main(argv: Sequence[str]) -> None:
    if len(argv) != 2:
        expected = "synthesize RUN, one folder of train_teacher"
        raise InputError("no teacher to make images from", expected, argv[1:] or "nothing")
    out, classes = shared.require("out", "runs/threes.npz"), shared.require("classes", "3")
    from experiments.settings.synthesis import SynthesisConfig
    from experiments.studies import synthesize

    translate = None if shared.given("translate") is None else FLAGS.translate
    options = shared.read(
        SynthesisConfig, run=argv[1], out=Path(out).expanduser(), classes=classes, translate=translate
    )
    synthesize.run(options, shared.values())


if __name__ == "__main__":
    run(main, EXAMPLE)
