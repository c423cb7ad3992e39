"""Layouts of image folders, what they may lack, and their cache; every unsuitable folder against the one line
that names it."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from kd_jax import data
from kd_jax.data import image_decoding
from kd_jax.errors import InputError
from tests.data.images_on_disk import draw, pixels, refused

# --- layouts --------------------------------------------------------------------------------------------


def test_layout_of_fastai(load, root):
    dataset = load()
    assert (dataset.name, dataset.class_names) == (str(root), ("Samoyed", "beagle", "dingo"))
    seeds = [20, 21, 22, 0, 1, 2, 10, 11, 12]  # capitals sort first
    assert np.array_equal(dataset.train_images, [pixels(seed) for seed in seeds])
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert np.array_equal(dataset.test_images, [pixels(100 + seed) for seed in (20, 21, 0, 1, 10, 11)])
    assert dataset.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.train_images.dtype == np.uint8 and dataset.train_labels.dtype == np.int32
    assert not dataset.train_images.flags.writeable and dataset.num_skipped == 0


def test_val_beside_test_is_the_validation_split(load, root):
    alone = load()
    draw(root / "test" / "dingo" / "a.png", pixels(7))
    for _ in range(2):  # decoded, then from the cache
        dataset = load()
        assert np.array_equal(dataset.test_images, [pixels(7)]) and dataset.test_labels.tolist() == [2]
        train, validation = data.split_training(dataset, 0.1)
        assert (len(train), len(validation), dataset.num_validation) == (9, 6, 6)
        for index, split in ((train, "train"), (validation, "test")):
            np.testing.assert_array_equal(dataset.train_images[index], getattr(alone, f"{split}_images"))
            np.testing.assert_array_equal(dataset.train_labels[index], getattr(alone, f"{split}_labels"))
        assert dataset.notes == ("val/ is the validation split, test/ the test split",)


@pytest.mark.parametrize("train", ["train", "Train", "training", "Training"])
@pytest.mark.parametrize("test", ["val", "valid", "Validation", "test", "Testing"])
def test_spellings_of_the_splits(load, root, train, test):
    expected = load()
    (root / "train").rename(root / train)
    (root / "val").rename(root / test)
    assert data.load(root).fingerprint == expected.fingerprint


def test_a_test_folder_without_classes_is_passed_over(load, root):
    """As Kaggle has it: the test images have no labels."""
    expected = load()
    draw(root / "test" / "0.png", pixels(7))
    dataset = load()
    assert dataset.fingerprint == expected.fingerprint and dataset.num_validation == 0
    assert dataset.notes == ("test/ has no class folders: the test split is val/",)


def test_a_test_folder_without_classes_is_refused_before_anything_is_decoded(load, root, monkeypatch):
    remove(root / "val")
    draw(root / "test" / "0.png", pixels(7))
    monkeypatch.setattr(image_decoding, "decode", None)
    assert "test/ has no class folders" in refused(load)


def test_one_split_in_two_folders(load, root):
    (root / "valid").mkdir()
    assert "one split several times: expected one folder a split; given val, valid" in refused(load)


def tiny_imagenet(root):
    """Labels of the validation images, in the order of their annotations: 1, 0, 1."""
    for label, name in enumerate(("n01", "n02")):
        for index in range(2):
            draw(root / "train" / name / "images" / f"{name}_{index}.png", pixels(10 * label + index))
        (root / "train" / name / f"{name}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t5\t4\n")
    for index in range(3):
        draw(root / "val" / "images" / f"val_{index}.png", pixels(50 + index))
    draw(root / "test" / "images" / "test_0.png", pixels(99))
    lines = [f"val_{i}.png\t{name}\t0\t0\t5\t4\n" for i, name in enumerate(("n02", "n01", "n02"))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tcentipede\nn03\tstork\n")


def test_layout_of_tiny_imagenet(tmp_path):
    tiny_imagenet(tmp_path)
    dataset = data.load(tmp_path)
    assert dataset.class_names == ("goldfish", "centipede")
    assert np.array_equal(dataset.train_images, [pixels(seed) for seed in (0, 1, 10, 11)])
    assert dataset.train_labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(dataset.test_images, [pixels(seed) for seed in (51, 50, 52)])
    assert dataset.test_labels.tolist() == [0, 1, 1]


def test_words_that_two_classes_share(tmp_path):
    tiny_imagenet(tmp_path)
    (tmp_path / "words.txt").write_bytes(b"n01\tcrane, a bird\nn02\tcrane, a machine\nbroken \xff line\n\t\n")
    assert data.load(tmp_path).class_names == ("crane (n01)", "crane (n02)")


@pytest.mark.parametrize(
    "line, message",
    [
        ("val_0.png\tn02\t0\n\n", "line 2, cannot be read.*given b''"),
        ("val_0.png n02", "line 1, cannot be read"),
        ("../../train/n01/images/n01_0.png\tn01", "line 1, cannot be read"),
        ("val_0.png\tn02\nval_0.png\tn01\n", "line 2, cannot be read.*one more file"),
        ("val_0.png\tn04\n", "test class has no training images.*given n04"),
        ("val_7.png\tn01\n", r"1 of 5 images .*val/images/val_7\.png \(FileNotFoundError"),
        ("", "the test split is empty"),
    ],
)
def test_annotations_that_are_wrong(tmp_path, line, message):
    tiny_imagenet(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_text(line)
    with pytest.raises(InputError, match=message):
        data.load(tmp_path)


def test_files_that_are_no_images_are_passed_over(load, root):
    before = load().fingerprint
    folder = root / "train" / "dingo"
    for name in ("notes.txt", ".DS_Store", "._0.png", "Thumbs.db", "png"):
        (folder / name).write_text("no image")
    (folder / "deeper.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "readme.md").touch()
    (root / "stray.png").touch()
    assert load().fingerprint == before


def test_links(load, root, tmp_path):
    before = load().fingerprint
    elsewhere = tmp_path / "elsewhere"
    (root / "train" / "dingo").rename(elsewhere)
    (root / "train" / "dingo").symlink_to(elsewhere)
    (root / "val" / "dingo" / "0.png").rename(tmp_path / "0.png")
    (root / "val" / "dingo" / "0.png").symlink_to(tmp_path / "0.png")
    assert load().fingerprint == before
    (root / "train" / "beagle" / "loop.png").symlink_to("loop.png")
    (root / "train" / "beagle" / "lost.png").symlink_to(tmp_path / "nothing")
    assert "2 of 17 images" in refused(load)
    assert load(skip_unreadable=True).fingerprint == before
    (root / "train" / "beagle" / "loop.png").unlink()
    (root / "train" / "beagle" / "lost.png").unlink()
    (root / "train" / "circle").symlink_to(root / "train")
    dataset = load()
    assert dataset.fingerprint == before and "(train/circle, train/circle)" in dataset.notes[0]
    (root / "train" / "gone").symlink_to(tmp_path / "nothing")
    assert "no training image: expected one in each folder of train; given none in gone" in refused(load)


def test_names_that_are_no_utf8(load, root):
    folder = os.fsencode(root / "train")
    try:
        os.rename(folder + b"/dingo", folder + b"/d\xefngo")
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    val = os.fsencode(root / "val")
    os.rename(val + b"/dingo", val + b"/d\xefngo")
    os.rename(folder + b"/d\xefngo/0.png", folder + b"/d\xefngo/\xff\n.png")
    for _ in ("decoded", "cached"):
        dataset = load()
        assert dataset.class_names == ("Samoyed", "beagle", r"d\xefngo")
        assert sorted(dataset.train_images[6:].tolist()) == sorted(pixels(s).tolist() for s in (10, 11, 12))
    with open(folder + b"/d\xefngo/\xff\n.png", "w"):
        pass
    with pytest.raises(InputError, match=r"d\\xefngo/\\xff"):
        load()


# --- what a folder may lack -----------------------------------------------------------------------------


def remove(folder):
    for file in folder.iterdir():
        remove(file) if file.is_dir() else file.unlink()
    folder.rmdir()


def empty(folder):
    remove(folder)
    folder.mkdir()


LACKS = {
    "no test split": (lambda root: remove(root / "val"), "lacks a split: expected train and val or test"),
    "an empty class": (
        lambda root: empty(root / "train" / "dingo"),
        "no training image: expected one in each folder of train; given none in dingo",
    ),
    "a class in val alone": (
        lambda root: draw(root / "val" / "wolf" / "0.png", pixels(1)),
        "test class has no training images: expected the classes of train; given wolf not in train",
    ),
    "no test images": (
        lambda root: [empty(root / "val" / name) for name in ("dingo", "beagle", "Samoyed")],
        "the test split is empty: expected an image in the folder of a class, as in train; given none in val",
    ),
    "one class": (
        lambda root: [remove(root / s / c) for s in ("train", "val") for c in ("dingo", "beagle")],
        "too few classes",
    ),
    "no class": (lambda root: empty(root / "train"), "train/ has no class folders"),
    "no folder of classes": (lambda root: empty(root / "val"), "the test split is empty"),
    "labels elsewhere": (
        lambda root: [remove(root / "train"), draw(root / "train" / "0.png", pixels(0))],
        "train/ has no class folders: expected a folder for each class; given train/0.png",
    ),
}


@pytest.mark.parametrize("change, message", LACKS.values(), ids=LACKS.keys())
def test_folders_that_lack_something(load, root, change, message):
    change(root)
    assert message in refused(load)


def test_a_class_without_test_images_is_none_the_less(load, root):
    remove(root / "val" / "beagle")
    dataset = load()
    assert dataset.num_classes == 3 and np.bincount(dataset.test_labels, minlength=3).tolist() == [2, 0, 2]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_read(load, root):
    (root / "train" / "dingo").chmod(0)
    try:
        assert "cannot be read" in refused(load)
    finally:
        (root / "train" / "dingo").chmod(0o755)


def test_which_names_are_folders(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("dogs", "./dogs", "~/dogs", "dogs/", f"dogs/../{root.name}", root):
        assert data.load(name).class_names[1] == "beagle"
    # TFDS's names stay TFDS's: prepared sets, too, are folders.
    for name in ("mnist", "emnist/letters", "digits"):
        (tmp_path / name).mkdir(parents=True)
    assert data.load("digits").train_images.shape == (1297, 8, 8, 1)
    for name in ("mnist", "emnist/letters"):
        with pytest.raises(InputError, match="is not prepared in"):
            data.load(name, tmp_path / "nothing")
    monkeypatch.chdir(root)
    assert data.load(".").num_classes == 3
    assert data.load("train").num_classes == 3  # of which a share is the test split
    for name in ("", "~nobody/x", "../mnist"):
        with pytest.raises(
            InputError, match=r"dataset.* a folder of train/ and val/ or test/, of classes or"
        ):
            data.load(name, tmp_path)


@pytest.mark.parametrize("name", ["digits", "set.npz", "cifar100"])
@pytest.mark.parametrize("options", [{"image_size": 32}, {"skip_unreadable": True}, {"test_fraction": 0.0}])
def test_options_of_folders_alone(name, options):
    with pytest.raises(
        InputError, match=f"^{next(iter(options))} is for image folders and parquet: .*'{name}'; given"
    ):
        data.load(name, **options)


# --- the cache, threads and progress --------------------------------------------------------------------


def same(one, other):
    return one.fingerprint == other.fingerprint and one.class_names == other.class_names


def test_cache_is_used(load, root, monkeypatch, tmp_path):
    (root / "val" / "dingo" / "bad.png").touch()
    dataset, small = load(skip_unreadable=True), load(skip_unreadable=True, image_size=3)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    monkeypatch.setattr(image_decoding, "decode", None)
    for options, expected in (({}, dataset), ({"image_size": 3}, small)):
        again = load(skip_unreadable=True, **options)
        assert same(again, expected) and again.num_skipped == 1


def test_what_was_skipped_stops_the_next_load(load, root):
    (root / "val" / "dingo" / "bad.png").touch()
    load(skip_unreadable=True)
    assert "1 of 16 images" in refused(load)
    (root / "val" / "dingo" / "bad.png").unlink()
    whole = load()
    assert same(load(skip_unreadable=True), whole) and whole.num_skipped == 0


def touched(root):
    os.utime(root / "train" / "dingo" / "0.png", ns=(0, 0))


def changed(root):
    file = root / "train" / "dingo" / "0.png"
    held = file.stat()
    content = file.read_bytes()
    draw(file, pixels(77))
    file.write_bytes(file.read_bytes().ljust(len(content) + 1, b"\0"))
    os.utime(file, ns=(held.st_atime_ns, held.st_mtime_ns))


CHANGES = {
    "a file more": lambda root: draw(root / "train" / "dingo" / "9.png", pixels(9)),
    "a file less": lambda root: (root / "train" / "dingo" / "0.png").unlink(),
    "a file renamed": lambda root: (root / "val" / "dingo" / "0.png").rename(
        root / "val" / "dingo" / "8.png"
    ),
    "a file of another size": changed,
    "a file of another time": touched,
    "a file moved": lambda root: (root / "val" / "dingo" / "0.png").rename(root / "val" / "beagle" / "8.png"),
    "another split": lambda root: (root / "val").rename(root / "test"),
    "words": lambda root: (root / "words.txt").write_text("dingo\twild dog\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_cache_follows_its_source(load, root, change, monkeypatch, tmp_path):
    load()
    change(root)
    calls = []
    decode = image_decoding.decode
    monkeypatch.setattr(image_decoding, "decode", lambda *args: calls.append(args) or decode(*args))
    dataset = load()
    assert len(calls) == 1 and same(dataset, data.load(root, None, tmp_path / "other"))


def test_threads_change_nothing_and_progress_is_told(root, tmp_path, monkeypatch):
    for index in range(60):
        draw(root / "train" / "dingo" / f"more{index}.png", pixels(200 + index))
    told = []
    many = data.load(root, None, tmp_path / "a", progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 75) for done in range(1, 76)]
    monkeypatch.setattr(image_decoding, "_num_cores", lambda: 1)
    assert same(data.load(root, None, tmp_path / "b"), many)
    assert math.prod(many.train_images.shape) == 69 * 6 * 5 * 3


def test_folders_by_odd_names_are_cached(root, tmp_path, monkeypatch):
    odd = Path(root.rename(tmp_path / ("ünïcode, näme\n" + 200 * "x")))
    dataset = data.load(odd, None, tmp_path / "cache")
    monkeypatch.setattr(image_decoding, "decode", None)
    assert same(data.load(odd, None, tmp_path / "cache"), dataset)
