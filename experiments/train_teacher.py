"""Train teachers of several seeds as one program and save them with all that is needed to rebuild them."""

import os
import sys
from collections.abc import Sequence
from functools import partial

import jax
from absl import flags

from experiments.cli import common, progress, running
from experiments.settings import augmentation
from kd_jax import losses, models
from kd_jax.errors import InputError
from kd_jax.io import confusions, run_folder, tidy
from kd_jax.models import pretrained
from kd_jax.train import Config, sweep, variables_of

FLAGS = flags.FLAGS
EXAMPLE = (
    "train_teacher --dataset=digits --model=mlp-256-256 --seeds=3 --epochs=100 --batch_size=64 "
    "--learning_rate=2e-3 --out=runs/teacher"
)
flags.adopt_module_key_flags(common)
flags.DEFINE_float("learning_rate", 1e-3, "Peak learning rate.")
flags.DEFINE_float("weight_decay", 0.0, "Weight decay (decoupled for adamw).")
flags.DEFINE_string(
    "pretrained",
    None,
    "Weights to start from: a .safetensors, .pt or .pth file, or a hub name (owner/model).",
)
flags.DEFINE_bool(
    "freeze_backbone",
    False,
    "Train the classifier alone (the last dense layer), on features of --pretrained.",
)
flags.DEFINE_string("omit", "none", "Classes the teacher does not see, numbers or names, joined by +.")


def load_initial(config: Config) -> pretrained.Pretrained | None:
    """The weights that --pretrained names, None without it."""
    if FLAGS.freeze_backbone and (not FLAGS.pretrained or FLAGS.max_norm):
        expected = "--pretrained with it, and no --max_norm, which is of the weights that would be frozen"
        raise InputError("--freeze_backbone cannot be this", expected, common.command())
    if FLAGS.pretrained is None:
        return None
    common.require("pretrained", "resnet50.safetensors, or no such flag")
    if not (
        progress.is_live() and sys.stderr.isatty()
    ):  # the hub's own bar, read when its package is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    init = partial(models.init_variables, config.model, image_shape=config.image_shape)
    initial = pretrained.load(
        FLAGS.pretrained, models.network_of(config.model), jax.eval_shape(init, jax.random.key(0))
    )
    if FLAGS.normalize == "none":
        common.log_note(
            "note: --pretrained without --normalize: most weights were trained on --normalize=imagenet"
        )
    if initial.fresh_classifier:
        common.log_note(f"note: the classifier starts afresh: it has {config.num_classes} classes here")
    return initial


def main(argv: Sequence[str]) -> None:
    common.refuse_arguments(argv)
    out, spec = common.require_folder("out", "runs/teacher"), common.require("model", "mlp-1200-1200")
    (learning_rate,) = common.parse_numbers("learning_rate", str(FLAGS.learning_rate), positive=True)
    (weight_decay,) = common.parse_numbers("weight_decay", str(FLAGS.weight_decay))
    dataset, train, validation = common.load_data()
    sets = common.parse_class_flag("omit", dataset.class_names)
    if len(sets) > 1 or len(sets[0]) >= dataset.num_classes:
        raise InputError("--omit of a teacher", "one set of classes that leaves some", FLAGS.omit)
    (omitted,) = sets
    common.require_examples(dataset.train_labels[train], omitted, f"--omit={FLAGS.omit}")
    model_options = common.model_options(dataset, train)
    config = common.make_config(
        spec, model_options, dataset, len(train), losses.labels_loss,
        **augmentation.options(dataset, train), freeze_backbone=FLAGS.freeze_backbone,
    )  # fmt: skip
    initial = load_initial(config)
    hparams = sweep.make_hparams(dataset.num_classes, omitted, learning_rate, weight_decay)
    seeds = range(FLAGS.seeds)

    description = common.describe(dataset, train, validation) | {
        "teacher": None,
        "settings": [{"name": "teacher", "omitted": list(omitted)}],
        "runs": [{"run": seed, "setting": "teacher", "seed": seed, "teacher_seed": None} for seed in seeds],
    }
    if initial is not None:
        description["pretrained"] = {"sha256": initial.sha256, "fresh_classifier": initial.fresh_classifier}
    table, held_out, test = common.make_tables(dataset, train, validation)
    if not running.is_complete(out, "teachers"):
        common.require_memory(table, held_out, test)
    if running.open_run_folder(out, description, "teachers"):
        running.finish(out, "is complete; the report is written again")
        return
    states, history = running.train_runs(
        config,
        table,
        held_out,
        sweep.stack_runs([hparams], seeds),
        sweep.run_keys(seeds, 1, base=0),
        out,
        description,
        partial(sweep.init_states, given=initial and initial.variables),
    )
    variables = sweep.gather(variables_of(states), len(seeds))
    ends = tidy.diverged_at(history)
    lost = {seed: int(ends[seed]) for seed in seeds if ends[seed]}
    metadata = teacher_metadata(spec, model_options, config, description) | {
        "class_mask": hparams.class_mask.tolist(),
        "diverged": list(lost),
        "validation_split": common.split_hash(validation),
    }
    running.save_models(out / "teachers", variables, metadata)
    rows, matrices = running.teacher_rows([config.model], [variables], [seeds], held_out, test, omitted, lost)
    if jax.process_index() == 0:
        names, masks = ["teacher"] * len(seeds), [omitted] * len(seeds)
        run_folder.write_history(out, tidy.history_rows(history, names, list(seeds), masks))
        confusions.write(out, matrices, dataset.num_classes)
        run_folder.write_results(out, rows)  # last, for it says that the run is complete
    running.finish(out)


def teacher_metadata(spec: str, model_options: dict, config: Config, description: dict) -> dict:
    """What the checkpoint of the teachers says of them."""
    copied = ("data", "flags", "versions", "pretrained")
    return {
        "model": spec,
        "model_options": model_options,
        "num_models": FLAGS.seeds,
        "seeds": list(range(FLAGS.seeds)),
        "image_shape": list(config.image_shape),
    } | {key: description[key] for key in copied if key in description}


if __name__ == "__main__":
    common.run(main, EXAMPLE, several=True)
