"""Train teachers of several seeds as one program and save them with all that is needed to rebuild them."""

from collections.abc import Sequence

from absl import flags

from experiments.cli import flags as shared
from experiments.cli.main import refuse_arguments, run

EXAMPLE = (
    "train_teacher --dataset=digits --model=mlp-256-256 --seeds=3 --epochs=100 --batch_size=64 "
    "--learning_rate=2e-3 --out=runs/teacher"
)
flags.adopt_module_key_flags(shared)
shared.group(
    "Training",
    flags.DEFINE_float("learning_rate", 1e-3, "Peak learning rate."),
    flags.DEFINE_float("weight_decay", 0.0, "Weight decay (decoupled for adamw)."),
)
shared.group(
    "Model",
    flags.DEFINE_string(
        "pretrained",
        None,
        "Weights to start from: a .safetensors, .pt or .pth file, or a hub name (owner/model).",
    ),
    flags.DEFINE_bool(
        "freeze_backbone",
        False,
        "Train the classifier alone (the last dense layer), on features of --pretrained.",
    ),
)
shared.group(
    "Omitted classes",
    flags.DEFINE_string("omit", "none", "Classes the teacher does not see, numbers or names, joined by +."),
)


def main(argv: Sequence[str]) -> None:
    refuse_arguments(argv)
    options = shared.run_config("runs/teacher", "mlp-1200-1200")
    from experiments.studies import train_teacher

    own = shared.read(train_teacher.TeacherConfig, omit=shared.given("omit"))
    train_teacher.run(options, own, shared.values())


if __name__ == "__main__":
    run(main, EXAMPLE, several=True)
