"""Teachers: several seeds as one program, their evaluation, and their run folder."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.cli import progress, provenance, running
from experiments.cli.flags import RunConfig
from experiments.cli.main import log_note
from experiments.cli.parse import parse_classes, parse_numbers
from experiments.reporting.content import imported_accuracy
from experiments.settings import augmentation, training
from experiments.settings import dataset as datasets
from kd_jax import losses, models
from kd_jax.errors import InputError
from kd_jax.io import confusions, run_config, run_folder, tidy
from kd_jax.models import pretrained
from kd_jax.stats.description import RunDescription, SettingInfo
from kd_jax.stats.rows import TEACHER
from kd_jax.train import Config, sweep, variables_of
from kd_jax.types import HParams, Table


@dataclass(frozen=True)
class TeacherConfig:
    """The values of the flags that only teachers have, by their names.  omit: None where it is not given."""

    learning_rate: float
    weight_decay: float
    pretrained: str | None
    freeze_backbone: bool
    omit: str | None


class Plan(NamedTuple):
    """What is to be done, before anything is computed.

    omitted: classes; initial: the weights to start from; validation: indices of the split; description: what
    config.json says; tables: training, validation, test.
    """

    omitted: tuple[int, ...]
    model_options: dict[str, Any]
    config: Config
    initial: pretrained.Pretrained | None
    hparams: HParams
    validation: np.ndarray
    description: RunDescription
    tables: tuple[Table, Table | None, Table]


def run(options: RunConfig, teacher_config: TeacherConfig, flags: dict[str, Any]) -> None:
    """Trains, evaluates and reports the teachers, or goes on where an earlier process stopped.

    flags: all values by name, for config.json.  Errors: InputError.
    """
    plan = make_plan(options, teacher_config, flags)
    if not running.is_complete(options.out, "teachers"):
        datasets.require_memory(*plan.tables)
    if running.open_run_folder(options.out, plan.description, "teachers"):
        running.finish(options.out, options.tensorboard, "is complete; the report is written again")
        return
    if plan.initial is not None and not plan.initial.fresh_classifier:
        record_imported(options.out, plan)
    train_and_evaluate(options, plan)
    running.finish(options.out, options.tensorboard)


def make_plan(options: RunConfig, teacher_config: TeacherConfig, flags: dict[str, Any]) -> Plan:
    """All that the flags ask for. Errors: InputError."""
    (learning_rate,) = parse_numbers("learning_rate", str(teacher_config.learning_rate), positive=True)
    (weight_decay,) = parse_numbers("weight_decay", str(teacher_config.weight_decay))
    dataset, train, validation = datasets.load(options)
    sets = parse_classes("omit", teacher_config.omit, dataset.class_names)
    if len(sets) > 1 or len(sets[0]) >= dataset.num_classes:
        raise InputError("--omit of a teacher", "one set of classes that leaves some", teacher_config.omit)
    (omitted,) = sets
    datasets.require_examples(dataset.train_labels[train], omitted, f"--omit={teacher_config.omit}")
    model_options = training.model_options(options, dataset, train)
    config = training.make_config(
        options, model_options, dataset, len(train), losses.labels_loss,
        **augmentation.fields(options, dataset, train), freeze_backbone=teacher_config.freeze_backbone,
    )  # fmt: skip
    initial = load_initial(options, teacher_config, config)
    hparams = sweep.make_hparams(dataset.num_classes, omitted, learning_rate, weight_decay)
    description = provenance.describe(
        flags, dataset, train, validation, [SettingInfo(TEACHER, {"omitted": omitted})],
        [(TEACHER, seed, None) for seed in range(options.seeds)],
        pretrained=initial and {"sha256": initial.sha256, "fresh_classifier": initial.fresh_classifier},
    )  # fmt: skip
    tables = datasets.make_tables(dataset, train, validation)
    return Plan(omitted, model_options, config, initial, hparams, validation, description, tables)


def load_initial(
    options: RunConfig, teacher_config: TeacherConfig, config: Config
) -> pretrained.Pretrained | None:
    """The weights that --pretrained names, None without it."""
    if teacher_config.freeze_backbone and (not teacher_config.pretrained or options.max_norm):
        expected = "--pretrained with it, and no --max_norm, which is of the weights that would be frozen"
        raise InputError("--freeze_backbone cannot be this", expected, provenance.command())
    if teacher_config.pretrained is None:
        return None
    if not teacher_config.pretrained:
        expected = "--pretrained=resnet50.safetensors, or no such flag"
        raise InputError("--pretrained is missing", expected, "nothing")
    progress.settle_bars_of_hub()
    init = partial(models.init_variables, config.model, image_shape=config.image_shape)
    shapes = jax.eval_shape(init, jax.random.key(0))
    initial = pretrained.load(teacher_config.pretrained, models.network_of(config.model), shapes)
    if initial.fresh_classifier and options.epochs == 0:
        expected = f"weights whose classifier has the {config.num_classes} classes of the dataset"
        raise InputError("--epochs=0 keeps no classifier", expected, teacher_config.pretrained)
    if options.normalize == "none":
        log_note("note: --pretrained without --normalize: most weights were trained on --normalize=imagenet")
    for note in initial.notes:
        log_note(f"note: {note}")
    if initial.fresh_classifier:
        log_note(f"note: the classifier starts afresh: it has {config.num_classes} classes here")
    return initial


def record_imported(out: Path, plan: Plan) -> None:
    """Prints the accuracy of the weights as they were imported, before any training, and adds it to
    config.json, once: {"imported": {split: {"accuracy": fraction, "support": examples}}}."""
    if jax.process_index() > 0:
        return
    recorded = run_config.read(out)
    if recorded.imported is None:
        assert plan.initial is not None
        stacked = jax.tree.map(lambda leaf: leaf[None], plan.initial.variables)
        imported = {}
        for split, table in zip(("validation", "test"), plan.tables[1:], strict=True):
            if table is not None:
                predicted = np.argmax(models.predict_stacked(plan.config.model, stacked, table.images)[0], -1)
                accuracy = float(np.mean(np.asarray(predicted == np.asarray(table.labels))))
                imported[split] = {"accuracy": accuracy, "support": len(predicted)}
        recorded = replace(recorded, imported=imported)
        run_config.write(out, recorded)
    print(f"as imported: {imported_accuracy(recorded.imported or {})}", flush=True)


def train_and_evaluate(options: RunConfig, plan: Plan) -> None:
    """Writes all of the run folder but its report."""
    seeds, (table, held_out, test) = range(options.seeds), plan.tables
    keys = sweep.run_keys(seeds, 1, base=0)
    start = partial(sweep.init_states, pretrained_variables=plan.initial and plan.initial.variables)
    history: dict[str, Any] = {}
    if options.epochs:
        hparams = sweep.stack_runs([plan.hparams], seeds)
        states, history = running.train_runs(
            options, plan.config, table, held_out, hparams, keys, plan.description, start
        )
    else:
        states = start(plan.config, keys)
    variables = sweep.gather(variables_of(states), len(seeds))
    ends = tidy.diverged_at(history) if history else np.zeros(len(seeds), int)
    lost = {seed: int(ends[seed]) for seed in seeds if ends[seed]}
    copied = ("data", "flags", "versions", "pretrained")
    metadata = {
        "model": options.model,
        "model_options": plan.model_options,
        "num_models": options.seeds,
        "seeds": list(seeds),
        "image_shape": list(plan.config.image_shape),
        "class_mask": plan.hparams.class_mask.tolist(),
        "diverged": list(lost),
        "validation_split": datasets.split_hash(plan.validation),
    } | {key: value for key, value in run_config.to_json(plan.description).items() if key in copied}
    running.save_models(options.out / "teachers", variables, metadata)
    rows, matrices = running.teacher_rows(
        [plan.config.model], [variables], [seeds], held_out, test, plan.omitted, lost
    )
    if jax.process_index() == 0:
        names, masks = [TEACHER] * len(seeds), [plan.omitted] * len(seeds)
        rows_of_history = tidy.history_rows(history, names, list(seeds), masks) if history else []
        run_folder.write_history(options.out, rows_of_history)
        confusions.write(options.out, matrices, plan.description.data.num_classes)
        run_folder.write_results(options.out, rows)  # last, for it says that the run is complete
