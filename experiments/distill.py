"""Distil a teacher into students: settings x seeds; a setting may omit classes from the training data."""

from collections.abc import Sequence
from dataclasses import replace

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import refuse_arguments, run

FLAGS = flags.FLAGS
GENERATOR_OBJECTIVES = ("adversarial", "dafl")  # a test holds them equal to the library's
EXAMPLE = (
    "distill --teacher=runs/teacher --model=mlp-64-64 --temperatures=1,4,20 "
    "--omit=none,3,7+8 --seeds=5 --epochs=200 --batch_size=64 --learning_rates=2e-3 "
    "--out=runs/students"
)
flags.adopt_module_key_flags(shared)
shared.group(
    "Data",
    flags.DEFINE_string(
        "transfer",
        "own",
        "Images to teach on: own, another dataset's, own+FILE.npz, generator, or "
        f"{', '.join(shared.NOISES)}.",
    ),
    flags.DEFINE_enum(
        "generator_objective",
        None,
        GENERATOR_OBJECTIVES,
        "Objective of --transfer=generator (adversarial).",
    ),
    flags.DEFINE_float("generator_rate", None, "Peak learning rate of the generator (default: 1e-3)."),
    flags.DEFINE_integer(
        "generator_width",
        None,
        "Channels of the generator's last layer but one (default: 32).",
        lower_bound=1,
        upper_bound=4096,
    ),
    flags.DEFINE_string(
        "transfer_shares",
        None,
        "Of own+FILE.npz: shares of the file's images in each epoch, in [0, 1], comma list (default: 0.1).",
    ),
)
shared.group(
    "Teachers",
    flags.DEFINE_string(
        "teacher",
        None,
        "Run folders of train_teacher or distill, comma list; of several, the mean.",
    ),
    flags.DEFINE_string("teacher_setting", None, "Where --teacher is a folder of students: their setting."),
    flags.DEFINE_enum(
        "teacher_seeds",
        "paired",
        ["paired", "first", "ensemble"],
        "Which of a folder's M teachers student seed s learns from: number s mod M, the first, or all of "
        "them.",
    ),
)
shared.group(
    "Omitted classes",
    flags.DEFINE_string("omit", None, "Class sets to omit from the transfer set, comma list: none,3,7+8."),
    flags.DEFINE_string("seen", None, "Class sets to keep, comma list; all other classes are omitted."),
    flags.DEFINE_string("shots", "0", "Examples of each omitted class that training keeps, comma list."),
)
shared.group(
    "Distillation",
    flags.DEFINE_string(
        "loss",
        "soft",
        "Losses of the logits, comma list, each a program of its own: "
        f"{'; '.join(f'{name}: {words}' for name, words in shared.LOSSES.items())}.",
    ),
    flags.DEFINE_string(
        "divergence", "kl", f"Of --loss=soft; comma list of {', '.join(shared.DIVERGENCES)}."
    ),
    flags.DEFINE_string(
        "standardize_logits",
        "no",
        "Whether the teacher's part sees standardised logits (Sun et al. 2024), comma list of no, yes.",
    ),
    flags.DEFINE_string("betas", None, "A loss's own number, comma list; by default that of its paper."),
    flags.DEFINE_string(
        "feature_loss",
        "none",
        "Losses of hidden layers, added to that of the logits, comma list, each a program of its own: none; "
        f"{'; '.join(f'{name}: {words}' for name, words in shared.FEATURE_LOSSES.items())}.",
    ),
    flags.DEFINE_string(
        "feature_weight", None, "Weights of the feature loss, comma list; by default that of its paper."
    ),
    flags.DEFINE_string(
        "student_layers", "", "The student's layers for the feature loss, comma list (default: by loss)."
    ),
    flags.DEFINE_string("teacher_layers", "", "The teacher's layers, in pairs with the student's."),
    flags.DEFINE_integer(
        "crd_negatives", 4096, "Of crd: negatives of each example (in its paper: 16384).", lower_bound=1
    ),
    flags.DEFINE_string("temperatures", "4", "Temperatures T > 0, comma list."),
    flags.DEFINE_string(
        "alphas", "1", "Weights of the teacher's part, in [0, 1], comma list; 0: plain student."
    ),
    flags.DEFINE_string(
        "teacher_ablations",
        "full",
        f"Teacher ablations, comma list of {', '.join(shared.TEACHER_ABLATIONS)}.",
    ),
    flags.DEFINE_string(
        "student_init",
        "random",
        "Initial weights of students, comma list of random, teacher (the initial weights of their teacher).",
    ),
)
shared.group(
    "Training",
    flags.DEFINE_string("learning_rates", "1e-3", "Peak learning rates, comma list."),
    flags.DEFINE_string("weight_decays", "0", "Weight decays, comma list."),
)
shared.group(
    "What is measured",
    flags.DEFINE_bool(
        "track",
        False,
        "Measure the omitted classes after each epoch: bias corrected, and by a linear probe.",
    ),
)


def main(argv: Sequence[str]) -> None:
    refuse_arguments(argv)
    options = shared.run_config("runs/students", "mlp-800-800")
    from experiments.settings import inherited
    from experiments.settings.methods import Lists
    from experiments.studies import distill

    more = inherited.from_teacher(FLAGS.teacher, shared.given)
    taken = inherited.as_flags(more, shared.default)
    options, values = replace(options, **more), shared.values() | more
    distill.run(options, shared.read(Lists), shared.read(distill.DistillConfig), values, taken)


if __name__ == "__main__":
    run(main, EXAMPLE, several=True)
