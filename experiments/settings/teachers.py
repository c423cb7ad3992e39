"""Whom students learn from: the folders that --teacher names, each one verified and matched with the data.

A folder holds a group, M models of one structure that differ by their seed: teachers (train_teacher), or the
students of one setting of an earlier distillation. Of each group a student learns from one member, or all;
those are its ensemble. Its target is the mean of their probabilities, or with --loss=logits of their logits.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
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
class TeacherInfo:
    """What is known of a group of teachers, or of several groups together, which are then its members.

    path: as it was given.  sha256: of the manifest, or of the members' ones.  class_mask: [K], whether its
    training saw the class.  saw_validation: whether it, or one that it learnt from, was trained on the
    students' validation split.  num_teachers: M.  teacher_seeds: how a student's ensemble is chosen.
    flags: of its training; None of several groups.  generation: distillations between it and the labels.
    setting, student_init, teacher: of students that teach: their setting, and of that as in `Setting` and in
    their own run's config.json.
    """

    path: str
    sha256: str
    model: str
    class_mask: tuple[bool, ...]
    saw_validation: bool
    num_teachers: int
    teacher_seeds: str = "paired"
    flags: dict[str, Any] | None = None
    generation: int = 0
    setting: str | None = None
    student_init: str | None = None
    teacher: dict[str, Any] | None = None
    members: tuple["TeacherInfo", ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its entry in config.json, with what means something for this kind of teacher."""
        hidden = {"flags"} if self.members else {"members"}
        if self.setting is None:
            hidden |= {"setting", "student_init", "teacher"} | (set() if self.members else {"generation"})
        entry = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in hidden}
        if self.members:
            entry["members"] = [member.to_json() for member in self.members]
        return entry | {"class_mask": list(self.class_mask)}


class Teachers(NamedTuple):
    """models: the module of each group; variables: of each group, leading axis M; average: whether a student
    learns from all members, not from one of each group; info: what is known of them."""

    models: tuple[Any, ...]
    variables: tuple[Variables, ...]
    average: bool
    info: TeacherInfo


def load_for(
    loss: str,
    needed: bool,
    words: str | None,
    setting: str | None,
    seeds: str,
    dataset: Dataset,
    validation: np.ndarray,
) -> Teachers | None:
    """The teachers that the losses need, as `load` gives them; None where none needs one.

    loss: the words of the flag. needed: whether any loss reads a teacher.
    """
    if not needed:
        if words:
            expected = "no --teacher, or --loss=soft --alphas=0 for plain students beside a teacher"
            given = f"--teacher={words}"
            raise InputError(f"--loss={loss} has no use for a teacher", expected, given)
        return None
    if not words:
        expected = "--teacher=runs/teacher, or --loss=labels for students without one"
        raise InputError("--teacher is missing", expected, "nothing")
    return load(words, setting, seeds, dataset, validation)


def load(words: str, setting: str | None, seeds: str, dataset: Dataset, validation: np.ndarray) -> Teachers:
    """The teachers of the folders in `words`, a comma list.

    Args:
        setting: of the folders of students, the setting that teaches; None where each has but one.
        seeds: how a student's ensemble is chosen: "paired", "first" or "ensemble".
        validation: indices of the students' validation split.
    Errors: InputError for a folder that holds no whole teacher of this dataset, or one that comes twice.
    """
    groups = [_load_group(path, setting, dataset, validation) for path in split_paths(words)]
    if setting is not None and all(info.setting is None for *_, info in groups):
        expected = "a folder of students in --teacher, or no --teacher_setting"
        raise InputError("--teacher_setting means nothing here", expected, words)
    trees = tuple(variables for _, variables, _ in groups)
    if seeds == "first":
        trees = tuple(jax.tree.map(lambda leaf: leaf[:1], tree) for tree in trees)
    infos = [
        replace(info, num_teachers=group_size(tree), teacher_seeds=seeds)
        for (*_, info), tree in zip(groups, trees, strict=True)
    ]
    _check_together(infos)
    info = infos[0] if len(infos) == 1 else _info_of_several(words, seeds, infos)
    return Teachers(tuple(model for model, *_ in groups), trees, seeds == "ensemble", info)


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


def _check_together(members: list[TeacherInfo]) -> None:
    """Refuses groups that cannot teach together."""
    for number, info in enumerate(members):
        if info.sha256 in [other.sha256 for other in members[:number]]:
            raise InputError("--teacher names a teacher twice", "each once", info.path)
    # Else two students would share some of their teachers, not all: neither one unit nor two.
    if len({info.num_teachers for info in members}) > 1 and members[0].teacher_seeds == "paired":
        expected = "equally many in each folder, or --teacher_seeds=first or ensemble"
        given = ", ".join(f"{info.num_teachers} in {info.path}" for info in members)
        raise InputError("teachers cannot be paired with seeds", expected, given)


def group_size(variables: Variables) -> int:
    """M, of a group's variables."""
    return int(jax.tree.leaves(variables)[0].shape[0])


def _info_of_several(words: str, seeds: str, members: list[TeacherInfo]) -> TeacherInfo:
    """What holds for several groups together."""
    together = "".join(info.sha256 for info in members)
    masks = [info.class_mask for info in members]
    return TeacherInfo(
        path=words,
        sha256=hashlib.sha256(together.encode()).hexdigest(),
        model=", ".join(info.model for info in members),
        class_mask=tuple(any(seen) for seen in zip(*masks, strict=True)),
        saw_validation=any(info.saw_validation for info in members),
        num_teachers=sum(info.num_teachers for info in members),
        teacher_seeds=seeds,
        generation=max(info.generation for info in members),
        members=tuple(members),
    )


def _load_group(
    path: str, setting: str | None, dataset: Dataset, validation: np.ndarray
) -> tuple[Any, Variables, TeacherInfo]:
    """(module, variables with leading axis M, what is known) of one folder."""
    parent = Path(os.path.expanduser(path))
    folder = parent / "teachers"
    if not folder.is_dir():
        folder = parent / "students"
    if not folder.is_dir():
        expected = "a run folder of train_teacher or distill that is complete, as runs/quickstart_teacher"
        raise InputError("no teacher", expected, path + ("" if parent.exists() else nearest_path(path)))
    with checkpoint.refuse_damaged("teacher", folder):
        variables, metadata = checkpoint.load(folder)
        _check_data(folder, metadata, dataset)
        model = models.build(metadata["model"], dataset.num_classes, **metadata["model_options"])
        # Also where the teacher does not say what it was trained on.
        saw = metadata.get("validation_split") != split_hash(validation)
        numbers = np.arange(group_size(variables))
        if folder.name == "students":
            numbers, more = _choose_students(path, setting, metadata, dataset.num_classes)
            variables = jax.tree.map(lambda leaf: leaf[numbers], variables)
            # What a teacher's teacher was trained on reaches it through its targets.
            saw |= bool((more["teacher"] or {}).get("saw_validation", False))
        else:
            more = {"class_mask": tuple(bool(seen) for seen in metadata["class_mask"])}
            if len(more["class_mask"]) != dataset.num_classes:
                raise ValueError(f"a class mask of {len(more['class_mask'])} classes")
        info = TeacherInfo(
            path=path,
            sha256=checkpoint.read_manifest(folder)[1],
            model=metadata["model"],
            saw_validation=saw and len(validation) > 0,
            num_teachers=len(numbers),
            flags=metadata["flags"],
            **more,
        )
        check_arrays(folder, metadata["model"], model, variables, dataset.train_images.shape[1:])
        refuse_diverged(path, variables, np.isin(numbers, metadata.get("diverged", [])))
    return model, variables, info


def refuse_diverged(path: str, variables: Variables, stopped: np.ndarray) -> None:
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


def check_arrays(folder: Path, spec: str, model: Any, variables: Variables, image_shape: tuple) -> None:
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


def choose_setting(holder: str, flag: str, name: str | None, names: Sequence[str]) -> str:
    """The setting of that name, or the only one there is.

    holder: what has these settings, and flag: which names one, for the errors.  Errors: InputError.
    """
    listed = ", ".join(map(repr, names))
    if name is None and len(names) > 1:
        raise InputError(
            f"{holder} holds students of several settings", f"{flag}=NAME, one of {listed}", "nothing"
        )
    name = names[0] if name is None else name
    if name not in names:
        what = f"{holder} has no such setting"
        raise InputError(what, f"one of {listed}", repr(name) + nearest_name(name, names))
    return name


def _choose_students(
    path: str, setting: str | None, metadata: dict, num_classes: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """(runs of the setting that teaches, the fields of TeacherInfo that come from the setting)."""
    by_name = {one["name"]: one for one in metadata["settings"]}
    name = choose_setting(f"--teacher={path}", "--teacher_setting", setting, list(by_name))
    omitted = by_name[name]["omitted"]
    runs = [
        run["run"] for run in sorted(metadata["runs"], key=lambda run: run["seed"]) if run["setting"] == name
    ]
    return np.asarray(runs, np.int32), {
        "class_mask": tuple(label not in omitted for label in range(num_classes)),
        "setting": name,
        "student_init": by_name[name].get("student_init"),
        "generation": int(metadata.get("generation", 1)),
        "teacher": metadata["teacher"],
    }
