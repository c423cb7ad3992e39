"""Pixels of image files against those that the tests draw themselves; every damaged or hostile file against
the line that names it."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from kd_jax import data
from kd_jax.data import cache
from tests.data.images_on_disk import draw, pixels, png_of, refused


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
    assert "several sizes: expected one size, or an image_size" in line
    assert line.endswith("given 5 x 6 (train/Samoyed/0.png) and 8 x 6 (train/dingo/wide.png)")
    assert load(image_size=4).train_images.shape == (10, 4, 4, 3)


def test_too_large_for_the_memory(load, monkeypatch):
    monkeypatch.setattr(cache, "_available_memory", lambda: 15 * 1000 * 1000 * 3 - 1)
    monkeypatch.setattr(np, "empty", None)
    assert "too large for the memory" in refused(load, image_size=1000)


@pytest.mark.parametrize("size", [0, -1])
def test_no_such_size(load, size):
    assert "image_size out of range" in refused(load, image_size=size)


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
    assert f"1 of 16 images in {root} cannot be read: expected whole images, or skip_unreadable" in line
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
