"""A file of synthesised images: read as a dataset and with its origin; what is damaged is refused."""

import json

import numpy as np
import pytest

from kd_jax import data
from kd_jax.data import synthetic
from kd_jax.errors import InputError

IMAGES = np.random.RandomState(0).randint(0, 256, (6, 4, 5, 1)).astype(np.uint8)
ABOUT = {"teacher": {"sha256": "ab", "num_teachers": 2}, "method": "class_impressions"}
MADE_BY = np.int32([0, 1, 0, 1])


@pytest.fixture
def path(tmp_path):
    arrays = IMAGES[:4], np.full(4, 2, np.int32), IMAGES[4:], np.full(2, 2, np.int32)
    path = tmp_path / "threes.npz"
    path.write_bytes(synthetic.to_bytes(arrays, ["a", "b", "c", "d"], MADE_BY, ABOUT))
    return path


def test_it_is_a_dataset_of_all_classes_of_the_teacher(path):
    dataset = data.load(path)
    assert dataset.num_classes == 4 and dataset.class_names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(dataset.train_images, IMAGES[:4])
    np.testing.assert_array_equal(dataset.train_labels, [2] * 4)
    origin = synthetic.read_origin(str(path))
    assert origin.provenance == ABOUT and origin.num_teachers == 2
    np.testing.assert_array_equal(origin.made_by, MADE_BY)


def test_other_files_have_no_origin(tmp_path):
    np.savez(tmp_path / "other.npz", train_labels=[1])
    assert synthetic.read_origin(str(tmp_path / "other.npz")) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"provenance": "no json"},
        {"provenance": json.dumps(ABOUT | {"method": 3})},
        {"provenance": json.dumps({"method": "x", "teacher": {"sha256": "a"}})},
        {"provenance": "[" * 100_000},
        {"made_by": MADE_BY[:3]},
        {"made_by": MADE_BY + 1},
        {"made_by": MADE_BY - 1},
        {"made_by": MADE_BY.astype(float)},
        {"made_by": None},
    ],
)
def test_a_damaged_origin_is_refused(path, changed):
    with np.load(path) as held:
        arrays = {name: array for name, array in (dict(held) | changed).items() if array is not None}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="where its images come from is damaged"):
        synthetic.read_origin(str(path))
