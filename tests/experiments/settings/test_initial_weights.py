"""--student_init=teacher: a student starts from its teacher's initial weights, to the bit."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.settings import students, teachers
from experiments.settings.teachers import TeacherInfo, Teachers
from kd_jax import losses, models, train
from kd_jax.errors import InputError
from kd_jax.train import sweep

CONFIG = train.make_config(models.build("mlp-3", 2), (8, 2, 2, 1), losses.labels_loss, 1)


def as_teachers(keys: jax.Array, about: dict) -> Teachers:
    """Networks before their first epoch, with the initial weights of these keys."""
    variables = sweep.gather(train.variables_of(sweep.init_states(CONFIG, keys)), len(keys))
    known = {"path": "folder", "sha256": "0", "model": "mlp-3", "flags": {}, "num_teachers": len(keys)}
    known |= {"class_mask": (True, True), "saw_validation": False} | about
    return Teachers((CONFIG.model,), (variables,), False, TeacherInfo(**known))


def students_of(theirs: Teachers, num: int, initial: str | None, recorded: dict | None = None) -> Teachers:
    """`num` students of these teachers, described as `teachers.load` would describe them.

    recorded: what their run says of the teachers, if not what this version says.
    """
    name, base = f"T=4 student_init={initial}" if initial else "T=4", students.generation(theirs)
    metadata = {
        "settings": [{"name": name, "omitted": []} | ({"student_init": initial} if initial else {})],
        "runs": [{"run": seed, "setting": name, "seed": seed} for seed in range(num)],
        "generation": base,
        "teacher": recorded or theirs.info.to_json(),
    }
    _, about = teachers._choose_students("folder", None, metadata, 2)
    if initial is None:
        return as_teachers(sweep.run_keys(range(num), 1, base), about)
    students.require_same_shapes(theirs, "mlp-3", CONFIG)
    return as_teachers(students.initial_keys(theirs, range(num)), about)


def largest_difference(own: Teachers, theirs: Teachers) -> float:
    """Between each student's weights and those of its own teacher, by seed."""
    numbers = np.arange(own.info.num_teachers) % theirs.info.num_teachers
    pairs = zip(jax.tree.leaves(own.variables), jax.tree.leaves(theirs.variables), strict=True)
    return max(np.abs(ours - of_teachers[numbers]).max() for ours, of_teachers in pairs)


def test_students_in_a_chain_begin_as_their_teachers_did():
    """Each generation is as its teachers were, also where these drew their own weights."""
    first = as_teachers(sweep.run_keys(range(3), 1, 0), {})
    for words in (["teacher"] * 3, [None, "teacher", "teacher"], ["teacher", None, "teacher"]):
        chain = [first]
        for num, initial in zip((5, 7, 2), words, strict=True):
            chain.append(students_of(chain[-1], num, initial))
            difference = largest_difference(chain[-1], chain[-2])
            assert difference == 0 if initial else difference > 0.1


def test_a_teacher_of_which_it_is_not_recorded_how_it_began_is_refused():
    """Written before the chain was followed: what such a teacher began with is known by no key."""
    first = as_teachers(sweep.run_keys(range(2), 1, 0), {})
    older = students_of(first, 2, "teacher")
    recorded = older.info.to_json()
    del recorded["student_init"]
    second = students_of(older, 2, None, recorded)
    assert (
        largest_difference(students_of(second, 2, "teacher"), second) == 0
    )  # the older one has no part in it
    second = second._replace(info=dataclasses.replace(second.info, student_init="teacher"))
    with pytest.raises(InputError, match=r"in a chain of an older version: expected .*; given folder"):
        students.require_same_shapes(second, "mlp-3", CONFIG)
