"""Distillation: settings x seeds trained as one program, their evaluation, and the run folder."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cli import provenance, running
from experiments.cli.flags import RunConfig
from experiments.cli.main import log_note
from experiments.reporting import students as tables_of_students
from experiments.reporting.sections import misclassified
from experiments.settings import augmentation, methods, students, teachers, training, transfer
from experiments.settings import dataset as datasets
from experiments.settings.distill import Lists, Setting, all_hparams, parse_settings, programs
from experiments.settings.methods import Structure
from experiments.settings.teachers import Teachers
from kd_jax.errors import InputError
from kd_jax.evaluate import ensemble, evaluate
from kd_jax.evaluate.monitor import track
from kd_jax.io import run_config, run_folder, tidy
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import Confusion, ResultRow
from kd_jax.train import Config, sweep, variables_of
from kd_jax.train.config import FeatureMatch
from kd_jax.train.noise import NOISES
from kd_jax.types import GeneratorHParams, Table

BIAS_GRID = np.arange(-6.0, 24.01, 0.25, dtype=np.float32)

CACHED_BYTES = 2**31
"""The most that the cached layers of the teachers take, once on the host and once on the device."""


@dataclass(frozen=True)
class DistillConfig:
    """The values of the flags that only distillation has and that span no grid, by the names of the flags."""

    teacher: str | None
    teacher_setting: str | None
    teacher_seeds: str
    transfer: str
    track: bool
    student_layers: str
    teacher_layers: str
    crd_negatives: int
    generator_objective: str | None = None
    generator_rate: float | None = None
    generator_width: int | None = None


class Plan(NamedTuple):
    """What is to be done, before anything is computed.

    validation: indices of the split; queried: whether the teachers are asked about each batch as students see
    it, else their logits are cached; configs: the training of each structure, a program each, in the order of
    the settings; description: what config.json says; tables: training, validation, test; moved: another
    transfer set than the own one; generator: the numbers of what draws it, if one does.
    """

    settings: list[Setting]
    runs: list[tuple[Setting, int]]
    teacher: Teachers | None
    queried: bool
    model_options: dict[str, Any]
    configs: dict[Structure, Config]
    validation: np.ndarray
    description: RunDescription
    tables: tuple[Table, Table | None, Table]
    moved: transfer.Transfer | None
    generator: GeneratorHParams | None


class Trained(NamedTuple):
    """What one program gives: as of `loop.train`, `variables_of` in numpy, `evaluate.evaluate_runs` and
    `ensemble.evaluate_splits`."""

    history: dict
    variables: Any
    outcome: evaluate.EvaluationOutcome
    together: Any


def run(
    options: RunConfig, lists: Lists, distill_config: DistillConfig, flags: dict[str, Any], taken: str = ""
) -> None:
    """Trains, evaluates and reports all students, or goes on where an earlier process stopped.

    flags: all values by name, for config.json.  taken: those that are the teacher's.  Errors: InputError.
    """
    plan = make_plan(options, lists, distill_config, flags)
    if not running.is_complete(options.out, "students"):
        datasets.require_memory(*plan.tables)
    if running.open_run_folder(options.out, plan.description, "students"):
        running.finish(options.out, options.tensorboard, "is complete; the report is written again")
        return
    if taken:
        print(f"as the teacher: {taken}")
    students.warn_of_common_gaps(plan.settings, plan.teacher, plan.description.data.class_names)
    if plan.moved is not None and jax.process_index() == 0:
        transfer.write_sheet(options.out, plan.moved)
    train_and_evaluate(options, plan)
    running.finish(options.out, options.tensorboard)


def make_plan(options: RunConfig, lists: Lists, distill_config: DistillConfig, flags: dict[str, Any]) -> Plan:
    """All that the flags ask for. Errors: InputError."""
    dataset, train, validation = datasets.load(options)
    settings = parse_settings(lists, dataset.class_names, transfer.is_mixture(distill_config.transfer))
    moved = transfer.load(distill_config.transfer, options, dataset, settings)
    for setting in settings:
        datasets.require_examples(dataset.train_labels[train], setting.omitted, setting.name)
    teacher = teachers.load_for(
        lists.loss, methods.needs_teacher(lists), distill_config.teacher, distill_config.teacher_setting,
        distill_config.teacher_seeds, dataset, validation,
    )  # fmt: skip
    generator, of_generator = transfer.parse_generator(
        distill_config.transfer, distill_config.generator_objective, distill_config.generator_rate,
        distill_config.generator_width, options, dataset, teacher,
    )  # fmt: skip
    structures = list(programs(settings))
    methods.require_one_teacher(structures, teacher, distill_config.transfer)
    queried = augmentation.queries(options) or distill_config.transfer in NOISES or generator is not None
    model_options = training.model_options(options, dataset, train)
    num = len(train) if moved is None else moved.num_examples(len(train))
    config = training.make_config(
        options, model_options, dataset, num, structures[0].loss_fn,
        teacher_models=teacher.models if teacher and queried else (),
        average_teachers=teacher is not None and teacher.average,
        noise=NOISES.get(distill_config.transfer), generator=generator,
        has_labels=distill_config.transfer == transfer.OWN,
        monitor=track if distill_config.track else None,
        **augmentation.fields(options, dataset, train),
    )  # fmt: skip
    if distill_config.track:
        training.require_trackable(options, config, validation)
    if teacher and any(setting.student_init for setting in settings):
        students.require_same_shapes(teacher, options.model, config)
    layers = distill_config.student_layers, distill_config.teacher_layers
    configs = {
        one: methods.with_structure(config, one, teacher, layers, distill_config.crd_negatives, num)
        for one in structures
    }
    if any(layers) and not any(one.feature_match for one in configs.values()):
        raise InputError("layers mean nothing here", "--feature_loss with them", " ".join(layers).strip())
    runs = [(setting, seed) for setting in settings for seed in range(options.seeds)]
    description = provenance.describe(
        flags, dataset, train, validation, [setting.info() for setting in settings],
        [(setting.name, seed, students.teacher_seed(seed, teacher)) for setting, seed in runs],
        teacher=teacher and teacher.info.to_json(), transfer=moved and moved.description | {"examples": num},
    )  # fmt: skip
    tables = datasets.make_tables(dataset, train, validation)
    if moved is not None:
        tables = (moved.table(tables[0], teacher), *tables[1:])
    return Plan(
        settings, runs, teacher, queried, model_options, configs, validation, description, tables, moved,
        of_generator,
    )  # fmt: skip


def train_and_evaluate(options: RunConfig, plan: Plan) -> None:
    """Writes all of the run folder but its report."""
    mirrored = augmentation.only_flips(options)
    table = students.with_teachers(plan.tables[0], plan.teacher, plan.queried, mirrored)
    each = [train_program(options, plan, structure, table) for structure in plan.configs]
    history, variables = (joined([getattr(one, name) for one in each]) for name in ("history", "variables"))
    copied = ("data", "flags", "versions", "teacher", "settings", "runs")
    metadata = {
        "model": options.model,
        "model_options": plan.model_options,
        "num_models": len(plan.runs),
        "image_shape": list(next(iter(plan.configs.values())).image_shape),
        "validation_split": datasets.split_hash(plan.validation),
        "generation": students.generation(plan.teacher),
        "diverged": np.flatnonzero(tidy.diverged_at(history)).tolist(),
    } | {key: value for key, value in run_config.to_json(plan.description).items() if key in copied}
    running.save_models(options.out / "students", variables, metadata)
    if jax.process_index() == 0:
        labels = np.asarray(plan.tables[2].labels)
        outcome, together = joined([one.outcome for one in each]), joined([one.together for one in each])
        rows = tables_of_students.write(
            options.out, plan.runs, history, outcome, together, BIAS_GRID, labels, rows_of_teachers(plan)
        )
        misclassified.save(options.out, plan.description, rows, outcome.examples, plan.tables[2])
        run_folder.write_results(options.out, rows)  # last, for it says that the run is complete


def train_program(options: RunConfig, plan: Plan, structure: Structure, table: Table) -> Trained:
    """The runs of one structure, trained and evaluated as one program.  table: of `with_teachers`."""
    config, teacher, settings = plan.configs[structure], plan.teacher, programs(plan.settings)[structure]
    num_classes = plan.description.data.num_classes
    seeds, num_runs = range(options.seeds), len(settings) * options.seeds
    numbers = all_hparams(settings, num_classes)
    if plan.generator is not None:
        numbers = [one.replace(generator=plan.generator) for one in numbers]
    hparams = sweep.stack_runs(numbers, seeds, students.num_ensembles(teacher))
    if teacher is not None and (match := config.feature_match) is not None:
        cached = caches_layers(plan, teacher, match, augmentation.only_flips(options))
        table = students.with_layers(table, teacher, match, num_classes, cached)
        config = config if cached else dataclasses.replace(config, teacher_models=teacher.models)
    table, held_out, test = sweep.put_on_mesh(
        (table, *plan.tables[1:]), sweep.runs_mesh(num_runs), sweep.REPLICATED
    )
    number = list(plan.configs).index(structure)
    states, history = running.train_runs(
        options, config, table, held_out, hparams,
        sweep.run_keys(seeds, len(settings), students.generation(teacher)), plan.description,
        partial(students.init_states, teacher, settings, options.seeds),
        "checkpoints" if len(plan.configs) == 1 else f"checkpoints/program_{number}",
    )  # fmt: skip
    variables = variables_of(states)
    table = table.replace(teacher_features=None)
    data = evaluate.EvaluationData(table, held_out, test, teacher and teacher.variables)
    outcome = evaluate.evaluate_runs(
        config.model, teacher.models if teacher else (), config.average_teachers, config.loss_fn,
        data, jnp.asarray(BIAS_GRID), variables, hparams, states.key,
    )  # fmt: skip
    splits = evaluate.splits_of(data)
    together = ensemble.evaluate_splits(config.model, splits, variables, len(settings), options.seeds)
    return Trained(history, sweep.gather(variables, num_runs), outcome, together)


def caches_layers(plan: Plan, teacher: Teachers, match: FeatureMatch, mirrored: bool) -> bool:
    """Whether the layers that a feature loss reads are cached: where they take at most CACHED_BYTES. A note
    says which. The free memory has no part in it: a run that continues on another day must train alike.

    mirrored: whether students see mirror images, whose layers are not cached."""
    size = students.features_bytes(plan.tables[0], teacher, match)
    cached = not plan.queried and not mirrored and size <= CACHED_BYTES
    source = "cached" if cached else "computed at each update"
    log_note(f"note: the teacher's layers are {source} ({size / 2**20:.0f} MiB for all images)")
    return cached


def joined(trees: Sequence[Any]) -> Any:
    """Trees of arrays [R,...] of several programs as one."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *parts: np.concatenate(parts), *trees)


def rows_of_teachers(plan: Plan) -> tuple[list[ResultRow], list[Confusion]]:
    """What results.csv and confusions.npz have of the teachers, where there are some."""
    teacher, (_, validation, test) = plan.teacher, plan.tables
    if teacher is None:
        return [], []
    # Its accuracy on what it was trained on would be no validation.
    unseen = None if teacher.info.saw_validation else validation
    ensembles = students.ensembles(teacher, sorted({seed for _, seed in plan.runs}))
    return running.teacher_rows(teacher.models, teacher.variables, ensembles, unseen, test)
