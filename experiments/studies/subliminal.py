"""Subliminal learning: teachers and students of each structure, a program each, and their run folder."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.cli import progress, provenance, running
from experiments.cli.flags import RunConfig
from experiments.cli.parse import parse_numbers
from experiments.settings import training, transfer
from experiments.settings.subliminal import (
    REFERENCE,
    TEACHER,
    Lists,
    Setting,
    Structure,
    hparams_of,
    parse_settings,
    parse_share,
    parse_structures,
)
from kd_jax import data, losses, models
from kd_jax.errors import InputError
from kd_jax.evaluate import evaluate
from kd_jax.io import confusions, run_folder, tidy
from kd_jax.models.mlp import MLP
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import Confusion, ResultRow
from kd_jax.train import Config, subliminal, sweep, variables_of
from kd_jax.train.noise import NOISES
from kd_jax.types import Table, Variables

QUESTION = "Does a student learn what its teacher knows from outputs that say nothing about it?"
CENTRED = 0.5  # mean and deviation that bring [0, 1] to [-1, 1]


class Plan(NamedTuple):
    """What is to be done, before anything is computed.

    share: word of --share -> bool[3], which of PARTS; images: what the students of each structure are taught
    on; configs: the training of its teachers; description: what config.json says.
    """

    dataset: data.Dataset
    learning_rate: float
    repeat_noise: bool
    structures: list[Structure]
    settings: list[Setting]
    share: dict[str, np.ndarray]
    images: dict[Structure, Table]
    configs: dict[Structure, Config]
    description: RunDescription


Judged = tuple[list[ResultRow], list[Confusion]]
"""What results.csv and confusions.npz have of some models."""


def run(
    options: RunConfig, lists: Lists, learning_rate: float, repeat_noise: bool, flags: dict[str, Any]
) -> None:
    """Trains, evaluates and reports all models, or goes on where an earlier process stopped.

    flags: all values by name, for config.json.  Errors: InputError.
    """
    plan = make_plan(options, lists, learning_rate, repeat_noise, flags)
    if running.open_run_folder(options.out, plan.description):
        running.finish(options.out, options.tensorboard, "is complete; the report is written again")
        return
    judged: list[Judged] = []
    histories: list[tuple[list[Setting], dict]] = []
    for taught in dict.fromkeys(structure[:3] for structure in plan.structures):
        judged_here, histories_here = train_structures(options, plan, taught)
        judged += judged_here
        histories += histories_here
    write_history(options, plan, histories)
    confusions.write(options.out, [one for _, each in judged for one in each], plan.dataset.num_classes)
    rows = [row for each, _ in judged for row in each]
    run_folder.write_results(options.out, rows)  # last, for it says that the run is complete
    running.finish(options.out, options.tensorboard)


def make_plan(
    options: RunConfig, lists: Lists, learning_rate: float, repeat_noise: bool, flags: dict[str, Any]
) -> Plan:
    """All that the flags ask for. Errors: InputError."""
    parse_numbers("learning_rate", str(learning_rate), positive=True)
    shown = progress.counting("decoding images")
    dataset = data.load(options.dataset, options.data_dir, progress=shown)
    structures = parse_structures(lists, dataset.num_classes)
    settings = parse_settings(lists, options.seeds, structures, dataset.class_names)
    tables = {s: make_data(dataset, s.classes)[0] for s in structures}
    images = {s: images_of(options, dataset, s, table) for s, table in tables.items()}
    configs = {s: make_config(options, dataset, s, table) for s, table in tables.items()}
    every = np.arange(len(dataset.train_labels))
    runs = [
        (setting.name, seed, None if setting.logit_mask is None else seed)
        for setting in settings
        for seed in range(options.seeds)
    ]
    description = provenance.describe(
        flags, dataset, every, every[:0], [setting.info() for setting in settings], runs, question=QUESTION
    )
    share = parse_share(lists.share)
    return Plan(
        dataset, learning_rate, repeat_noise, structures, settings, share, images, configs, description
    )


def make_data(dataset: data.Dataset, classes: int) -> tuple[Table, Table]:
    """Training and test tables of the first classes."""
    tables = []
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        seen = labels < classes
        tables.append(Table(jnp.asarray(images[seen]), jnp.asarray(labels[seen])))
    return tables[0], tables[1]


def make_config(options: RunConfig, dataset: data.Dataset, structure: Structure, table: Table) -> Config:
    """The teachers' training."""
    channels = dataset.train_images.shape[-1]
    normalize = ((CENTRED,) * channels,) * 2
    model_options: dict[str, Any] = {"precision": options.precision, "normalize": normalize}
    model_options["initial"] = "fan_in"
    of_structure = dataclasses.replace(options, model=structure.model)
    config = training.make_config(of_structure, model_options, dataset, len(table.labels), losses.labels_loss)
    model = models.build(structure.model, structure.classes + structure.auxiliary, **model_options)
    if not isinstance(models.network_of(model), MLP):
        raise InputError("subliminal is of fully connected networks", "--model=mlp-256-256", structure.model)
    return dataclasses.replace(config, model=model, num_classes=structure.classes)


def images_of(options: RunConfig, dataset: data.Dataset, structure: Structure, train: Table) -> Table:
    """What this structure's students are taught on; of noise, how many there are."""
    if structure.transfer in (transfer.OWN, *NOISES):
        return train
    return transfer.load_other(structure.transfer, options, dataset).table()


def train_structures(
    options: RunConfig, plan: Plan, taught: tuple[str, int, int]
) -> tuple[list[Judged], list[tuple[list[Setting], dict]]]:
    """What the models of the structures of one kind of teachers come to, and the histories of each program.

    taught: the first three fields of these structures, which make the teachers.
    """
    of_them = [structure for structure in plan.structures if structure[:3] == taught]
    first = of_them[0]
    table, test = make_data(plan.dataset, first.classes)
    teacher, reference = (
        next(s for s in plan.settings if s.structure == first and s.name.startswith(name))
        for name in (TEACHER, REFERENCE)
    )
    config, seeds = plan.configs[first], range(options.seeds)
    variables, history = train_teachers(options, plan, table, teacher)
    histories = [([teacher], history)]
    untrained = sweep.init_states(config, sweep.run_keys(seeds, 1, base=0))
    lost = tidy.diverged_at(history)
    judged = [
        judge(config, [teacher], seeds, variables, test, lost),
        judge(config, [reference], seeds, variables_of(untrained), test, np.zeros_like(lost)),
    ]
    for structure in of_them:
        student_settings = [s for s in plan.settings if s.structure == structure and s.logit_mask is not None]
        students, history = train_students(options, plan, structure, student_settings, variables)
        histories.append((student_settings, history))
        # What such a teacher says is no teacher's answer: its students are left out with it.
        stopped = np.maximum(tidy.diverged_at(history), np.tile(lost, len(student_settings)))
        judged.append(judge(config, student_settings, seeds, students, test, stopped))
    return judged, histories


def train_teachers(options: RunConfig, plan: Plan, table: Table, setting: Setting) -> tuple[Variables, dict]:
    """(variables of all teachers, leading axis S, history); from `out`'s checkpoints where they are there."""
    structure, seeds = setting.structure, range(options.seeds)
    hparams = sweep.stack_runs([hparams_of(structure, setting, plan.learning_rate)], seeds)
    states, history = running.train_runs(
        options, plan.configs[structure], table, None, hparams, sweep.run_keys(seeds, 1, base=0),
        plan.description,
        folder=f"checkpoints/teachers_{plan.structures.index(structure)}",
    )  # fmt: skip
    return sweep.gather(variables_of(states), len(seeds)), history


def train_students(
    options: RunConfig, plan: Plan, structure: Structure, settings: Sequence[Setting], teachers: Variables
) -> tuple[Variables, dict]:
    """(variables of all students, setting-major, on the mesh; history)."""
    seeds = range(options.seeds)
    config = dataclasses.replace(
        plan.configs[structure],
        loss_fn=losses.LOSSES[structure.loss],
        teacher_models=(plan.configs[structure].model,),
        noise=NOISES.get(structure.transfer),
        repeat_noise=plan.repeat_noise,
        has_labels=False,
    )
    table = plan.images[structure].replace(teacher_variables=(teachers,))
    runs = [(setting, seed) for setting in settings for seed in seeds]
    numbers = [hparams_of(structure, setting, plan.learning_rate) for setting in settings]
    hparams = sweep.stack_runs(numbers, seeds, num_teachers=options.seeds)  # each learns from its own
    shared = np.stack([plan.share[setting.share or ""] for setting, _ in runs])
    perturb = np.array([setting.perturb for setting, _ in runs], np.float32)
    starts = subliminal.Start(jnp.asarray(shared), jnp.asarray(perturb))

    def start(config, keys):
        numbers = [seed for _, seed in runs]
        following = [(seed + 1) % options.seeds for seed in numbers]
        initial_keys = [sweep.run_keys(seeds, 1, base=0) for seeds in (numbers, following)]
        return subliminal.student_states(config, keys, initial_keys[0], initial_keys[1], starts)

    states, history = running.train_runs(
        options, config, table, None, hparams, sweep.run_keys(seeds, len(settings), base=1),
        plan.description, start,
        f"checkpoints/students_{plan.structures.index(structure)}",
    )  # fmt: skip
    return variables_of(states), history


def judge(
    config: Config,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    variables: Variables,
    test: Table,
    ends: np.ndarray,
) -> Judged:
    """What the tables have of these settings' models.

    variables: leading axis R, setting-major; ends: the epoch in which each diverged, or 0, i64[R].
    """
    runs = [(setting, seed) for setting in settings for seed in seeds]
    matrices = evaluate.confusions(
        config.model, config.num_classes, variables, test.images, test.labels, len(runs)
    )
    rows: list[ResultRow] = []
    seen: list[Confusion] = []
    for (setting, seed), matrix, end in zip(runs, matrices, ends, strict=True):
        if end:
            rows.append(tidy.diverged_row(setting.name, seed, end))
            continue
        rows += tidy.result_rows(setting.name, seed, "test", "none", matrix, setting.omitted, None)
        seen.append(Confusion(setting.name, seed, "none", matrix))
    return rows, seen


def write_history(
    options: RunConfig, plan: Plan, histories: Sequence[tuple[Sequence[Setting], dict]]
) -> None:
    """history.csv of all programs, its runs numbered as in config.json."""
    numbers = {(run.setting, run.seed): run.run for run in plan.description.runs}
    rows = []
    for settings, history in histories:
        runs = [(setting, seed) for setting in settings for seed in range(options.seeds)]
        named = [setting.name for setting, _ in runs], [seed for _, seed in runs]
        for row in tidy.history_rows(history, *named, [setting.omitted for setting, _ in runs]):
            rows.append(row._replace(run=numbers[row.setting, row.seed]))
    run_folder.write_history(options.out, rows)
