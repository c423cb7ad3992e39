"""Folders of classes without splits, and what is passed over: against the same images in the usual layout."""

import os

import numpy as np
import pytest

from kd_jax import data
from kd_jax.data import image_decoding, image_folder, splits
from tests.data.images_on_disk import draw, pixels, refused

COUNTS = {"ant": 11, "bee": 5, "cow": 2, "dog": 1}


@pytest.fixture
def classes(tmp_path):
    """Four classes of 11, 5, 2 and 1 images, none of them in a split."""
    for label, (name, count) in enumerate(COUNTS.items()):
        for index in range(count):
            draw(tmp_path / "zoo" / name / f"{index:02}.png", pixels(100 * label + index))
    return tmp_path / "zoo"


@pytest.fixture
def load_classes(classes, tmp_path):
    return lambda **options: data.load(classes, None, tmp_path / "cache", **options)


def test_a_share_of_each_class_is_the_test_split(load_classes):
    """round(0.2 n) of each class, at least one of two and never the last one; every image is in one split."""
    dataset = load_classes()
    assert np.bincount(dataset.test_labels).tolist() == [2, 1, 1]
    assert np.bincount(dataset.train_labels).tolist() == [9, 4, 1, 1]
    assert dataset.class_names == ("ant", "bee", "cow", "dog") and dataset.num_validation == 0
    both = [*dataset.train_images, *dataset.test_images]
    every = [pixels(100 * label + i) for label, count in enumerate(COUNTS.values()) for i in range(count)]
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in every)
    for image, label in zip(both, [*dataset.train_labels, *dataset.test_labels], strict=True):
        assert any(np.array_equal(image, pixels(100 * label + i)) for i in range(11))
    assert dataset.notes == (
        "no test split: 4 of 19 examples, drawn from each class, are taken for it (test_fraction 0.2)",
    )


def test_the_split_is_that_of_the_labels(load_classes):
    labels = np.repeat(np.arange(4), [*COUNTS.values()])
    every = np.stack([pixels(100 * k + i) for k, n in enumerate(COUNTS.values()) for i in range(n)])
    for fraction in (0.1, 0.5):
        train, test = data.split_validation(labels, fraction)
        dataset = load_classes(test_fraction=fraction)
        np.testing.assert_array_equal(dataset.train_images, every[train])
        np.testing.assert_array_equal(dataset.test_images, every[test])
    assert load_classes().fingerprint != dataset.fingerprint
    assert load_classes(test_fraction=splits.TEST_FRACTION).fingerprint == load_classes().fingerprint


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_shares_that_are_none(load_classes, fraction):
    assert "test_fraction out of range: expected 0 < fraction < 1" in refused(
        load_classes, test_fraction=fraction
    )


def test_a_share_of_what_has_splits_is_refused(load):
    assert "test_fraction is for data without a test split" in refused(load, test_fraction=0.3)


def test_one_image_a_class_cannot_be_split(tmp_path):
    for name in ("a", "b"):
        draw(tmp_path / "set" / name / "0.png", pixels(0))
    with pytest.raises(data.InputError, match="cannot be split: expected a class of two examples"):
        data.load(tmp_path / "set")


def test_hidden_files_and_strays_change_no_split(load_classes, classes):
    before = load_classes().fingerprint
    for name in (".git", "__MACOSX", "empty"):
        (classes / name).mkdir()
    draw(classes / ".git" / "0.png", pixels(1))
    (classes / "__MACOSX" / "._0.png").touch()
    for name in ("Thumbs.db", ".DS_Store", "labels.csv"):
        (classes / "ant" / name).write_text("no image")
        (classes / name).write_text("no image")
    draw(classes / "stray.png", pixels(3))
    dataset = load_classes()
    assert dataset.fingerprint == before and len(dataset.notes) == 3
    left = "left out: 2 files in which pillow finds no image (ant/Thumbs.db, ant/labels.csv)"
    assert left in dataset.notes
    assert "3 files or folders that belong to no class (__MACOSX, empty, stray.png)" in dataset.notes[2]


def test_a_class_called_train(tmp_path):
    """As of vehicles: no folder lies in it, and others lie beside it."""
    for label, name in enumerate(("car", "plane", "train")):
        for index in range(3):
            draw(tmp_path / "set" / name / f"{index}.PNG", pixels(10 * label + index), format="PNG")
    assert data.load(tmp_path / "set").class_names == ("car", "plane", "train")


def test_splits_by_other_names_are_no_classes(tmp_path):
    for split in ("training_set", "test_set"):
        for name in ("cat", "dog"):
            draw(tmp_path / "set" / split / name / "0.png", pixels(0))
    for split in ("training_set", "test_set"):
        draw(tmp_path / "set" / split / "0.png", pixels(0))
    with pytest.raises(data.InputError, match=r"no splits that are known.*given test_set/cat/0\.png"):
        data.load(tmp_path / "set")


def test_the_only_dataset_within_is_named(root, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    root.rename(outer / "dogs")
    with pytest.raises(data.InputError, match=rf"without them .did you mean {outer}/dogs\?"):
        data.load(outer)


def test_names_of_tfds_stay_its_names(classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes.rename(tmp_path / "mnist")
    with pytest.raises(data.InputError, match="is not prepared in"):
        data.load("mnist", tmp_path / "nothing")
    assert data.load("./mnist").num_classes == 4
    (tmp_path / "mnist").rename(tmp_path / "zoo")
    assert data.kind("zoo") == "folder" and data.load("zoo").num_classes == 4


# --- passed over in folders with splits ---------------------------------------------------------------------


def test_folders_without_an_image_are_no_classes(load, root):
    before = load().fingerprint
    (root / "train" / "nothing").mkdir()
    (root / "val" / "nowhere").mkdir()
    (root / "train" / "annotations").mkdir()
    (root / "train" / "annotations" / "0.xml").write_text("<box/>")
    dataset = load()
    assert dataset.fingerprint == before
    expected = "3 files or folders that belong to no class (train/annotations, train/nothing, val/nowhere)"
    assert dataset.notes == (f"left out: {expected}",)


@pytest.mark.parametrize("folder", ["unknown", "test"])
def test_test_images_in_one_folder_have_no_labels(load, root, folder, monkeypatch):
    """As for ImageFolder, which needs one: no class of training has that name."""
    expected = load().fingerprint
    draw(root / "test" / folder / "0.png", pixels(7))
    dataset = load()
    assert dataset.fingerprint == expected
    assert dataset.notes == ("test/ has no images of a class: the test split is val/",)
    (root / "val").rename(root / "other")
    monkeypatch.setattr(image_decoding, "decode", None)
    line = refused(load)
    assert "test/ has no images of a class: expected a folder for each class, as in training, or val/" in line
    assert line.endswith(f"given {folder}")


def test_what_is_a_folder_of_classes(classes, root, tmp_path):
    assert image_folder.is_class_folder(str(classes)) and not image_folder.is_image_folder(str(classes))
    assert image_folder.is_image_folder(str(root)) and not image_folder.is_class_folder(str(root))
    assert not image_folder.is_class_folder("") and not image_folder.is_class_folder(str(tmp_path / "x\0y"))
    (tmp_path / "one" / "cat").mkdir(parents=True)
    draw(tmp_path / "one" / "cat" / "0.png", pixels(0))
    assert not image_folder.is_class_folder(str(tmp_path / "one"))


def test_images_without_an_ending(tmp_path):
    for name in ("a", "b"):
        for index in range(3):
            path = draw(tmp_path / "set" / name / f"{index}.png", pixels(index))
            os.rename(path, path.with_suffix(""))
    assert data.load(tmp_path / "set").train_images.shape == (4, 6, 5, 3)
