"""Arrays that are another thing than they look: refused with what to do, or noted."""

import logging

import numpy as np
import pytest

from kd_jax import data
from kd_jax.errors import InputError


@pytest.fixture
def write(tmp_path):
    """A function that writes an .npz of 12 training and 6 test images of that shape, values 0..highest."""

    def save(shape, highest=255, test_highest=None, **changes):
        draw = np.random.RandomState(0).randint
        highs = {"train": highest, "test": highest if test_highest is None else test_highest}
        numbers = {"train": 12, "test": 6}
        arrays = {f"{s}_images": draw(0, highs[s] + 1, (numbers[s], *shape)).astype(np.uint8) for s in highs}
        labels = {f"{split}_labels": np.arange(number) % 3 for split, number in numbers.items()}
        np.savez(tmp_path / "set.npz", **(arrays | labels | changes))
        return tmp_path / "set.npz"

    return save


@pytest.fixture
def notes(caplog):
    """What the library logged as a warning since it was last asked."""

    def heard():
        found = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        caplog.clear()
        return found

    return heard


# --- where the channels are -------------------------------------------------------------------------------

FIRST = [(2, 9, 9), (3, 4, 64), (3, 3, 5)]  # or 2 x 9 pixels of 9 channels, which are refused too
TOO_MANY = [(28, 28, 28), (16, 16, 13), (32, 3, 32), (5, 5, 5), (64, 64, 784)]
LAST = [(32, 32, 3), (28, 28, 1), (8, 8, 4), (9, 9, 2), (1, 64, 1), (3, 9, 1), (28, 28), (1, 64)]


@pytest.mark.parametrize("shape", FIRST)
def test_channels_first_are_refused_with_the_transpose(write, shape):
    path = write(shape)
    with pytest.raises(InputError, match=r"train_images have their channels first.*transpose\(0, 2, 3, 1\)"):
        data.load(path)
    with np.load(path) as held:
        arrays = dict(held)
    for key in ("train_images", "test_images"):
        arrays[key] = arrays[key].transpose(0, 2, 3, 1)  # what the line says to do
    np.savez(path, **arrays)
    assert data.load(path).train_images.shape == (12, *shape[1:], shape[0])


@pytest.mark.parametrize("shape", TOO_MANY)
def test_more_than_four_channels_are_refused(write, shape):
    with pytest.raises(InputError, match=r"too many channels: expected \[N,h,w,c\] of 1 to 4.*volumes are"):
        data.load(write(shape))


def test_the_test_images_alone(write):
    images = np.random.RandomState(0).randint(0, 256, (6, 3, 32, 32)).astype(np.uint8)
    with pytest.raises(InputError, match="test_images have their channels first"):
        data.load(write((32, 32, 3), test_images=images))


@pytest.mark.parametrize("shape", LAST)
def test_channels_last_are_taken_without_a_word(write, notes, shape):
    dataset = data.load(write(shape))
    assert dataset.train_images.shape == (12, *shape, *[1][len(shape) - 2 :]) and not notes()


@pytest.mark.parametrize(
    "shape, meant",
    [
        ((3, 3, 3), "3 x 3 pixels of 3 channels, which come last"),
        ((3, 4, 4), "3 x 4 pixels of 4 channels, which come last"),
        ((4, 4, 3), "4 x 4 pixels of 3 channels, which come last"),
        ((3, 1024), "3 x 1024 pixels of one channel"),
        ((1024, 3), "1024 x 3 pixels of one channel"),
    ],
)
def test_what_may_be_either_is_noted(write, notes, shape, meant):
    path = write(shape)
    data.load(path)
    (line,) = notes()
    assert line.startswith(f"{path}: images {[12, *shape]} are taken as {meant}")


# --- what the pixels hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize("highest", [1, 15, 16, 63])
def test_pixels_that_are_not_spread_are_noted(write, notes, highest):
    dataset = data.load(write((28, 28), highest))
    train, test = notes()
    assert f"the training images hold values 0 to {highest} of 0 to 255 alone" in train
    assert f"np.rint(255 / {highest} * images).astype(np.uint8)" in train and "the test images" in test
    spread = np.rint(255 / highest * dataset.train_images).astype(np.uint8)  # what the line says to do
    assert (spread.min(), spread.max()) == (0, 255)


def test_splits_of_two_ranges_are_noted(write, notes):
    data.load(write((28, 28), 255, 1))
    assert ["the test images hold values 0 to 1 of" in line for line in notes()] == [True]


@pytest.mark.parametrize("highest", [64, 128, 255])
def test_pixels_that_are_spread_are_not(write, notes, highest):
    data.load(write((28, 28), highest))
    assert not notes()


def test_the_digits_are_spread(notes):
    data.load("digits")
    assert not notes()


@pytest.mark.parametrize("split, number", [("train", 12), ("test", 6)])
@pytest.mark.parametrize("colours", [[[0]], [[255]], [[7], [200]], [[1, 2, 3], [9, 9, 9]]], ids=str)
def test_images_of_one_colour_each_are_refused(write, split, number, colours):
    images = np.zeros((number, 8, 8, 3), np.uint8)
    images[:] = np.uint8(colours)[np.arange(number) % len(colours), None, None]
    with pytest.raises(InputError, match=f"{split}_images show nothing.*one colour in each of {number}"):
        data.load(write((8, 8, 3), **{f"{split}_images": images}))


def test_one_image_that_shows_something_is_enough(write):
    images = np.zeros((12, 8, 8), np.uint8)
    images[11, 7, 7] = 200
    assert data.load(write((8, 8), train_images=images)).num_classes == 3


def test_images_of_one_pixel_can_be_nothing_else(write):
    assert data.load(write((1, 1, 3))).train_images.shape == (12, 1, 1, 3)


def test_many_images_are_looked_through(write):
    """More than are compared at once: the last one alone shows something."""
    images = np.zeros((9000, 4, 5), np.uint8)
    labels = np.arange(9000) % 3
    with pytest.raises(InputError, match="one colour in each of 9000"):
        data.load(write((4, 5), train_images=images, train_labels=labels))
    images[-1, 0, 0] = 255
    assert len(data.load(write((4, 5), train_images=images, train_labels=labels)).train_images) == 9000
