"""Train teachers of several seeds as one program and save them with all that is needed to rebuild them."""

from collections.abc import Sequence

import numpy as np
from absl import flags

from experiments import common, report
from kd_jax import checkpoint, losses, metrics, models, results, sweep
from kd_jax.train import variables_of
from kd_jax.types import InputError

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(common)
flags.DEFINE_float("learning_rate", 1e-3, "Peak learning rate.")
flags.DEFINE_float("weight_decay", 0.0, "Weight decay (decoupled for adamw).")
flags.DEFINE_string("omit", "none", "Classes the teacher does not see, joined by +.")


def main(argv: Sequence[str]) -> None:
    common.refuse_arguments(argv)
    out, spec = common.require_folder("out", "runs/teacher"), common.require("model", "mlp-1200-1200")
    (learning_rate,) = common.parse_numbers("learning_rate", str(FLAGS.learning_rate), positive=True)
    (weight_decay,) = common.parse_numbers("weight_decay", str(FLAGS.weight_decay))
    dataset, train, validation = common.load_data()
    sets = common.parse_classes("omit", FLAGS.omit, dataset.num_classes)
    if len(sets) > 1 or len(sets[0]) >= dataset.num_classes:
        raise InputError("--omit of a teacher", "one set of classes that leaves some", FLAGS.omit)
    (missing,) = sets
    config = common.make_config(spec, dataset, len(train), losses.LOSSES["labels"])
    hparams = common.make_hparams(dataset.num_classes, missing, learning_rate, weight_decay)
    seeds = range(FLAGS.seeds)

    description = common.describe(dataset, train, validation) | {
        "teacher": None,
        "settings": [{"name": "teacher", "missing": list(missing)}],
        "runs": [{"run": seed, "setting": "teacher", "seed": seed, "teacher_seed": None} for seed in seeds],
    }
    if common.open_run_folder(out, description) and (out / "teachers").exists():
        print(f"{out} is complete; the report is written again")
        print(report.build(out))
        common.finish(out)
        return
    table, held_out, test = common.make_tables(dataset, train, validation)
    states, history = common.train_runs(
        config, table, held_out, sweep.stack_runs([hparams], seeds), sweep.run_keys(seeds, 1), out
    )
    variables = variables_of(states)
    rows = []
    for split, part in (("validation", held_out), ("test", test)):
        if part is None:
            continue
        predicted = np.argmax(models.predict_stacked(config.model, variables, part.images), axis=-1)
        for seed in seeds:
            confusion = np.asarray(metrics.confusion(predicted[seed], part.labels, dataset.num_classes))
            rows += common.result_rows("teacher", seed, split, "none", confusion, missing, None)
    runs = range(FLAGS.seeds)
    results.write_history(
        out, common.history_rows(history, ["teacher"] * len(runs), list(seeds), [missing] * len(runs))
    )
    results.write_results(out, rows)
    errors = {
        split: [int(r.value) for r in rows if (r.split, r.class_, r.metric) == (split, "all", "errors")]
        for split in ("validation", "test")
    }
    checkpoint.save(
        out / "teachers",
        variables,
        {
            "model": spec,
            "model_options": {name: FLAGS[name].value for name in ("input_dropout", "dropout", "precision")},
            "num_models": FLAGS.seeds,
            "seeds": list(seeds),
            "image_shape": list(config.image_shape),
            "class_mask": hparams.class_mask.tolist(),
            "data": description["data"],
            "flags": description["flags"],
            "versions": description["versions"],
            "errors": errors,
        },
    )
    print(report.build(out))
    common.finish(out)


if __name__ == "__main__":
    common.run(main)
