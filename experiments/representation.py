"""See what students' features hold of a class: representation RUN writes representation.csv and pictures.

Of each layer: a linear probe and nearest neighbours (fitted on validation images of all classes, judged on
test images), similarity to the same layer of the student's teacher (linear CKA, from equal numbers of images
of the omitted and of the seen classes; layers are counted from the last), separability. Controls: the
students' own networks before training ("random"), and whatever settings the run has: plain students, hard
labels, students that saw everything. Where students were taught on images of the class that a teacher made,
these are looked at too. The report then has a chapter on it.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import run
from kd_jax.errors import InputError

FLAGS = flags.FLAGS
EXAMPLE = "representation runs/quickstart --of=3"
flags.declare_key_flag("data_dir")  # of the shared flags this one means something here
shared.group(
    "What is measured",
    flags.DEFINE_string(
        "of", None, "Classes, numbers or names joined by + (default: those that the run leaves out)."
    ),
    flags.DEFINE_integer("examples", 3000, "Images of each split that are looked at.", lower_bound=20),
    flags.DEFINE_integer("layers", 2, "How many hidden layers, the last ones.", lower_bound=1),
)


def main(argv: Sequence[str]) -> None:
    if len(argv) != 2:
        expected = "representation RUN, one folder of students"
        raise InputError("no run to look at", expected, argv[1:] or "nothing")
    from experiments.studies import representation

    representation.run(Path(argv[1]), FLAGS.data_dir, FLAGS.of, FLAGS.examples, FLAGS.layers)


if __name__ == "__main__":
    run(main, EXAMPLE)
