"""Distil a teacher into students, settings x seeds in one program, some of which never see some classes."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.cli import common, running
from experiments.reporting.sections import misclassified
from experiments.settings import augmentation, teachers, transfer
from experiments.settings.distill import Setting, parse_settings
from experiments.settings.teachers import Teachers
from kd_jax import losses, models
from kd_jax.data import Dataset
from kd_jax.errors import InputError
from kd_jax.evaluate import ensemble, evaluate
from kd_jax.evaluate.monitor import track
from kd_jax.io import confusions, run_folder, tidy
from kd_jax.losses.teacher_ablations import TEACHER_ABLATIONS
from kd_jax.stats.rows import Confusion, ResultRow
from kd_jax.train import Config, sweep, variables_of
from kd_jax.train.noise import NOISES
from kd_jax.types import HParams, Table, TrainState, Variables

FLAGS = flags.FLAGS
EXAMPLE = (
    "distill --dataset=digits --teacher=runs/teacher --model=mlp-64-64 --temperatures=1,4,20 "
    "--omit=none,3,7+8 --seeds=5 --epochs=200 --batch_size=64 --learning_rates=2e-3 "
    "--out=runs/students"
)
flags.adopt_module_key_flags(common)
flags.DEFINE_string(
    "teacher",
    None,
    "Run folders of train_teacher or distill; of several, the mean. Comma list: no comma in a name.",
)
flags.DEFINE_string("teacher_setting", None, "Where --teacher is a folder of students: their setting.")
flags.DEFINE_enum(
    "teacher_seeds",
    "paired",
    ["paired", "first", "ensemble"],
    "Which of a folder's M teachers student seed s learns from: number s mod M, the first, or all of them.",
)
flags.DEFINE_enum(
    "loss",
    "soft",
    list(losses.LOSSES),
    "T^2 KL to the teacher; CE with its argmax; CE with labels alone; half the squared distance of logits.",
)
flags.DEFINE_string("temperatures", "4", "Temperatures T > 0, comma list.")
flags.DEFINE_string("alphas", "1", "Weights of the teacher's part, in [0, 1], comma list; 0: plain student.")
flags.DEFINE_string("learning_rates", "1e-3", "Peak learning rates, comma list.")
flags.DEFINE_string("weight_decays", "0", "Weight decays, comma list.")
flags.DEFINE_string("omit", None, "Class sets left out of the transfer set, comma list (none): none,3,7+8.")
flags.DEFINE_string("seen", None, "Class sets that alone are seen, comma list, as in 7+8.")
flags.DEFINE_string("shots", "0", "Examples of each class left out that are seen all the same, comma list.")
flags.DEFINE_string(
    "transfer",
    transfer.OWN,
    f"Images that students are taught on: {transfer.OWN}, another dataset's, or noise, drawn anew: "
    f"{', '.join(NOISES)}.",
)
flags.DEFINE_string(
    "teacher_ablations",
    "full",
    f"What students hear of the teacher, comma list of {', '.join(TEACHER_ABLATIONS)}.",
)
flags.DEFINE_string(
    "student_init",
    "random",
    "Initial weights of students, comma list of random, teacher (the initial weights of its teacher).",
)
flags.DEFINE_bool(
    "track",
    False,
    "Tell after each epoch what the omitted classes come to: corrected, and by a linear probe.",
)

BIAS_GRID = np.arange(-6.0, 24.01, 0.25, dtype=np.float32)


def load_teachers(dataset: Dataset, validation: np.ndarray) -> Teachers | None:
    """The teachers that the flags name; None where none is needed.  validation: indices of the split."""
    if FLAGS.loss == "labels":
        if FLAGS.teacher:
            expected = "no --teacher, or --loss=soft --alphas=0 for plain students beside a teacher"
            raise InputError("--loss=labels has no use for a teacher", expected, f"--teacher={FLAGS.teacher}")
        return None
    words = common.require("teacher", "runs/teacher, or --loss=labels for students without one")
    return teachers.load(words, FLAGS.teacher_setting, FLAGS.teacher_seeds, dataset, validation)


def warn_of_common_gaps(settings: Sequence[Setting], teacher: Teachers | None) -> None:
    """A class that neither student nor teacher saw cannot come back."""
    mask = teacher.description["class_mask"] if teacher else []
    omitted = sorted({k for setting in settings for k in setting.omitted if mask and not mask[k]})
    if omitted:
        noun = "class" if len(omitted) == 1 else "classes"
        common.log_note(f"note: the teacher never saw {noun} {', '.join(map(str, omitted))} either")


def require_trackable(spec: str, config: Config, validation: np.ndarray) -> None:
    """Refuses --track where there is nothing to measure it on.  validation: indices of the split."""
    if len(validation) < 2:
        given = FLAGS.validation_fraction
        raise InputError("--track needs a validation split", "--validation_fraction above 0", given)
    common.require_hidden_layer("--track", spec, config.model, config.image_shape)


def queried() -> bool:
    """Whether the teachers are asked about each batch as students see it; else their logits are cached."""
    return augmentation.augments() or transfer.is_noise()


def init_states(
    teacher: Teachers | None, settings: Sequence[Setting], config: Config, keys: jax.Array
) -> TrainState:
    """States of fresh runs: `sweep.init_states`, but that some begin as their teachers did."""
    if teacher is None or not any(setting.student_init for setting in settings):
        return sweep.init_states(config, keys)
    seeds = range(FLAGS.seeds)
    of_teachers = jnp.tile(teachers.initial_keys(teacher, seeds), len(settings))
    shared = jnp.repeat(jnp.array([setting.student_init is not None for setting in settings]), FLAGS.seeds)
    states = sweep.init_states(config, jnp.where(shared, of_teachers, keys))
    mesh = sweep.runs_mesh(len(keys))
    return states.replace(key=sweep.put_on_mesh(sweep.pad_runs(keys, mesh.size), mesh, sweep.SHARDED))


def with_teachers(table: Table, teacher: Teachers | None) -> Table:
    """The table with what the loss needs of the teachers: cached logits, or variables to query."""
    if teacher is None:
        return table
    if queried():
        return table.replace(teacher_variables=teacher.variables)
    logits = [
        np.asarray(models.predict_stacked(model, variables, table.images))
        for model, variables in zip(teacher.models, teacher.variables, strict=True)
    ]
    return table.replace(teacher_logits=tuple(logits))


def main(argv: Sequence[str]) -> None:
    common.refuse_arguments(argv)
    out, spec = common.require_folder("out", "runs/students"), common.require("model", "mlp-800-800")
    dataset, train, validation = common.load_data()
    settings = parse_settings(dataset.class_names)
    moved = transfer.load(dataset, settings)
    for setting in settings:
        common.require_examples(dataset.train_labels[train], setting.omitted, setting.name)
    teacher = load_teachers(dataset, validation)
    model_options = common.model_options(dataset, train)
    config = common.make_config(
        spec, model_options, dataset, len(train if moved is None else moved.images),
        losses.LOSSES[FLAGS.loss],
        teacher_models=teacher.models if teacher and queried() else (),
        average_teachers=teacher is not None and teacher.average,
        noise=transfer.noise(), has_labels=FLAGS.transfer == transfer.OWN,
        monitor=track if FLAGS.track else None,
        **augmentation.options(dataset, train),
    )  # fmt: skip
    if FLAGS.track:
        require_trackable(spec, config, validation)
    if teacher and any(setting.student_init for setting in settings):
        teachers.require_same_shapes(teacher, spec, config)
    seeds = range(FLAGS.seeds)
    runs = [(setting, seed) for setting in settings for seed in seeds]
    description = common.describe(dataset, train, validation) | describe_runs(settings, runs, teacher)
    tables = common.make_tables(dataset, train, validation)
    if moved is not None:
        description["transfer"] = moved.description
        tables = (moved.table(), *tables[1:])
    if not running.is_complete(out, "students"):
        common.require_memory(*tables)
    if running.open_run_folder(out, description, "students"):
        running.finish(out, "is complete; the report is written again")
        return
    warn_of_common_gaps(settings, teacher)
    per_setting = all_hparams(settings, dataset.num_classes)
    hparams = sweep.stack_runs(per_setting, seeds, teachers.num_ensembles(teacher))
    keys = sweep.run_keys(seeds, len(settings), teachers.generation(teacher))
    mesh = sweep.runs_mesh(len(runs))
    table, held_out, test = sweep.put_on_mesh(
        (with_teachers(tables[0], teacher), *tables[1:]), mesh, sweep.REPLICATED
    )
    start = partial(init_states, teacher, settings)
    states, history = running.train_runs(config, table, held_out, hparams, keys, out, description, start)
    metadata = student_metadata(spec, model_options, config, description) | {
        "validation_split": common.split_hash(validation),
        "generation": teachers.generation(teacher),
        "diverged": np.flatnonzero(tidy.diverged_at(history)).tolist(),
    }
    running.save_models(out / "students", sweep.gather(variables_of(states), len(runs)), metadata)

    evaluation_data = evaluate.EvaluationData(table, held_out, test, teacher and teacher.variables)
    outcome = evaluate.evaluate_runs(
        config.model, teacher.models if teacher else (), config.average_teachers, config.loss_fn,
        evaluation_data, jnp.asarray(BIAS_GRID), variables_of(states), hparams, states.key,
    )  # fmt: skip
    together = evaluate_ensembles(
        config, evaluate.splits_of(evaluation_data), variables_of(states), len(settings)
    )
    if jax.process_index() == 0:
        rows = write_outcome(out, runs, history, outcome, teacher, *tables[1:], together)
        misclassified.save(out, description, rows, outcome.examples, tables[2])
        run_folder.write_results(out, rows)  # last, for it says that the run is complete
    del outcome  # of a thousand classes, a gigabyte
    running.finish(out)


def describe_runs(
    settings: Sequence[Setting], runs: Sequence[tuple[Setting, int]], teacher: Teachers | None
) -> dict:
    """The part of config.json that only students have."""
    return {
        "teacher": teacher and teacher.description,
        "settings": [setting.described() for setting in settings],
        "runs": [
            {
                "run": run,
                "setting": setting.name,
                "seed": seed,
                "teacher_seed": teachers.teacher_seed(seed, teacher),
            }
            for run, (setting, seed) in enumerate(runs)
        ],
    }


def all_hparams(settings: Sequence[Setting], num_classes: int) -> list[HParams]:
    """What the runs of each setting compute with; what no setting has is not in the program."""
    some_shots = any(setting.shots for setting in settings)
    names, some_ablated = list(TEACHER_ABLATIONS), any(setting.teacher_ablation for setting in settings)
    return [
        sweep.make_hparams(
            num_classes, s.omitted, s.learning_rate, s.weight_decay, s.temperature or 1.0, s.alpha
        ).replace(
            num_shots=np.int32(s.shots) if some_shots else None,
            teacher_ablation=np.int32(names.index(s.teacher_ablation or "full")) if some_ablated else None,
        )
        for s in settings
    ]


def evaluate_ensembles(
    config: Config, splits: dict[str, Table], variables: Variables, num_settings: int
) -> dict[str, np.ndarray]:
    """Of each split, what `ensemble.evaluate_settings` says of several seeds; nothing of one."""
    if FLAGS.seeds == 1:
        return {}
    return {
        split: ensemble.evaluate_settings(config.model, table, variables, num_settings, FLAGS.seeds)
        for split, table in splits.items()
    }


def write_outcome(
    out: Path,
    runs: Sequence[tuple[Setting, int]],
    history: dict,
    outcome: evaluate.EvaluationOutcome,
    teacher: Teachers | None,
    validation: Table | None,
    test: Table,
    together: dict[str, np.ndarray],
) -> list[ResultRow]:
    """Writes history.csv, confusions.npz and bias_curve.csv; returns the rows of results.csv.

    outcome: of `evaluate_runs`; together: for each split `evaluate_settings`', where there are several seeds.
    """
    names, seeds = [setting.name for setting, _ in runs], [seed for _, seed in runs]
    omitted = [setting.omitted for setting, _ in runs]
    run_folder.write_history(out, tidy.history_rows(history, names, seeds, omitted))
    ends = tidy.diverged_at(history)
    rows: list[ResultRow] = []
    seen: list[Confusion] = []
    if teacher is not None:  # its accuracy on what it was trained on would be no validation
        unseen = None if teacher.description["saw_validation"] else validation
        ensembles = teachers.ensembles(teacher, seeds)
        rows, seen = running.teacher_rows(teacher.models, teacher.variables, ensembles, unseen, test)
    rows += student_rows(runs, outcome, ends)
    seen += student_confusions(runs, outcome, ends)
    confusions.write(out, seen, outcome.curve.shape[-1])
    for split, matrices in together.items():
        for number, matrix in enumerate(matrices):
            first = number * FLAGS.seeds
            if ends[first : first + FLAGS.seeds].any():
                continue
            setting, seed = runs[first]
            rows += tidy.ensemble_rows(setting.name, seed, split, matrix, setting.omitted)
    labels = np.asarray(test.labels)
    curves = [
        tidy.bias_rows(setting.name, seed, BIAS_GRID, outcome.curve[run], labels, setting.omitted)
        for run, (setting, seed) in enumerate(runs)
        if setting.omitted and not ends[run]
    ]
    run_folder.write_bias_curve(out, itertools.chain.from_iterable(curves))
    return rows


def student_rows(
    runs: Sequence[tuple[Setting, int]], outcome: evaluate.EvaluationOutcome, ends: np.ndarray
) -> list:
    """The students' rows of results.csv; settings without an omitted class have no corrections.

    ends: as of `tidy.diverged_at`.
    """
    rows = []
    for run, (setting, seed) in enumerate(runs):
        if ends[run]:
            rows.append(tidy.diverged_row(setting.name, seed, ends[run]))
            continue
        for split, of_split in outcome.confusions.items():
            for correction, matrices in of_split.items():
                if setting.omitted or correction == "none":
                    value = outcome.biases[correction][run] if setting.omitted else None
                    rows += tidy.result_rows(
                        setting.name, seed, split, correction, matrices[run], setting.omitted, value
                    )
        for split, sums in outcome.quality.items():
            own = jax.tree.map(lambda leaf, run=run: leaf[run], sums)
            rows += tidy.quality_rows(setting.name, seed, split, own)
    return rows


def student_confusions(
    runs: Sequence[tuple[Setting, int]], outcome: evaluate.EvaluationOutcome, ends: np.ndarray
) -> list[Confusion]:
    """The students' rows of confusions.npz: those of results.csv on the test split."""
    return [
        Confusion(setting.name, seed, correction, matrices[run])
        for run, (setting, seed) in enumerate(runs)
        for correction, matrices in outcome.confusions["test"].items()
        if not ends[run] and (setting.omitted or correction == "none")
    ]


def student_metadata(spec: str, model_options: dict, config: Config, description: dict) -> dict:
    """What the checkpoint of the students says of them."""
    return {
        "model": spec,
        "model_options": model_options,
        "num_models": len(description["runs"]),
        "image_shape": list(config.image_shape),
        **{key: description[key] for key in ("data", "flags", "versions", "teacher", "settings", "runs")},
    }


if __name__ == "__main__":
    common.run(main, EXAMPLE, several=True)
