"""Subliminal learning: students learn from a teacher on noise alone, from its initial weights or others."""

from collections.abc import Sequence

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import refuse_arguments, run

FLAGS = flags.FLAGS
EXAMPLE = (
    "subliminal --dataset=digits --model=mlp-64-64 --seeds=20 --epochs=100 --batch_size=256 "
    "--out=runs/subliminal_digits"
)
for _name in (
    "dataset", "data_dir", "model", "precision", "seeds", "epochs", "batch_size", "optimizer", "schedule",
    "out", "checkpoint_every", "vmap_size", "tensorboard",
):  # fmt: skip
    flags.declare_key_flag(_name)  # of those that all training shares
shared.group(
    "Data",
    flags.DEFINE_string(
        "transfers",
        "uniform_noise",
        f"Images to teach on, comma list: {', '.join(shared.NOISES)}, own, or a dataset's name.",
    ),
    flags.DEFINE_bool(
        "repeat_noise", False, "Draw the same noise in every epoch, as a stored set of it would be."
    ),
    flags.DEFINE_string("classes", None, "How many classes, the first ones, there are, comma list (all)."),
)
shared.group(
    "Model",
    flags.DEFINE_string("auxiliary", "3", "Outputs beside those of the classes, comma list."),
)
shared.group(
    "Omitted classes",
    flags.DEFINE_string("omit", "none", "Class sets to omit from the images of --transfers=own, comma list."),
)
shared.group(
    "Distillation",
    flags.DEFINE_string(
        "losses", "soft", "soft (KL at T) or logits (half their squared distance), comma list."
    ),
    flags.DEFINE_string("temperatures", "1", "Temperatures T > 0, comma list."),
    flags.DEFINE_string(
        "logit_mask", "auxiliary,all", "What the loss sees, comma list of auxiliary, classes, all."
    ),
    flags.DEFINE_string(
        "share",
        "all,none",
        "Which initial weights are the teacher's: comma list of all, none, or, joined by +, "
        f"{', '.join(shared.SUBLIMINAL_PARTS)}.",
    ),
    flags.DEFINE_string(
        "perturb", "0", "Deviation of what is added to a student's initial weights, in theirs, comma list."
    ),
)
shared.group(
    "Training",
    flags.DEFINE_float("learning_rate", 3e-4, "Peak learning rate, of teachers and students."),
)

PUBLISHED = {"seeds": 100, "model": "mlp-256-256", "epochs": 5, "batch_size": 1024, "schedule": "constant"}
PUBLISHED |= {"dataset": "mnist", "validation_fraction": 0.0}
"""Defaults of this entry point's own: Cloud et al. 2025, section 6.2 and its code."""


def main(argv: Sequence[str]) -> None:
    refuse_arguments(argv)
    options = shared.run_config("runs/subliminal", "mlp-256-256")
    from experiments.settings.subliminal import Lists
    from experiments.studies import subliminal

    lists = shared.read(Lists, omit=shared.given("omit"))
    subliminal.run(options, lists, FLAGS.learning_rate, FLAGS.repeat_noise, shared.values())


if __name__ == "__main__":
    for flag, default in PUBLISHED.items():
        FLAGS.set_default(flag, default)
    run(main, EXAMPLE)
