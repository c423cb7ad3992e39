"""Pictures in the forms that people have them: what is read of them is what they show, and what is left out
of a folder, or taken in its own way, is noted."""

import io
import logging
import os
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from kd_jax import data
from kd_jax.errors import InputError
from tests.data.images_on_disk import draw, pixels, png_of


@pytest.fixture
def root(tmp_path):
    """Two classes, four training and two test images each, all of them noise of their own."""
    for split, number in (("train", 4), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(number):
                seed = 100 * (split == "val") + 10 * label + index
                draw(tmp_path / "set" / split / name / f"{index}.png", pixels(seed, (6, 9, 3)))
    return tmp_path / "set"


@pytest.fixture
def load(root, tmp_path, caplog):
    """A function that loads it: (dataset, its notes without its name), twice, for the second comes from the
    cache."""

    def once(**options):
        caplog.clear()
        dataset = data.load(root, None, tmp_path / "cache", **options)
        found = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert all(line.startswith(f"{root}: ") for line in found)
        return dataset, [line.removeprefix(f"{root}: ") for line in found]

    def twice(**options):
        dataset, notes = once(**options)
        again, others = once(**options)
        assert again.fingerprint == dataset.fingerprint and others == notes == list(dataset.notes)
        return dataset, notes

    return twice


# --- what is transparent ----------------------------------------------------------------------------------

STROKES = np.zeros((6, 9), np.uint8)
STROKES[2:4, 1:8] = 255


def strokes(kind, ink=0):
    """(a PIL image of strokes in grey `ink`, all else transparent; options to save it with)."""
    alpha, level = Image.fromarray(STROKES), Image.new("L", (9, 6), ink)
    if kind == "LA":
        return Image.merge("LA", (level, alpha)), {}
    if kind == "RGBA":
        return Image.merge("RGBA", (level, level, level, alpha)), {}
    seen = STROKES > 0
    if kind == "palette":  # of two entries of the same colour
        image = Image.fromarray(seen.astype(np.uint8), "P")
        image.putpalette([ink] * 6)
        return image, {"transparency": b"\x00\xff"}
    if kind == "a level":
        return Image.fromarray(np.where(seen, ink, 77).astype(np.uint8)), {"transparency": 77}
    if kind == "a deep level":
        return Image.fromarray(np.where(seen, 257 * ink, 777).astype(np.uint16)), {"transparency": 777}
    levels = np.where(seen, ink, 77)[..., None].astype(np.uint8)
    return Image.fromarray(levels.repeat(3, -1)), {"transparency": (77, 77, 77)}


KINDS = ["LA", "RGBA", "palette", "a level", "a deep level", "a colour"]


@pytest.mark.parametrize("kind", KINDS)
def test_strokes_on_nothing_are_strokes_on_white(root, load, kind):
    image, options = strokes(kind)
    draw(root / "train" / "cat" / "0.png", image, **options)
    dataset, (note,) = load()
    assert np.array_equal(dataset.train_images[0], np.repeat(255 - STROKES[..., None], 3, -1))
    assert note == "composited on white: 1 images of 12 with transparent pixels (train/cat/0.png)"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_white_strokes_that_all_vanish_are_refused(root, load, kind, split):
    image, options = strokes(kind, 255)
    for path in (root / split).rglob("*.png"):
        draw(path, image, **options)
    with pytest.raises(InputError, match=r"images show nothing: .*composited on white: [48] images of 12"):
        load()


def test_what_is_opaque_is_no_note(root, load):
    image, _ = strokes("RGBA")
    image.putalpha(255)
    draw(root / "train" / "cat" / "0.png", pixels(1, (6, 9, 3)))
    solid = Image.fromarray(pixels(1, (6, 9, 3)))
    solid.putalpha(255)
    draw(root / "train" / "cat" / "1.png", solid)
    dataset, notes = load()
    assert np.array_equal(dataset.train_images[0], dataset.train_images[1]) and not notes


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_folder_of_images_of_one_colour_is_refused(root, load, split):
    for number, path in enumerate((root / split).rglob("*.png")):
        draw(path, Image.new("RGB", (9, 6), (number, 50, 60)))
    with pytest.raises(InputError, match=r"images show nothing: .*one colour in each of"):
        load()


# --- what counts as an image ------------------------------------------------------------------------------


def encoded(format_, **options):
    file = io.BytesIO()
    Image.fromarray(pixels(7, (6, 9, 3))).save(file, format_, **options)
    return file.getvalue()


NAMES = {
    "photo.jfif": "JPEG",
    "photo.jpe": "JPEG",
    "photo.JPEG": "JPEG",
    "photo": "JPEG",
    "photo.png": "JPEG",
    "photo.jpg": "PNG",
    "photo.jpg.bak": "JPEG",
    "photo.apng": "PNG",
    "photo.webp": "WEBP",
    "photo.jp2": "JPEG2000",
    "photo.tif": "TIFF",
    "photo.dat": "BMP",
    "photo.pnm": "PPM",
    "photo.ico": "ICO",
    "photo.pcx": "PCX",
    "photo.sgi": "SGI",
    "below/photo.jpg": "JPEG",
    "below/and/below/photo": "PNG",
}


@pytest.mark.parametrize("name, format_", NAMES.items())
def test_images_are_known_by_what_they_hold(root, load, name, format_):
    path = root / "train" / "dog" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = encoded(format_, **({"sizes": [(9, 6)]} if format_ == "ICO" else {}))
    path.write_bytes(content)
    dataset, notes = load()
    assert len(dataset.train_images) == 9 and dataset.train_labels.tolist() == [0] * 4 + [1] * 5
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert any(np.array_equal(image, expected) for image in dataset.train_images[4:])
    below = ["counted as the class whose folder they lie below: 1 images of 13 (train/dog/" + name + ")"]
    assert notes == (below if "/" in name else [])


def test_what_is_left_out_is_counted_and_named(root, load):
    before, _ = load()
    dog = root / "train" / "dog"
    for index in range(20):
        (dog / f"{index:02}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    (root / "val" / "cat" / "notes.txt").write_text("no image")
    dataset, (note,) = load()
    assert dataset.fingerprint == before.fingerprint
    some = "train/dog/00.heic, train/dog/01.heic, train/dog/02.heic and 18 more"
    assert note == f"left out: 21 files in which pillow finds no image ({some})"


def test_what_belongs_to_no_class_is_counted_and_named(root, load):
    before, _ = load()
    (root / "train" / "stray.png").write_bytes(encoded("PNG"))
    os.mkfifo(root / "train" / "dog" / "pipe.png")
    (root / "train" / "dog" / "again").symlink_to(root / "train" / "dog")
    (root / "val" / "cat" / "round").mkdir()
    (root / "val" / "cat" / "round" / "about").symlink_to(root / "val" / "cat" / "round")
    for hidden in (".DS_Store", "._0.png"):
        (root / "train" / "dog" / hidden).write_bytes(b"hidden")
    dataset, (note,) = load()
    assert dataset.fingerprint == before.fingerprint
    some = "train/dog/again, train/dog/pipe.png, train/stray.png and 1 more"
    assert note == f"left out: 4 files or folders that belong to no class ({some})"


def test_links_that_lead_round_are_followed_once(root, load):
    """Each of two folders holds a link to the other."""
    for one, other in (("a", "b"), ("b", "a")):
        folder = root / "train" / "dog" / one
        folder.mkdir()
        (folder / f"{one}.png").write_bytes(encoded("PNG"))
        (folder / "link").symlink_to(root / "train" / "dog" / other)
    dataset, notes = load()
    assert len(dataset.train_images) == 8 + 4 and len(notes) == 2


def test_a_file_that_should_be_an_image_still_stops(root, load):
    for name in ("empty.jfif", "text.jp2"):
        (root / "train" / "dog" / name).write_text("")
    (root / "train" / "dog" / "cut").write_bytes(encoded("JPEG")[:-30])
    with pytest.raises(
        InputError, match=r"3 of 15 images .* cannot be read.*skip_unreadable; .*train/dog/cut "
    ):
        load()


def test_a_class_of_no_images_is_none(root, load):
    for path in (root / "train" / "dog").iterdir():
        path.unlink()
    (root / "train" / "dog" / "a.heic").write_bytes(b"ftypheic")
    with pytest.raises(InputError, match=r"no training image: .*; given none in dog"):
        load()


def test_validation_images_without_a_label_are_left_out(root, load):
    (root / "val" / "images").mkdir()
    for index in range(3):
        (root / "val" / "images" / f"{index}.png").write_bytes(encoded("PNG"))
    (root / "val" / "val_annotations.txt").write_text("1.png\tcat\n")
    for name in ("cat", "dog"):  # its lists of boxes are no news
        (root / "train" / name / f"{name}_boxes.txt").write_text("0.png\t0\t0\t5\t4\n")
    _, (note,) = load()
    assert note == "left out: 2 files or folders that belong to no class (val/images/0.png, val/images/2.png)"


@pytest.mark.parametrize("format_", ["GIF", "PNG", "TIFF", "WEBP"])
def test_several_frames(root, load, format_):
    frames = [Image.fromarray(pixels(seed, (6, 9))) for seed in range(3)]
    options = {"save_all": True, "append_images": frames[1:]} | (
        {"lossless": True} if format_ == "WEBP" else {}
    )
    frames[0].save(root / "train" / "cat" / "0.png", format_, **options)
    dataset, (note,) = load()
    assert np.array_equal(dataset.train_images[0][..., 0], pixels(0, (6, 9)))
    assert note == "taken the first frame of 1 images of 12 with several (train/cat/0.png)"


def test_a_second_frame_that_is_damaged(root, load):
    frames, file = [Image.fromarray(pixels(seed, (6, 9))) for seed in range(3)], io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    (root / "train" / "cat" / "0.png").write_bytes(file.getvalue()[:-150])
    assert np.array_equal(load()[0].train_images[0][..., 0], pixels(0, (6, 9)))


def test_folders_with_a_name_that_means_something_else(root, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    root.rename("digits")
    assert (
        len(data.load("digits").train_images) == 1297 and "the folder of that name is ./digits" in caplog.text
    )
    caplog.clear()
    assert len(data.load("./digits").train_images) == 8 and not caplog.records


# --- metadata ---------------------------------------------------------------------------------------------


def png_chunk(kind, content, spoil=0):
    code = zlib.crc32(kind + content) ^ spoil
    return len(content).to_bytes(4, "big") + kind + content + code.to_bytes(4, "big")


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


BAD_CHUNKS = {
    "EXIF without a TIFF header": png_chunk(b"eXIf", b"XX*\0" + exif(6)[10:]),
    "EXIF in which nothing is": png_chunk(b"eXIf", b""),
    "EXIF cut short": png_chunk(b"eXIf", exif(6)[6:-9]),
    "EXIF of a wrong checksum": png_chunk(b"eXIf", exif(6)[6:], spoil=1),
    "EXIF as a text that is no number": png_chunk(b"tEXt", b"Raw profile type exif\0exif\n 9\nzzzz"),
    "XMP that is no UTF-8": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff\xfe<tiff:Orientation>"),
    "XMP compressed, damaged": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0damaged"),
    "ICC profile, damaged": png_chunk(b"iCCP", b"icc\0\0damaged"),
    "ICC profile of another method": png_chunk(b"iCCP", b"icc\0\7damaged"),
    "text too long": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**22))),
    "text of a wrong checksum": png_chunk(b"tEXt", b"Comment\0fine", spoil=1),
    "resolution cut short": png_chunk(b"pHYs", b"\0\0"),
    "animation cut short": png_chunk(b"acTL", b"\0"),
    "a kind that nobody knows": png_chunk(b"xxXx", b"?"),
}


@pytest.mark.parametrize("bad", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_a_png_with_faulty_metadata_shows_its_pixels(root, load, bad):
    path = root / "train" / "cat" / "0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + bad + whole[33:])  # after the header
    dataset, notes = load()
    assert np.array_equal(dataset.train_images[0], pixels(0, (6, 9, 3)))
    line = "taken as stored: 1 images of 12 with metadata that cannot be parsed (train/cat/0.png)"
    assert notes in ([], [line])


@pytest.mark.parametrize("name", ["EXIF without a TIFF header", "EXIF of a wrong checksum", "text too long"])
def test_faulty_metadata_are_noted(root, load, name):
    path = root / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:33] + BAD_CHUNKS[name] + path.read_bytes()[33:])
    assert [note.startswith("taken as stored: 1 images") for note in load()[1]] == [True]


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("bad", [b"Exif\0\0XX*\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"\xff"], ids=str)
def test_faulty_exif_in_every_format(root, load, format_, bad):
    content = encoded(format_, exif=bad, **({"lossless": True} if format_ == "WEBP" else {}))
    (root / "train" / "cat" / "0.png").write_bytes(content)
    dataset, _ = load()
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(dataset.train_images[0], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_orientation_in_every_format(root, load, format_):
    """6: the first stored row is seen on the right."""
    content = encoded(format_, exif=exif(6), **({"lossless": True} if format_ == "WEBP" else {}))
    (root / "train" / "cat" / "0.png").write_bytes(content)
    dataset, notes = load(image_size=6)
    upright = Image.fromarray(np.rot90(pixels(7, (6, 9, 3)), -1))
    square = upright.resize((6, 6), Image.Resampling.BICUBIC, box=(0, 1.5, 6, 7.5))
    assert np.array_equal(dataset.train_images[0], np.asarray(square)) and not notes


def test_a_faulty_header_is_no_metadata(root, load):
    """The pixels' own chunks are checked as before."""
    path = root / "train" / "cat" / "0.png"
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"IDAT") + 12] ^= 1
    path.write_bytes(whole)
    (root / "train" / "cat" / "1.png").write_bytes(png_of(10_000, 9_000))
    with pytest.raises(InputError, match=r"2 of 12 images .* cannot be read.*Bomb"):
        load()
