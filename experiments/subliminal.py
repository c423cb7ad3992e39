"""Subliminal learning: students hear their teacher on noise alone, from its initial weights or others'."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.cli import common, progress, running
from experiments.settings import transfer
from experiments.settings.subliminal import (
    REFERENCE,
    TEACHER,
    Setting,
    Structure,
    parse_settings,
    parse_share,
    parse_structures,
)
from kd_jax import data, losses, models
from kd_jax.errors import InputError
from kd_jax.evaluate import evaluate
from kd_jax.io import confusions, run_folder, tidy
from kd_jax.models.mlp import MLP
from kd_jax.stats.rows import Confusion, ResultRow
from kd_jax.train import Config, subliminal, sweep, variables_of
from kd_jax.train.noise import NOISES
from kd_jax.types import HParams, Table, Variables

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
flags.DEFINE_float("learning_rate", 3e-4, "Peak learning rate, of teachers and students.")
flags.DEFINE_string("auxiliary", "3", "Outputs beside those of the classes, comma list.")
flags.DEFINE_string("classes", None, "How many classes, the first ones, there are, comma list (all).")
flags.DEFINE_string(
    "transfers",
    "uniform_noise",
    f"Images that students are taught on, comma list: {', '.join(NOISES)}, own, or a dataset's name.",
)
flags.DEFINE_bool(
    "repeat_noise", False, "Draw the same noise in every epoch, as a stored set of it would be."
)
flags.DEFINE_string("losses", "soft", "soft (KL at T) or logits (half their squared distance), comma list.")
flags.DEFINE_string(
    "logit_mask", "auxiliary,all", "What the loss sees, comma list of auxiliary, classes, all."
)
flags.DEFINE_string(
    "share",
    "all,none",
    "Which initial weights are the teacher's: comma list of all, none, or, joined by +, "
    f"{', '.join(subliminal.PARTS)}.",
)
flags.DEFINE_string(
    "perturb", "0", "Deviation of what is added to a student's initial weights, in theirs, comma list."
)
flags.DEFINE_string("temperatures", "1", "Temperatures T > 0, comma list.")
flags.DEFINE_string("omit", "none", "Class sets left out of the images of --transfers=own, comma list.")

PUBLISHED = {"seeds": 100, "model": "mlp-256-256", "epochs": 5, "batch_size": 1024, "schedule": "constant"}
PUBLISHED |= {"dataset": "mnist", "validation_fraction": 0.0}
"""Defaults of this entry point's own: Cloud et al. 2025, section 6.2 and its code."""

CENTRED = 0.5  # mean and deviation that bring [0, 1] to [-1, 1]


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


def make_config(dataset: data.Dataset, structure: Structure, table: Table) -> Config:
    """The teachers' training."""
    channels = dataset.train_images.shape[-1]
    normalize = ((CENTRED,) * channels,) * 2
    options = {"precision": FLAGS.precision, "normalize": normalize, "initial": "fan_in"}
    config = common.make_config(
        structure.model, options, dataset, len(table.labels), losses.labels_loss
    )  # checks the flags
    model = models.build(structure.model, structure.classes + structure.auxiliary, **options)
    if not isinstance(models.network_of(model), MLP):
        raise InputError("subliminal is of fully connected networks", "--model=mlp-256-256", structure.model)
    return dataclasses.replace(config, model=model, num_classes=structure.classes)


def hparams_of(structure: Structure, setting: Setting, teacher: int) -> HParams:
    """What one run computes with."""
    seen = np.ones(structure.classes + structure.auxiliary, bool)
    if setting.logit_mask == "auxiliary":
        seen[: structure.classes] = False
    if setting.logit_mask in ("classes", None):
        seen[structure.classes :] = False
    own = sweep.make_hparams(
        structure.classes, setting.omitted, FLAGS.learning_rate, 0.0, setting.temperature or 1.0, 1.0
    )
    return own.replace(logit_mask=seen, teacher=np.int32(teacher))


def stack(rows: Sequence[Any]) -> Any:
    """Trees of numbers, one a run, with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def train_teachers(
    config: Config, table: Table, setting: Setting, name: str, out: Path, description: dict
) -> tuple[Variables, dict]:
    """(variables of all teachers, leading axis N, history); from `out`'s checkpoints where they are there."""
    hparams = stack([hparams_of(setting.structure, setting, 0)] * FLAGS.seeds).replace(weight_decay=None)
    keys = sweep.run_keys(range(FLAGS.seeds), 1, base=0)
    states, history = running.train_runs(
        config, table, None, hparams, keys, out, description, folder=f"checkpoints/{name}"
    )
    return sweep.gather(variables_of(states), FLAGS.seeds), history


def train_students(
    config: Config,
    table: Table,
    settings: Sequence[Setting],
    teachers: Variables,
    name: str,
    out: Path,
    description: dict,
) -> tuple[Variables, dict]:
    """(variables of all students, setting-major, on the mesh; history)."""
    structure, seeds = settings[0].structure, range(FLAGS.seeds)
    config = dataclasses.replace(
        config,
        loss_fn=losses.LOSSES[structure.loss],
        teacher_models=(config.model,),
        noise=NOISES.get(structure.transfer),
        repeat_noise=FLAGS.repeat_noise,
        has_labels=False,
    )
    table = table.replace(teacher_variables=(teachers,))
    runs = [(setting, seed) for setting in settings for seed in seeds]
    hparams = stack([hparams_of(structure, *run) for run in runs]).replace(weight_decay=None)
    share = parse_share(FLAGS.share)
    shared = np.stack([share[setting.share or ""] for setting, _ in runs])
    perturb = np.array([setting.perturb for setting, _ in runs], np.float32)
    starts = subliminal.Start(jnp.asarray(shared), jnp.asarray(perturb))

    def start(config, keys):
        own = [seed for _, seed in runs]
        following = [(seed + 1) % FLAGS.seeds for seed in own]
        initial_keys = [sweep.run_keys(numbers, 1, base=0) for numbers in (own, following)]
        return subliminal.student_states(config, keys, initial_keys[0], initial_keys[1], starts)

    keys = sweep.run_keys(seeds, len(settings), base=1)
    states, history = running.train_runs(
        config, table, None, hparams, keys, out, description, start, f"checkpoints/{name}"
    )
    return variables_of(states), history


def images_of(dataset: data.Dataset, structure: Structure, own: Table) -> Table:
    """What this structure's students are taught on; of noise, how many there are."""
    if structure.transfer in (transfer.OWN, *NOISES):
        return own
    return transfer.load_other(structure.transfer, dataset).table()


def main(argv: Sequence[str]) -> None:
    common.refuse_arguments(argv)
    out = common.require_folder("out", "runs/subliminal")
    common.parse_numbers("learning_rate", str(FLAGS.learning_rate), positive=True)
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir, progress=progress.counting("decoding images"))
    structures = parse_structures(dataset.num_classes)
    settings = parse_settings(structures, dataset.class_names)
    images = {s: images_of(dataset, s, make_data(dataset, s.classes)[0]) for s in structures}
    configs = {s: make_config(dataset, s, make_data(dataset, s.classes)[0]) for s in structures}
    every = np.arange(len(dataset.train_labels))
    runs = [(setting, seed) for setting in settings for seed in range(FLAGS.seeds)]
    description = common.describe(dataset, every, every[:0]) | {
        "question": "Does a student learn what its teacher knows from outputs that say nothing about it?",
        "teacher": None,
        "settings": [setting.described() for setting in settings],
        "runs": [
            {
                "run": run,
                "setting": setting.name,
                "seed": seed,
                "teacher_seed": None if setting.logit_mask is None else seed,
            }
            for run, (setting, seed) in enumerate(runs)
        ],
    }
    if running.open_run_folder(out, description):
        running.finish(out, "is complete; the report is written again")
        return
    rows, matrices, histories = [], [], []
    for taught in dict.fromkeys(structure[:3] for structure in structures):
        of_them = [structure for structure in structures if structure[:3] == taught]
        table, test = make_data(dataset, of_them[0].classes)
        teacher, reference = (
            next(s for s in settings if s.structure == of_them[0] and s.name.startswith(name))
            for name in (TEACHER, REFERENCE)
        )
        number = structures.index(of_them[0])
        config = configs[of_them[0]]
        variables, history = train_teachers(config, table, teacher, f"teachers_{number}", out, description)
        histories.append(([teacher], history))
        untrained = sweep.init_states(config, sweep.run_keys(range(FLAGS.seeds), 1, base=0))
        lost = tidy.diverged_at(history)
        judged = [
            judge(config, [teacher], variables, test, lost),
            judge(config, [reference], variables_of(untrained), test, np.zeros_like(lost)),
        ]
        for structure in of_them:
            own = [s for s in settings if s.structure == structure and s.logit_mask is not None]
            name = f"students_{structures.index(structure)}"
            students, history = train_students(
                configs[structure], images[structure], own, variables, name, out, description
            )
            histories.append((own, history))
            # What such a teacher says is no teacher's answer: its students are left out with it.
            stopped = np.maximum(tidy.diverged_at(history), np.tile(lost, len(own)))
            judged.append(judge(config, own, students, test, stopped))
        rows += [row for of_models, _ in judged for row in of_models]
        matrices += [row for _, of_models in judged for row in of_models]
    write_history(out, histories, runs)
    confusions.write(out, matrices, dataset.num_classes)
    run_folder.write_results(out, rows)  # last, for it says that the run is complete
    running.finish(out)


def judge(
    config: Config, settings: Sequence[Setting], variables: Variables, test: Table, ends: np.ndarray
) -> tuple[list[ResultRow], list[Confusion]]:
    """What results.csv and confusions.npz have of these settings' models.

    variables: leading axis R, setting-major; ends: the epoch in which each diverged, or 0, i64[R].
    """
    runs = [(setting, seed) for setting in settings for seed in range(FLAGS.seeds)]
    matrices = evaluate.confusions(
        config.model, config.num_classes, variables, test.images, test.labels, len(runs)
    )
    rows, seen = [], []
    for (setting, seed), matrix, end in zip(runs, matrices, ends, strict=True):
        if end:
            rows.append(tidy.diverged_row(setting.name, seed, end))
            continue
        rows += tidy.result_rows(setting.name, seed, "test", "none", matrix, setting.omitted, None)
        seen.append(Confusion(setting.name, seed, "none", matrix))
    return rows, seen


def write_history(
    out: Path, histories: Sequence[tuple[Sequence[Setting], dict]], runs: Sequence[tuple[Setting, int]]
) -> None:
    """history.csv of all programs, its runs numbered as in config.json."""
    numbers = {(setting.name, seed): run for run, (setting, seed) in enumerate(runs)}
    rows = []
    for settings, history in histories:
        own = [(setting, seed) for setting in settings for seed in range(FLAGS.seeds)]
        named = [setting.name for setting, _ in own], [seed for _, seed in own]
        for row in tidy.history_rows(history, *named, [setting.omitted for setting, _ in own]):
            rows.append(row._replace(run=numbers[row.setting, row.seed]))
    run_folder.write_history(out, rows)


if __name__ == "__main__":
    for flag, default in PUBLISHED.items():
        FLAGS.set_default(flag, default)
    common.run(main, EXAMPLE)
