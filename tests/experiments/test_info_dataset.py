"""`info DATASET`: what is printed against what was written, and the contact sheet."""

import numpy as np
import pytest
from PIL import Image

from experiments.studies import info
from kd_jax.plots.images import contact_sheet
from tests.data.images_on_disk import draw, pixels
from tests.experiments.launcher import Launcher


@pytest.fixture
def folder(tmp_path):
    """Two classes of 10 and 5 images, 6 x 5; a stray; one that cannot be read."""
    for label, (name, count) in enumerate((("cat", 10), ("owl", 5))):
        for index in range(count):
            draw(tmp_path / "set" / name / f"{index}.png", pixels(100 * label + index))
    draw(tmp_path / "set" / "stray.png", pixels(0))
    (tmp_path / "set" / "cat" / "bad.png").touch()
    return tmp_path / "set"


def test_what_is_understood(folder, tmp_path):
    options = {"skip_unreadable": True, "test_fraction": 0.2, "image_size": None}
    chapters = info.run(str(folder), None, options, 0.25, tmp_path / "out")
    assert dict(chapters[str(folder)])["what"] == "a folder of images"
    shape = "6 x 5 pixels, 3 channels"
    assert dict(chapters["Splits"]) == {  # round(0.2 n) for testing, then round(0.25 n) for validation
        "training": f"9 images, {shape}",
        "validation": f"3 images, {shape}; drawn from training",
        "test": f"3 images, {shape}",
    }
    counts = "6 training, 2 validation, 2 test", "3 training, 1 validation, 1 test"
    assert chapters["Examples of the 2 classes"] == list(zip(("0 cat", "1 owl"), counts, strict=True))
    notes = [right for _, right in chapters["How it was read"]]
    assert any("no test split: " in note for note in notes)
    assert any("that belong to no class (stray.png)" in note for note in notes)
    assert notes[-1] == "1 images that cannot be read"
    assert chapters["Contact sheet"] == [("written", str(tmp_path / "out" / "contact_sheet.png"))]
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 1000


def test_values_and_classes_beyond_the_table(tmp_path):
    images = np.tile(np.arange(4, dtype=np.uint8).reshape(1, 2, 2), (40, 1, 1))
    arrays = {"train_images": images, "train_labels": np.arange(40), "test_images": images[:5] * 20}
    np.savez(tmp_path / "set.npz", **arrays, test_labels=np.arange(5))
    chapters = info.run(str(tmp_path / "set.npz"), None, {}, 0.0, None)
    assert chapters["Values"] == [
        ("training", "0 to 3 of 0 to 255, mean of each channel 1.5"),
        ("test", "0 to 60 of 0 to 255, mean of each channel 30.0"),
    ]
    assert chapters["Examples of the 40 classes"][-1] == ("...", "10 more classes")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_contact_sheet_shows_the_images(channels):
    images = pixels(0, (3, 6, 5, channels))
    figure = contact_sheet([("a" * 40, images), ("none", images[:0])], 4, "2 classes")
    (axes,) = figure.axes
    sheet = np.asarray(axes.images[0].get_array())
    expected = images[..., :3] if channels > 2 else np.repeat(images[..., :1], 3, -1)
    for column in range(3):
        np.testing.assert_array_equal(sheet[:6, 6 * column : 6 * column + 5], expected[column])
    assert sheet.shape == (14, 24, 3) and (sheet[7:] == 255).all()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a" * 21 + "...", "none"]


def test_it_is_printed(folder, tmp_path):
    with Launcher(tmp_path) as launch:
        outcome = launch("info", "set", "--skip_unreadable", "--out=sheet.png")
        assert (outcome.status, outcome.err) == (0, ""), outcome
        assert "Splits\n  training " in outcome.out and (tmp_path / "sheet.png").is_file()
