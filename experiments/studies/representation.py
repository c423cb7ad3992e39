"""Representations: what the features of a run's students hold of a class, in a table and a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.cli import progress
from experiments.cli.parse import parse_class_set
from experiments.reporting import report, text
from experiments.reporting.sections import hidden_signals
from experiments.settings import dataset as datasets
from experiments.settings import teachers, transfer
from experiments.settings.students import num_ensembles
from experiments.settings.training import require_hidden_layer
from kd_jax import data, models
from kd_jax.data import Dataset, synthetic
from kd_jax.errors import InputError
from kd_jax.evaluate import representation
from kd_jax.io import checkpoint, run_config, run_files, run_folder
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import RANDOM, RepresentationRow
from kd_jax.train import sweep
from kd_jax.train.keys import INIT
from kd_jax.types import Variables


class Student(NamedTuple):
    """One network to look at; omitted: the classes it is asked about."""

    setting: str
    seed: int
    teacher_seed: int | None
    omitted: tuple[int, ...]
    variables: Variables


class Synthesised(NamedTuple):
    """Training images of the transfer set that were made from teachers: images u8[N,h,w,c], labels i32[N],
    made_by i32[N], the number of the teacher; num_teachers: how many made them."""

    images: np.ndarray
    labels: np.ndarray
    made_by: np.ndarray
    num_teachers: int


class Study(NamedTuple):
    """A run as it lies in its folder. synthesised: None where its transfer set has none."""

    folder: Path
    description: RunDescription
    dataset: Dataset
    model: Any
    students: list[Student]
    teacher: teachers.Teachers | None
    validation: np.ndarray
    synthesised: Synthesised | None


Splits = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name -> (images u8[N,h,w,c], labels i32[N])."""


def run(folder: Path, data_dir: str | None, of: str | None, num_examples: int, num_layers: int) -> None:
    """Writes representation.csv and the picture of a run folder, and its report again.

    data_dir: of prepared TFDS datasets.  of: the classes to look for; None: those that the run leaves out.
    num_examples: of each split, and of the synthesised images, at most.  num_layers: hidden layers, the last
    ones.  Errors: InputError.
    """
    study = read(folder, data_dir, of)
    splits = examples_of(study, num_examples)
    rows, last = [], {}
    shown = progress.counting("networks looked at")
    for number, student in enumerate(study.students, 1):
        given = splits | synthesised_of(study, student, num_examples)
        rows_of_student, features = analyze_student(study, student, given, num_layers)
        rows += rows_of_student
        if student.seed == study.students[0].seed:
            last[student.setting] = (student, features)
        shown(number, len(study.students))
    run_folder.write_representation(study.folder, rows)
    run_files.write(study.folder / hidden_signals.FIGURE, picture(study, last, splits["test"][1]))
    answer = report.build(study.folder)
    print("\n".join([*text.section_lines(hidden_signals.read_off(study.folder)), answer.splitlines()[-1]]))


def read(folder: Path, data_dir: str | None, of: str | None) -> Study:
    """The students, and their own networks before training. Errors: InputError for what is not there."""
    config = run_config.read(folder)
    if config.experiment != "distill":
        raise InputError(f"{folder} holds no students", "a run of distill", config.experiment)
    stacked, metadata = checkpoint.load(folder / "students")
    dataset = datasets.load_as(config.data.name, data_dir, config.flags)
    if dataset.fingerprint != config.data.fingerprint:
        expected = f"the data that it was trained on ({config.data.fingerprint[:12]})"
        raise InputError(f"{folder} is of other data", expected, dataset.fingerprint[:12])
    _, validation = data.split_training(dataset, config.flags["validation_fraction"])
    if len(validation) == 0:
        expected = "a run with a validation split, on which probes are fitted"
        raise InputError(f"{folder} cannot be probed", expected, "--validation_fraction=0")
    model = models.build(metadata["model"], dataset.num_classes, **metadata["model_options"])
    require_hidden_layer(str(folder), metadata["model"], model, dataset.train_images.shape[1:])
    teacher = None
    about = config.teacher
    if about is not None and "members" not in about:
        teacher = teachers.load(
            about["path"], about.get("setting"), about["teacher_seeds"], dataset, validation
        )
        if teacher.info.sha256 != about["sha256"]:
            raise InputError(f"{about['path']} is another teacher now", about["sha256"][:12], "another")
    students = list(students_of(config, dataset, model, stacked, metadata, of))
    synthesised = read_synthesised(config, data_dir)
    return Study(folder, config, dataset, model, students, teacher, validation, synthesised)


def read_synthesised(description: RunDescription, data_dir: str | None) -> Synthesised | None:
    """The images of --transfer that were made from teachers; None of others. Errors: InputError."""
    about = description.transfer or {}
    if not about.get("origin"):
        return None
    path = str(description.flags["transfer"]).removeprefix(transfer.MIXED)
    made, origin = data.load(path, data_dir), synthetic.read_origin(path)
    if origin is None or made.fingerprint != about["fingerprint"]:
        raise InputError(f"{path} holds other images now", about["fingerprint"][:12], made.fingerprint[:12])
    return Synthesised(made.train_images, made.train_labels, origin.made_by, origin.num_teachers)


def students_of(
    description: RunDescription,
    dataset: Dataset,
    model: Any,
    stacked: Variables,
    metadata: dict,
    of: str | None,
) -> Iterator[Student]:
    """The untrained networks, then the students that did not diverge."""
    if of is not None:
        asked = parse_class_set("of", of, dataset.class_names)
        if len(asked) >= dataset.num_classes:
            raise InputError("--of names every class", "some of them: the others are compared with it", of)
    else:
        sets = sorted({setting.omitted for setting in description.settings if setting.omitted})
        if len(sets) > 1:
            raise InputError("the run leaves out several sets of classes", "--of=3, one of them", len(sets))
        asked = sets[0] if sets else ()
    if not asked or len(asked) >= dataset.num_classes:
        raise InputError("no class to look for", "--of=3, for the run leaves none out", "nothing")
    seeds = sorted(description.seeds())
    keys = sweep.run_keys(seeds, 1, int(metadata.get("generation", 1)))
    for seed, key in zip(seeds, keys, strict=True):
        fresh = models.init_variables(model, jax.random.fold_in(key, INIT), dataset.train_images.shape[1:])
        yield Student(RANDOM, seed, None, asked, fresh)
    for run in description.runs:
        if run.run in metadata.get("diverged", []):
            continue
        variables = jax.tree.map(lambda leaf, number=run.run: leaf[number], stacked)
        yield Student(run.setting, run.seed, run.teacher_seed, asked, variables)


def examples_of(study: Study, most: int) -> Splits:
    """At most so many of the validation and the test split, at random: (images, labels)."""
    dataset, random = study.dataset, np.random.RandomState(0)  # folders come class by class
    held_out = random.permutation(study.validation)[:most]
    test = random.permutation(len(dataset.test_labels))[:most]
    return {
        "validation": (dataset.train_images[held_out], dataset.train_labels[held_out]),
        "test": (dataset.test_images[test], dataset.test_labels[test]),
    }


def synthesised_of(study: Study, student: Student, most: int) -> Splits:
    """The first synthesised images of its classes that a student of this seed is given, as the split
    "synthesised"; nothing where there is none."""
    made = study.synthesised
    if made is None:
        return {}
    mine = np.isin(made.labels, student.omitted)
    teacher_seed = {run.seed: run.teacher_seed for run in study.description.runs}[student.seed]
    if made.num_teachers > 1 and teacher_seed is not None:  # an ensemble's students are given all
        mine &= made.made_by == teacher_seed
    chosen = np.flatnonzero(mine)[:most]
    return {"synthesised": (made.images[chosen], made.labels[chosen])} if len(chosen) else {}


def analyze_student(
    study: Study, student: Student, splits: Splits, num_layers: int
) -> tuple[list[RepresentationRow], dict[str, np.ndarray]]:
    """(its rows, its last hidden features of the images of each split)."""
    found = {
        split: representation.features_of(study.model, student.variables, images)
        for split, (images, _) in splits.items()
    }
    fitted_on, judged_on = found["validation"], found["test"]
    labels, test_labels = splits["validation"][1], splits["test"][1]
    member = np.isin(test_labels, student.omitted)
    fitted_member = np.isin(labels, student.omitted)
    if any(not part.any() or part.all() for part in (member, fitted_member)):
        expected = "some of the class and some others in each split"
        raise InputError("too few examples", expected, f"{len(labels)} and {len(test_labels)}")
    layers = list(judged_on)[:-1][-num_layers:]
    of_teacher = {
        split: list(teacher_features(study, student, splits[split][0]).values())[:-1]
        for split in splits
        if split != "validation"
    }
    rows: list[RepresentationRow] = []

    def add(layer: str, measure: str, values: dict[str, float]) -> None:
        for classes, value in values.items():
            rows.append(
                RepresentationRow(student.setting, student.seed, layer, measure, classes, float(value))
            )

    for depth, layer in enumerate(reversed(layers), 1):
        x, y = fitted_on[layer], judged_on[layer]
        probe, num_classes = representation.fit_probe(x, labels), study.dataset.num_classes
        for measure, recall in (
            ("probe", representation.recalls(probe(y), test_labels, num_classes)),
            ("neighbours", representation.nearest_neighbours(x, labels, y, test_labels, num_classes)),
        ):
            add(layer, measure, by_part(recall, student.omitted))
        if depth <= len(of_teacher["test"]):
            theirs = of_teacher["test"][-depth]
            parts = dict(zip(("omitted", "seen"), representation.equal_samples(member), strict=True))
            add(
                layer,
                "cka",
                {name: representation.linear_cka(y[part], theirs[part]) for name, part in parts.items()},
            )
        for measure, value in representation.separability(y, member).items():
            add(layer, measure, {"omitted": value})
        if "synthesised" in splits:
            made, of_made = found["synthesised"][layer], splits["synthesised"][1]
            add(layer, "probe_synthesised", {"omitted": mean_recall(probe(made), of_made)})
            if depth <= len(of_teacher["test"]):
                similarity = representation.linear_cka(made, of_teacher["synthesised"][-depth])
                add(layer, "cka_synthesised", {"omitted": similarity})
            distance = distance_of_groups(made, y[np.isin(test_labels, of_made)])
            add(layer, "centroid_distance_synthesised", {"omitted": distance})
    return rows, {split: features[layers[-1]] for split, features in found.items()}


def mean_recall(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean recall of the classes that have examples.  predicted, labels: i32[N]."""
    return float(np.nanmean(representation.recalls(predicted, labels, labels.max() + 1)))


def distance_of_groups(one: np.ndarray, other: np.ndarray) -> float:
    """`representation.centroid_distance` of features f32[N,D] and f32[M,D]."""
    first = np.arange(len(one) + len(other)) < len(one)
    return representation.centroid_distance(np.concatenate([one, other]), first)


def by_part(recall: np.ndarray, omitted: Sequence[int]) -> dict[str, float]:
    """Mean recall of the classes of each part, where they have examples."""
    absent = np.isin(np.arange(len(recall)), omitted)
    return {
        name: float(np.nanmean(recall[part])) if np.any(~np.isnan(recall[part])) else float("nan")
        for name, part in (("omitted", absent), ("seen", ~absent))
    }


def teacher_features(study: Study, student: Student, images: np.ndarray) -> dict[str, np.ndarray]:
    """Of the teacher that this student learns from; the first one's where there is none or several."""
    if study.teacher is None:
        return {}
    (model, *_), (variables, *_) = study.teacher.models, study.teacher.variables
    number = student.teacher_seed
    if number is None:
        number = student.seed % num_ensembles(study.teacher)
    return representation.features_of(model, jax.tree.map(lambda leaf: leaf[number], variables), images)


def picture(study: Study, last: dict[str, tuple[Student, dict]], labels: np.ndarray) -> bytes:
    """PCA and t-SNE of the first seed's networks, side by side, as a PNG. Of the synthesised images as many
    as there are real ones of the class, and at most a quarter of what is shown.

    last: of each setting the student, and its features of each split.  labels: of the test images.
    """
    from kd_jax import plots

    places, most = [], representation.MOST_FOR_DISTANCES // 4
    for setting, (student, features) in last.items():
        member = np.isin(labels, student.omitted)
        made = features.get("synthesised", features["test"][:0])[: min(member.sum(), most)]
        shown = np.concatenate([made, features["test"]])  # the first of which are embedded
        groups = np.concatenate([np.full(len(made), 2), member.astype(int)])
        for how in ("pca", "tsne"):
            points = representation.embed(shown, how)
            places.append((setting, how, points, groups[: len(points)]))
    names = study.description.data.class_names
    asked = " + ".join(names[k] for k in study.students[0].omitted)
    return plots.render(plots.features(places, asked))
