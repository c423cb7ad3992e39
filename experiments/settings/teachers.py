"""Whom students learn from: the folders that --teacher names, each one verified and matched with the data.

A folder holds a group, M models of one structure that differ by their seed: teachers (train_teacher), or the
students of one setting of an earlier distillation. Of each group a student hears one member, or all; those
that it hears are its ensemble. Its target is the mean of their probabilities, or with --loss=logits of their
logits.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.settings.dataset import split_hash
from kd_jax import models
from kd_jax.data import Dataset
from kd_jax.errors import InputError, nearest_name, nearest_path
from kd_jax.io import checkpoint
from kd_jax.train.counts import all_finite
from kd_jax.types import Variables


@dataclass(frozen=True)
class Choice:
    """The values of the flags that choose teachers, by the names of the flags."""

    teacher: str | None
    teacher_setting: str | None
    teacher_seeds: str


class Teachers(NamedTuple):
    """models: the module of each group; variables: of each group, leading axis M; average: whether a student
    hears all members, not one of each group; description: what config.json says of them."""

    models: tuple[Any, ...]
    variables: tuple[Variables, ...]
    average: bool
    description: dict


def load_for(loss: str, choice: Choice, dataset: Dataset, validation: np.ndarray) -> Teachers | None:
    """The chosen teachers; None where the loss needs none.  validation: indices of the split."""
    if loss == "labels":
        if choice.teacher:
            expected = "no --teacher, or --loss=soft --alphas=0 for plain students beside a teacher"
            given = f"--teacher={choice.teacher}"
            raise InputError("--loss=labels has no use for a teacher", expected, given)
        return None
    if not choice.teacher:
        expected = "--teacher=runs/teacher, or --loss=labels for students without one"
        raise InputError("--teacher is missing", expected, "nothing")
    return load(choice.teacher, choice.teacher_setting, choice.teacher_seeds, dataset, validation)


def load(words: str, setting: str | None, seeds: str, dataset: Dataset, validation: np.ndarray) -> Teachers:
    """The teachers of the folders in `words`, a comma list.

    Args:
        setting: of the folders of students, the setting that teaches; None where each has but one.
        seeds: how a student's ensemble is chosen: "paired", "first" or "ensemble".
        validation: indices of the students' validation split.
    Errors: InputError for a folder that holds no whole teacher of this dataset, or one that comes twice.
    """
    groups = [_load_group(path, setting, dataset, validation) for path in split_paths(words)]
    if setting is not None and not any("setting" in about for *_, about in groups):
        expected = "a folder of students in --teacher, or no --teacher_setting"
        raise InputError("--teacher_setting means nothing here", expected, words)
    trees = tuple(variables for _, variables, _ in groups)
    if seeds == "first":
        trees = tuple(jax.tree.map(lambda leaf: leaf[:1], tree) for tree in trees)
    abouts = [
        about | {"num_teachers": group_size(tree), "teacher_seeds": seeds}
        for (*_, about), tree in zip(groups, trees, strict=True)
    ]
    _check_together(abouts)
    description = abouts[0] if len(abouts) == 1 else _describe_several(words, seeds, abouts)
    return Teachers(tuple(model for model, *_ in groups), trees, seeds == "ensemble", description)


def split_paths(words: str) -> list[str]:
    """The folders of a comma list. A folder may have a comma in its name where the list names no others."""
    paths = [path.strip() for path in words.split(",")]
    if not all(paths):
        raise InputError("malformed --teacher", "folders separated by commas", repr(words))
    if len(paths) == 1 or not os.path.isdir(os.path.expanduser(words)):
        return paths
    if any(os.path.isdir(os.path.expanduser(path)) for path in paths):
        expected = f"{words!r}, a folder itself, under a name without a comma"
        raise InputError("--teacher has two meanings", expected, words)
    return [words]


def _check_together(members: list[dict]) -> None:
    """Refuses groups that cannot teach together.  members: their descriptions."""
    for number, about in enumerate(members):
        if about["sha256"] in [other["sha256"] for other in members[:number]]:
            raise InputError("--teacher names a teacher twice", "each once", about["path"])
    # Else two students would share some of their teachers, not all: their luck would be neither one nor two.
    if len({about["num_teachers"] for about in members}) > 1 and members[0]["teacher_seeds"] == "paired":
        expected = "equally many in each folder, or --teacher_seeds=first or ensemble"
        given = ", ".join(f"{about['num_teachers']} in {about['path']}" for about in members)
        raise InputError("teachers cannot be paired with seeds", expected, given)


def group_size(variables: Variables) -> int:
    """M, of a group's variables."""
    return int(jax.tree.leaves(variables)[0].shape[0])


def _describe_several(words: str, seeds: str, members: list[dict]) -> dict:
    """What config.json says of several groups: what holds for all of them, then each."""
    together = "".join(about["sha256"] for about in members)
    masks = [about["class_mask"] for about in members]
    return {
        "path": words,
        "sha256": hashlib.sha256(together.encode()).hexdigest(),
        "model": ", ".join(about["model"] for about in members),
        "num_teachers": sum(about["num_teachers"] for about in members),
        "teacher_seeds": seeds,
        "class_mask": [any(seen) for seen in zip(*masks, strict=True)],
        "saw_validation": any(about["saw_validation"] for about in members),
        "generation": max(about.get("generation", 0) for about in members),
        "members": members,
    }


def _load_group(
    path: str, setting: str | None, dataset: Dataset, validation: np.ndarray
) -> tuple[Any, Variables, dict]:
    """(module, variables with leading axis M, description) of one folder."""
    parent = Path(os.path.expanduser(path))
    folder = parent / "teachers"
    if not folder.is_dir():
        folder = parent / "students"
    if not folder.is_dir():
        expected = "a run folder of train_teacher or distill that is complete, as runs/quickstart_teacher"
        raise InputError("no teacher", expected, path + ("" if parent.exists() else nearest_path(path)))
    try:
        variables, metadata = checkpoint.load(folder)
        _check_data(folder, metadata, dataset)
        model = models.build(metadata["model"], dataset.num_classes, **metadata["model_options"])
        judged = len(validation) > 0
        about = {
            "path": path,
            "sha256": checkpoint.read_manifest(folder)[1],
            "model": metadata["model"],
            # Also where the teacher does not say what it was trained on.
            "saw_validation": judged and metadata.get("validation_split") != split_hash(validation),
            "flags": metadata["flags"],
        }
        numbers = np.arange(group_size(variables))
        if folder.name == "students":
            numbers, of_students = _choose_students(path, setting, metadata, dataset.num_classes)
            variables = jax.tree.map(lambda leaf: leaf[numbers], variables)
            # What a teacher's teacher was trained on reaches it through its targets.
            learnt = (of_students["teacher"] or {}).get("saw_validation", False)
            about |= of_students | {"saw_validation": judged and (about["saw_validation"] or bool(learnt))}
        else:
            about["class_mask"] = [bool(seen) for seen in metadata["class_mask"]]
            if len(about["class_mask"]) != dataset.num_classes:
                raise ValueError(f"a class mask of {len(about['class_mask'])} classes")
        _check_arrays(folder, metadata["model"], model, variables, dataset.train_images.shape[1:])
        _refuse_diverged(path, variables, np.isin(numbers, metadata.get("diverged", [])))
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        # The arrays have their hashes: it is the metadata that do not say what they should.
        expected = f"{folder / 'manifest.json'} as it was written"
        raise InputError("damaged teacher", expected, repr(error)) from None
    return model, variables, about


def _refuse_diverged(path: str, variables: Variables, stopped: np.ndarray) -> None:
    """Refuses teachers of which one is not what its training was to make of it.  stopped: of M, bool[M]."""
    lost = np.flatnonzero(stopped | ~np.asarray(jax.vmap(all_finite)(variables)))
    if len(lost):
        expected = "one whose training stayed finite, as a lower learning rate makes it"
        given = f"of {len(stopped)}, number {', '.join(map(str, lost))} did not"
        raise InputError(f"--teacher={path} diverged", expected, given)


def _check_data(folder: Path, metadata: dict, dataset: Dataset) -> None:
    """Refuses a teacher of other data."""
    data, own = metadata["data"], dataset.train_images.shape[1:]
    saw = tuple(metadata.get("image_shape", own))
    if data["name"] == dataset.name and saw != own:
        there, here = ("x".join(map(str, shape)) for shape in (saw, own))
        raise InputError("teacher of images of another size", f"{there}, by --image_size", here)
    if data["fingerprint"] != dataset.fingerprint:
        expected = f"one of {dataset.name} ({dataset.fingerprint[:12]})"
        theirs = f"{data['name']} ({data['fingerprint'][:12]})"
        if data["name"] == dataset.name:
            theirs += ": the data have changed since, or came from elsewhere; train a teacher on them"
        other = f"; --dataset={data['name']} is the teacher's" if data["name"] != dataset.name else ""
        raise InputError("teacher of another dataset", expected, theirs + other)
    if data["num_classes"] != dataset.num_classes:
        expected = f"{dataset.num_classes}, as {dataset.name} has, in {folder / 'manifest.json'}"
        raise InputError("teacher with another number of classes", expected, data["num_classes"])


def _check_arrays(folder: Path, spec: str, model: Any, variables: Variables, image_shape: tuple) -> None:
    """Refuses arrays that are not those of M networks of this structure for images of this shape."""
    init = partial(models.init_variables, model, image_shape=image_shape)
    shapes = jax.tree.map(lambda leaf: leaf.shape, dict(jax.eval_shape(init, jax.random.key(0))))
    own = jax.tree.map(lambda leaf: leaf.shape, variables)
    as_paths = lambda tree: {  # noqa: E731
        jax.tree_util.keystr(path, simple=True, separator="/"): shape
        for path, shape in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))
    }
    expected, found = as_paths(shapes), as_paths(own)
    size = len(next(iter(jax.tree.leaves(variables)), ()))
    for name in sorted(expected | found):
        given = found.get(name, "nothing")
        if name not in expected or size == 0 or given != (size, *expected[name]):
            what = f"{folder}: arrays that fit {spec} for images of {'x'.join(map(str, image_shape))}"
            raise InputError("damaged teacher", what, f"{name} of shape {given}")


def _choose_students(
    path: str, setting: str | None, metadata: dict, num_classes: int
) -> tuple[np.ndarray, dict]:
    """(runs of the setting that teaches, what is to be said of them beside what is said of any teacher)."""
    by_name = {one["name"]: one for one in metadata["settings"]}
    names = ", ".join(map(repr, by_name))
    if setting is None and len(by_name) > 1:
        expected = f"--teacher_setting=NAME, one of {names}"
        raise InputError(f"--teacher={path} holds students of several settings", expected, "nothing")
    name = next(iter(by_name)) if setting is None else setting
    if name not in by_name:
        raise InputError(
            f"--teacher={path} has no such setting",
            f"one of {names}",
            repr(setting) + nearest_name(name, by_name),
        )
    omitted = by_name[name]["omitted"]
    runs = [
        run["run"] for run in sorted(metadata["runs"], key=lambda run: run["seed"]) if run["setting"] == name
    ]
    return np.asarray(runs, np.int32), {
        "class_mask": [label not in omitted for label in range(num_classes)],
        "setting": name,
        "student_init": by_name[name].get("student_init"),
        "generation": int(metadata.get("generation", 1)),
        "teacher": metadata["teacher"],
    }
