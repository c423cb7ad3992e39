"""The layouts of .npz files against the same data in the plain layout; what is no such layout is refused."""

import logging
import zipfile

import numpy as np
import pytest

from kd_jax import data
from kd_jax.errors import InputError

DRAW = np.random.RandomState(0)
IMAGES = {
    split: DRAW.randint(0, 256, (n, 6, 5), np.uint8) for split, n in (("train", 12), ("test", 6), ("val", 3))
}
LABELS = {split: np.arange(len(images)) % 3 for split, images in IMAGES.items()}
PLAIN = {f"{s}_images": IMAGES[s] for s in ("train", "test")} | {
    f"{s}_labels": LABELS[s] for s in ("train", "test")
}
MEDMNIST = {f"{s}_images": IMAGES[s] for s in IMAGES} | {
    f"{s}_labels": LABELS[s][:, None].astype(np.uint8) for s in LABELS
}


@pytest.fixture
def load(tmp_path, caplog):
    """load(arrays) -> (the dataset that they make, the notes on it)."""

    def call(arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        caplog.clear()
        dataset = data.load(tmp_path / "set.npz")
        logged = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert [f"{tmp_path / 'set.npz'}: {note}" for note in dataset.notes] == logged
        return dataset, dataset.notes

    return call


def refused(load, arrays, message):
    with pytest.raises(InputError, match=message) as caught:
        load(arrays)
    assert "\n" not in str(caught.value)


def same(one, other):
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in keys)


def test_keras(load):
    expected, notes = load(PLAIN)
    assert notes == ()
    names = {
        "train_images": "x_train",
        "train_labels": "y_train",
        "test_images": "x_test",
        "test_labels": "y_test",
    }
    found, notes = load({names[key]: array for key, array in PLAIN.items()})
    assert same(found, expected) and found.fingerprint == expected.fingerprint and notes == ()


def test_medmnist(load):
    """Labels [N,1], and the official validation split, which stands behind the training examples."""
    found, notes = load(MEDMNIST)
    assert notes == ("val_images are the validation split",) and found.num_validation == 3
    train, validation = data.split_training(found, 0.1)
    for split, index in (("train", train), ("val", validation)):
        np.testing.assert_array_equal(found.train_images[index, ..., 0], IMAGES[split])
        np.testing.assert_array_equal(found.train_labels[index], LABELS[split])
    joined = PLAIN | {"train_images": found.train_images, "train_labels": found.train_labels}
    same_images, _ = load(joined)
    assert same(same_images, found) and same_images.fingerprint != found.fingerprint  # another split
    expected = data.split_validation(found.train_labels, 0.1)
    assert all(map(np.array_equal, data.split_training(same_images, 0.1), expected))


SCALES = {
    "shares": (lambda x: x / 255, "float64 from 0 to 1, are taken as shares of 255"),
    "shares in single precision": (
        lambda x: (x / 255).astype(np.float32),
        "float32 from 0 to 1, are taken as",
    ),
    "real bytes": (lambda x: x.astype(np.float32), "float32 from 0 to 255, are taken as bytes"),
    "wide integers": (lambda x: x.astype(np.int64), "int64 from 0 to 255, are taken as bytes"),
    "channels first": (lambda x: np.stack([x, x, x], 1), "have their channels first and are transposed"),
    "both": (lambda x: np.stack([x, x, x], 1) / 255, "are taken as shares of 255"),
}


@pytest.mark.parametrize("change, note", SCALES.values(), ids=SCALES)
def test_the_same_images_otherwise(load, change, note):
    for split in ("train", "test"):
        IMAGES[split][0, 0, :2] = 0, 255
    found, notes = load(PLAIN | {key: change(PLAIN[key]) for key in ("train_images", "test_images")})
    assert note in notes[-1]
    for split in ("train", "test"):
        for channel in np.moveaxis(getattr(found, f"{split}_images"), -1, 0):
            np.testing.assert_array_equal(channel, IMAGES[split])


def test_one_hot_labels(load):
    expected, _ = load(PLAIN)
    for dtype in (np.int64, np.float32, bool):
        one_hot = {f"{s}_labels": np.eye(3, dtype=dtype)[LABELS[s]] for s in ("train", "test")}
        found, notes = load(PLAIN | one_hot)
        assert same(found, expected) and notes == ("one-hot labels: the class is the column that holds 1",)


WORDS = np.array(["ant", "bee", "cow"])
OTHERWISE = {
    "whole numbers": (lambda x: x.astype(np.float16), "labels of float16 are whole"),
    "whole numbers in a column": (lambda x: x[:, None].astype(float), "labels of float64 are whole"),
    "words": (lambda x: WORDS[x], "labels are words: classes in their order, from 0, ant"),
    "words as bytes": (lambda x: WORDS[x].astype("S")[:, None], "labels are words: classes in"),
    "big-endian": (lambda x: x.astype(">i2"), None),
    "unsigned": (lambda x: x.astype(np.uint64), None),
}


@pytest.mark.parametrize("change, note", OTHERWISE.values(), ids=OTHERWISE)
def test_the_same_labels_otherwise(load, change, note):
    expected, _ = load(PLAIN)
    found, notes = load(PLAIN | {f"{s}_labels": change(LABELS[s]) for s in ("train", "test")})
    assert same(found, expected) and found.fingerprint == expected.fingerprint
    assert notes == () if note is None else note in notes[0]
    assert found.class_names == (("ant", "bee", "cow") if note and "words" in note else ("0", "1", "2"))


def test_words_are_numbered_by_class_names(load):
    words = {f"{s}_labels": WORDS[LABELS[s]] for s in ("train", "test")}
    found, _ = load(PLAIN | words | {"class_names": np.array(["cow", "ant", "bee"])})
    assert found.train_labels[:3].tolist() == [1, 2, 0] and found.class_names == ("cow", "ant", "bee")


def test_labels_that_are_truth_values(load):
    found, notes = load(PLAIN | {f"{s}_labels": LABELS[s] > 0 for s in ("train", "test")})
    assert found.train_labels[:3].tolist() == [0, 1, 1] and notes == (
        "labels are truth values: class 1 is True",
    )


LAYOUTS_IN_MEMORY = {
    "Fortran order": np.asfortranarray,
    "big-endian": lambda x: x.astype(">u2"),
    "half precision": lambda x: (x / 255).astype(np.float16),
    "a masked array": lambda x: np.ma.masked_array(x, x > 300),
    "channels first, one of them": lambda x: x[:, None],
}


@pytest.mark.parametrize("change", LAYOUTS_IN_MEMORY.values(), ids=LAYOUTS_IN_MEMORY)
def test_images_that_lie_otherwise_in_memory(load, change):
    expected, _ = load(PLAIN)
    found, _ = load(PLAIN | {f"{s}_images": change(IMAGES[s]) for s in ("train", "test")})
    assert same(found, expected) and found.fingerprint == expected.fingerprint


def test_what_is_not_read_is_named(load):
    assert load(PLAIN | {"valid_images": IMAGES["val"]})[1] == ("not read: valid_images",)
    assert load(PLAIN | {"x_train": IMAGES["val"]})[1] == ("not read: x_train",)


def test_labels_of_several_widths(load):
    wide = {key: array.astype(np.uint64) for key, array in PLAIN.items() if key.endswith("labels")}
    others = {"val_images": IMAGES["val"], "val_labels": np.zeros(len(IMAGES["val"]), np.int64)}
    found, _ = load(PLAIN | wide | others)
    assert found.num_validation == len(IMAGES["val"])
    assert np.array_equal(found.train_labels[: -found.num_validation], PLAIN["train_labels"])


def test_an_array_twice(load, tmp_path):
    np.savez(tmp_path / "set.npz", **PLAIN)
    with zipfile.ZipFile(tmp_path / "set.npz", "a") as archive:
        archive.writestr("train_labels", archive.read("test_labels.npy"))
    with pytest.raises(InputError, match=r"holds an array twice: .*given train_labels"):
        data.load(tmp_path / "set.npz")


several = np.zeros((12, 3), int)
several[:, :2] = 1
REFUSED = {
    "several classes an example": (PLAIN | {"train_labels": several}, "train_labels are multi-label"),
    "no class": (PLAIN | {"test_labels": np.zeros((6, 3), int)}, "test_labels are multi-label"),
    "volumes": (PLAIN | {"train_images": np.zeros((12, 6, 6, 6), np.uint8)}, "volumes are not images"),
    "coloured volumes": (PLAIN | {"train_images": np.zeros((12, 6, 6, 6, 3), np.uint8)}, "wrong shape"),
    "normalised": (
        PLAIN | {f"{s}_images": IMAGES[s] / 64.0 - 2 for s in ("train", "test")},
        r"images are on no known scale: .*given float64 from -2 to 1.98",
    ),
    "0 to 16": (PLAIN | {f"{s}_images": IMAGES[s] / 16.0 for s in ("train", "test")}, "no known scale"),
    "words that training lacks": (
        PLAIN | {"train_labels": WORDS[LABELS["train"]], "test_labels": np.array(["owl"] * 6)},
        "test_labels name no class: expected the words of training; given .'owl'.",
    ),
    "words and numbers": (
        PLAIN | {"test_labels": WORDS[LABELS["test"]]},
        "test_labels are of the wrong type",
    ),
    "labels from 1": (
        PLAIN | {f"{s}_labels": LABELS[s] + 1 for s in ("train", "test")},
        r"none of class 0 \(labels count from 0\)",
    ),
    "halves": (PLAIN | {"train_labels": LABELS["train"] + 0.5}, "train_labels are of the wrong type"),
    "labels beyond all": (PLAIN | {"train_labels": LABELS["train"] * 1e300}, "of the wrong type"),
    "two channels first": (
        PLAIN | {f"{s}_images": np.stack([IMAGES[s]] * 2, 1) for s in ("train", "test")},
        r"have their channels first: .*transpose\(0, 2, 3, 1\)",
    ),
    "not a number": (
        PLAIN | {f"{s}_images": np.full((len(IMAGES[s]), 6, 5), np.nan) for s in ("train", "test")},
        "images hold what is no number: .*given nan or infinite values in train_images, first in image 0",
    ),
    "two types": (PLAIN | {"test_images": IMAGES["test"] / 255}, "test_images are of the wrong type"),
    "complex": (
        PLAIN | {f"{s}_images": IMAGES[s].astype(complex) for s in ("train", "test")},
        "train_images are of the wrong type",
    ),
    "half of Keras": ({"x_train": IMAGES["train"], "y_train": LABELS["train"]}, "lacks x_test, y_test"),
    "nothing": ({"a": np.zeros(3)}, "lacks train_images"),
    "no validation images": (
        MEDMNIST | {"val_images": np.zeros((0, 6, 5), np.uint8), "val_labels": np.zeros((0, 1), int)},
        "val_images are empty",
    ),
    "validation labels of another type": (
        MEDMNIST | {"val_labels": np.arange(3) + 0.5},
        "val_labels are of another",
    ),
    "structured labels": (
        MEDMNIST | {"val_labels": np.zeros(3, [("a", int)])},
        "val_labels are of another type",
    ),
    "validation images alone": (PLAIN | {"val_images": IMAGES["val"]}, "lacks an array: .*given val_images"),
    "validation of another size": (
        MEDMNIST | {"val_images": np.zeros((3, 5, 5), np.uint8)},
        "differ in shape",
    ),
    "validation of another number": (MEDMNIST | {"val_labels": np.arange(2)}, "val_labels do not fit"),
    "validation of a new class": (
        MEDMNIST | {"val_labels": np.array([0, 1, 7])},
        r"no class of training.*\[7\]",
    ),
    "validation beside a negative class": (
        MEDMNIST | {"train_labels": LABELS["train"] - 1, "val_labels": LABELS["val"]},
        "train_labels hold a negative class",
    ),
    "validation beside too few labels": (
        MEDMNIST | {"train_labels": LABELS["train"][:1]},
        "train_labels do not fit the images",
    ),
}


@pytest.mark.parametrize("arrays, message", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(load, arrays, message):
    refused(load, arrays, message)
