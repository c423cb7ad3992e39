"""Image folders against pixels that the tests draw themselves; every unsuitable, damaged or hostile one
against the one line that names it."""

import io
import math
import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_jax import data
from kd_jax.data import cache, image_folder
from kd_jax.errors import InputError


def pixels(seed, shape=(6, 5, 3)):
    return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)


def draw(path, image, **options):
    """Writes an image file; image: a PIL image or u8[h,w(,3)]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


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


def refused(load, **options):
    """The error's line."""
    with pytest.raises(InputError) as caught:
        load(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_test_goes_before_val(load, root):
    draw(root / "test" / "dingo" / "a.png", pixels(7))
    dataset = load()
    assert np.array_equal(dataset.test_images, [pixels(7)]) and dataset.test_labels.tolist() == [2]


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
        ("", "test_images are empty"),
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
    (root / "train" / "circle").symlink_to(root / "train")
    assert "no training image: expected one in each folder of train; given none in circle" in refused(load)


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
        "test_images are empty",
    ),
    "one class": (
        lambda root: [remove(root / s / c) for s in ("train", "val") for c in ("dingo", "beagle")],
        "too few classes",
    ),
    "no class": (lambda root: empty(root / "train"), "test class has no training images"),
    "no folder of classes": (lambda root: empty(root / "val"), "test_images are empty"),
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
    for name in ("", "~nobody/x", "train", "../mnist"):
        with pytest.raises(InputError, match=r"dataset.* a folder of train/ and val/ or test/"):
            data.load(name, tmp_path)


@pytest.mark.parametrize("name", ["digits", "set.npz", "cifar100"])
@pytest.mark.parametrize("options", [{"image_size": 32}, {"skip_unreadable": True}])
def test_options_of_folders_alone(name, options):
    with pytest.raises(InputError, match=f"--{next(iter(options))} is for image folders: .*'{name}'; given"):
        data.load(name, **options)


# --- pixels ---------------------------------------------------------------------------------------------


def grey(levels):
    """Levels as the RGB that they are to become."""
    return np.repeat(np.uint8(levels)[..., None], 3, -1)


def over_white(colour, alpha):
    """Porter & Duff's "over", on white."""
    share = np.asarray(alpha, float)[..., None] / 255
    return np.uint8(np.floor(share * colour + (1 - share) * 255 + 0.5))


def test_every_kind_of_image_becomes_rgb(tmp_path):
    levels = pixels(3, (4, 4))
    wide = np.random.RandomState(3).randint(0, 65536, (4, 4)).astype(np.uint16)
    palette = Image.fromarray(levels // 128)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    coloured = np.uint8([[10, 20, 30], [40, 50, 60]])[levels // 128]
    clear = np.concatenate([pixels(4, (4, 4, 3)), pixels(5, (4, 4, 1))], -1)
    ink = np.zeros((4, 4, 4), np.uint8)
    ink[..., 0] = levels  # cyan alone takes red away
    white = np.stack([255 - levels, *[np.full_like(levels, 255)] * 2], -1)
    half_seen = np.where((levels // 128)[..., None], over_white(coloured, np.full((4, 4), 128)), 255)
    nearest = np.uint8(np.floor(wide / 257 + 0.5))
    spotted, unspotted = pixels(6, (4, 4, 3)), pixels(6, (4, 4, 3))
    spotted[1, 2], unspotted[1, 2] = (1, 2, 3), 255
    lightened = np.where(levels == levels[0, 0], 255, levels)
    widened = np.where(wide == wide[0, 0], 255, nearest)
    cases = {
        "grey.png": (levels, {}, grey(levels)),
        "grey.gif": (levels, {}, grey(levels)),
        "GREY.BMP": (levels, {}, grey(levels)),
        "lossless.webp": (pixels(6, (4, 4, 3)), {"lossless": True}, pixels(6, (4, 4, 3))),
        "bits.png": (Image.fromarray(levels > 99), {}, grey(255 * (levels > 99))),
        "wide.png": (wide, {}, grey(nearest)),
        "wide.tif": (wide, {}, grey(nearest)),
        "wide.pgm": (wide, {}, grey(nearest)),
        "palette.png": (palette, {}, coloured),
        "see_through_palette.png": (palette, {"transparency": b"\x00\x80"}, half_seen),
        "see_through.png": (clear, {}, over_white(clear[..., :3], clear[..., 3])),
        "grey_and_clear.png": (
            np.stack([levels, clear[..., 3]], -1),
            {},
            over_white(grey(levels), clear[..., 3]),
        ),
        "opaque.png": (np.dstack([clear[..., :3], np.full((4, 4), 255, np.uint8)]), {}, clear[..., :3]),
        "one_colour_clear.png": (spotted, {"transparency": (1, 2, 3)}, unspotted),
        "one_level_clear.png": (levels, {"transparency": int(levels[0, 0])}, grey(lightened)),
        "one_deep_level_clear.png": (wide, {"transparency": int(wide[0, 0])}, grey(widened)),
        "ink.tiff": (Image.fromarray(ink, "CMYK"), {}, white),
    }
    for name, (image, options, _) in cases.items():
        draw(tmp_path / "train" / name / name, image, **options)
    draw(tmp_path / "val" / "GREY.BMP" / "0.png", levels)
    dataset = data.load(tmp_path)
    for name, found in zip(dataset.class_names, dataset.train_images, strict=True):
        assert np.array_equal(found, cases[name][2]), name


def test_cmyk_jpeg_is_not_inverted(load, root):
    """Adobe's CMYK JPEGs, of which ImageNet has some, hold the inverse of their inks."""
    red = Image.new("CMYK", (5, 6), (0, 255, 255, 0))
    draw(root / "train" / "dingo" / "red.jpg", red, quality=95)
    assert np.abs(load().train_images[-1].astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = pixels(1, (5, 5, 3))
    # As the EXIF standard words them: where the stored image's first row and first column are seen.
    seen = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for place in ("train/a", "train/b", "val/a"):
        draw(tmp_path / place / "0.png", upright, exif=exif)
    assert np.array_equal(data.load(tmp_path).train_images, [seen, seen])


def bicubic(num_in, num_out, start, length):
    """f64[num_out,num_in]: Keys' kernel (1981) with a = -0.5, of the window that begins at `start` and is
    `length` long; stretched by the reduction, so that it averages and keeps high frequencies out."""
    scale = length / num_out
    support = max(scale, 1.0)
    centre = start + (np.arange(num_out)[:, None] + 0.5) * scale
    x = np.abs(np.arange(num_in) + 0.5 - centre) / support
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 47), (7, 9), (12, 12)])
def test_image_size(tmp_path, shape):
    """Against the definition: the shorter side becomes 12, the middle of the longer one is kept."""
    image = pixels(1, (*shape, 3))
    for place in ("train/a", "train/b", "val/a"):
        draw(tmp_path / place / "0.png", image)
    side = min(shape)
    rows, columns = (bicubic(size, 12, (size - side) / 2, side) for size in shape)
    # Rows first, as pillow does: what lies beyond 0..255 is lost between the two, and both are rounded.
    narrow = np.clip(np.einsum("xw,hwc->hxc", columns, image), 0, 255)
    expected = np.clip(np.einsum("yh,hxc->yxc", rows, narrow), 0, 255)
    found = data.load(tmp_path, image_size=12).train_images[0]
    assert found.shape == (12, 12, 3) and np.abs(found - expected).max() < 2


def test_images_of_several_sizes(load, root):
    draw(root / "train" / "dingo" / "wide.png", pixels(1, (6, 8, 3)))
    line = refused(load)
    assert "several sizes: expected --image_size" in line
    assert line.endswith("given 5 x 6 (train/Samoyed/0.png) and 8 x 6 (train/dingo/wide.png)")
    assert load(image_size=4).train_images.shape == (10, 4, 4, 3)


def test_too_large_for_the_memory(load, monkeypatch):
    monkeypatch.setattr(cache, "_available_memory", lambda: 15 * 1000 * 1000 * 3 - 1)
    monkeypatch.setattr(np, "empty", None)
    assert "too large for the memory" in refused(load, image_size=1000)


@pytest.mark.parametrize("size", [0, -1])
def test_no_such_size(load, size):
    assert "image_size out of range" in refused(load, image_size=size)


# --- files that cannot be read --------------------------------------------------------------------------


def png_of(width, height):
    """The file of a black image, made without it."""

    def vmap_size(kind, content):
        code = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + code.to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + vmap_size(b"IHDR", header) + vmap_size(b"IDAT", rows) + vmap_size(b"IEND", b"")
    )


def jpeg():
    file = io.BytesIO()
    Image.fromarray(pixels(1, (64, 64, 3))).save(file, "JPEG")
    return file.getvalue()


def float_tiff():
    file = io.BytesIO()
    Image.fromarray(np.zeros((6, 5), np.float32)).save(file, "TIFF")
    return file.getvalue()


def deep_tiff():
    file = io.BytesIO()
    Image.fromarray(np.full((6, 5), 70_000, np.int32)).save(file, "TIFF")
    return file.getvalue()


UNREADABLE = {
    "truncated": (jpeg()[:1000], "truncated"),
    "empty": (b"", "UnidentifiedImageError"),
    "text": (b"no image at all", "UnidentifiedImageError"),
    # Pillow would hand it to Ghostscript, which runs it.
    "a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\nshowpage\n", "UnidentifiedImageError"),
    "a bomb": (png_of(10_000, 9_000), "DecompressionBombWarning"),
    "a large bomb": (png_of(60_000, 60_000), "DecompressionBombError"),
    "floating point": (float_tiff(), "grey levels of unknown range"),
    "more than 16 bits": (deep_tiff(), "grey levels beyond 16 bits"),
}


@pytest.mark.parametrize("content, reason", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("options", [{}, {"image_size": 5}], ids=["own size", "resized"])
def test_unreadable_files(load, root, content, reason, options):
    (root / "train" / "Samoyed" / "00.jpg").write_bytes(content)  # the first of all
    line = refused(load, **options)
    assert f"1 of 16 images in {root} cannot be read: expected whole images, or --skip_unreadable" in line
    assert "given train/Samoyed/00.jpg (" in line and reason in line
    dataset = load(skip_unreadable=True, **options)
    assert dataset.num_skipped == 1 and len(dataset.train_images) == 9


def test_the_first_few_are_named(load, root):
    for index in range(5):
        (root / "train" / "dingo" / f"bad{index}.png").touch()
    line = refused(load)
    assert line.startswith("5 of 20 images") and line.endswith(" and 2 more")
    assert [f"bad{index}" in line for index in range(5)] == [True, True, True, False, False]


def test_skipped_files_leave_the_others_as_they_are(load, root):
    whole = load()
    lost = [(0, "train/Samoyed/0.png"), (4, "train/beagle/1.png"), (8, "train/dingo/2.png")]
    for _, path in [*lost, (0, "val/beagle/0.png")]:
        (root / path).write_text("nothing")
    dataset = load(skip_unreadable=True)
    seen = [i for i in range(9) if i not in dict(lost)]
    assert np.array_equal(dataset.train_images, whole.train_images[seen])
    assert np.array_equal(dataset.train_labels, whole.train_labels[seen])
    assert np.array_equal(dataset.test_images, whole.test_images[[0, 1, 3, 4, 5]])
    assert dataset.test_labels.tolist() == [0, 0, 1, 2, 2] and dataset.num_skipped == 4


def test_what_skipping_may_not_leave(load, root):
    for index in range(3):
        (root / "train" / "beagle" / f"{index}.png").write_text("nothing")
    assert "no training image: expected one in each folder of train; given none in beagle" in refused(
        load, skip_unreadable=True
    )
    for path in root.rglob("*.png"):
        path.write_text("nothing")
    assert "15 of 15 images" in refused(load) and "no training image" in refused(load, skip_unreadable=True)


def test_warnings_of_others_stay_what_they_are(load):
    before = list(warnings.filters)
    load()
    assert warnings.filters == before


# --- the cache, threads and progress --------------------------------------------------------------------


def same(one, other):
    return one.fingerprint == other.fingerprint and one.class_names == other.class_names


def test_cache_is_used(load, root, monkeypatch, tmp_path):
    (root / "val" / "dingo" / "bad.png").touch()
    dataset, small = load(skip_unreadable=True), load(skip_unreadable=True, image_size=3)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    monkeypatch.setattr(image_folder, "decode", None)
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
    decode = image_folder.decode
    monkeypatch.setattr(image_folder, "decode", lambda *args: calls.append(args) or decode(*args))
    dataset = load()
    assert len(calls) == 1 and same(dataset, data.load(root, None, tmp_path / "other"))


def test_threads_change_nothing_and_progress_is_told(root, tmp_path, monkeypatch):
    for index in range(60):
        draw(root / "train" / "dingo" / f"more{index}.png", pixels(200 + index))
    told = []
    many = data.load(root, None, tmp_path / "a", progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 75) for done in range(1, 76)]
    monkeypatch.setattr(image_folder, "_num_cores", lambda: 1)
    assert same(data.load(root, None, tmp_path / "b"), many)
    assert math.prod(many.train_images.shape) == 69 * 6 * 5 * 3


def test_folders_by_odd_names_are_cached(root, tmp_path, monkeypatch):
    odd = Path(root.rename(tmp_path / ("ünïcode, näme\n" + 200 * "x")))
    dataset = data.load(odd, None, tmp_path / "cache")
    monkeypatch.setattr(image_folder, "decode", None)
    assert same(data.load(odd, None, tmp_path / "cache"), dataset)
