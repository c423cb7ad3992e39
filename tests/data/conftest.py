"""A folder of images that tests change, and how it is loaded."""

import pytest

from kd_jax import data
from tests.data.images_on_disk import draw, pixels


@pytest.fixture
def root(tmp_path):
    """Three classes, three training and two test images each, all of them noise of their own."""
    folder = tmp_path / "dogs"
    for split, number in (("train", 3), ("val", 2)):
        for label, name in enumerate(("beagle", "dingo", "Samoyed")):
            for index in range(number):
                seed = 100 * (split == "val") + 10 * label + index
                draw(folder / split / name / f"{index}.png", pixels(seed))
    return folder


@pytest.fixture
def load(root, tmp_path):
    return lambda **options: data.load(root, None, tmp_path / "cache", **options)
