"""One image, a file or its bytes -> u8[h,w,3], with pillow.

What a file holds is found out from its content, not from the ending of its name. It is turned as its EXIF
orientation says and made RGB: grey is repeated, a palette looked up, what is transparent composited on white,
16 bits rounded to 8; of several frames it is the first. With an image size s the shorter side is resized to s
and the square in the middle kept, by pillow's bicubic filter, which is antialiased: its support grows with
the reduction. JPEG's own reduction while decoding (`draft`) would be quicker, and other pixels: not used.

Metadata that cannot be parsed is no obstacle: the pixels are taken as they are stored.
"""

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Those that pillow decodes itself and that have a signature. It hands EPS and WMF to other programs; TGA and
# its like begin with nothing that tells them from any other file.
_FORMATS = (
    "JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000", "ICO", "QOI", "SGI", "PCX", "PSD",
)  # fmt: skip

# Not JPEG: the second picture of a camera's file is a preview of the first, or a map of its brightness.
_ANIMATED = ("GIF", "PNG", "TIFF", "WEBP")

TRANSPARENT, METADATA, FRAMES = range(3)
REMARKS = {
    TRANSPARENT: "composited on white: {} with transparent pixels",
    METADATA: "taken as stored: {} with metadata that cannot be parsed",
    FRAMES: "taken the first frame of {} with several",
}
"""What may be said of an image -> a note, with a place for how many they are."""

_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF orientation -> pillow's name of what undoes it."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


class Decoded(NamedTuple):
    """pixels: u8[h,w,3]. remarks: keys of REMARKS."""

    pixels: np.ndarray
    remarks: frozenset[int]


@contextlib.contextmanager
def ready() -> Iterator[None]:
    """Pillow's formats ready, its warnings settled: of a decompression bomb an error, of anything else (odd
    metadata) nothing. For all threads at once: what filters there are belongs to the process."""
    from PIL import Image

    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of the formats that this build of pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def endings() -> frozenset[str]:
    """The endings of names, in small letters, that say that a file is an image."""
    from PIL import Image

    formats = _formats()
    return frozenset(end for end, name in Image.registered_extensions().items() if name in formats)


def is_image(path: Path) -> bool:
    """Whether a file begins as an image does."""
    from PIL import Image

    try:
        Image.open(path, formats=_formats()).close()
    except OSError:  # pillow's for a file of no known format, the system's for one that cannot be opened
        return False
    except Exception:  # A format is recognised before its header is read.
        return True
    return True


def may_be_image(path: Path) -> bool:
    """Whether a file is an image, readable or not: by the ending of its name, or by how it begins."""
    return path.suffix.lower() in endings() or is_image(path)


def read(source: Path | bytes, size: int | None) -> Decoded:
    """The image of a file, or of its content, of its own height and width, or of size x size; whatever pillow
    raises."""
    from PIL import Image

    try:
        image, remarks = _open(source)
    except Exception:
        stripped = _without_metadata(source)
        if stripped is None:
            raise
        image, remarks = _open(stripped)
        remarks |= {METADATA}
    rgb, transparent = _to_rgb(image)
    remarks |= {TRANSPARENT} if transparent else set()
    if size:
        # The square is cut out in the very step that resizes, where its edges may lie between two pixels.
        side, (width, height) = min(rgb.size), rgb.size
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        rgb = rgb.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return Decoded(np.asarray(rgb), frozenset(remarks))


def _open(source: Path | bytes) -> tuple[Any, set[int]]:
    """(a PIL image, decoded and upright; remarks)."""
    from PIL import Image

    with Image.open(_file(source), formats=_formats()) as image:
        image.load()
        remarks = {FRAMES} if image.format in _ANIMATED and _has_frames(source, image) else set()
        try:
            turn = _TURNS.get(image.getexif().get(0x0112, 1))
        except Exception:  # What stands there may be anything.
            return image, remarks | {METADATA}
    return (image.transpose(Image.Transpose[turn]) if turn else image), remarks


def _file(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _has_frames(source: Path | bytes, image: Any) -> bool:
    """Whether an image has more than one frame.  image: the first one, decoded."""
    from PIL import Image

    if image.format in ("PNG", "WEBP"):  # which say so in their header
        return image.is_animated
    # The search for a second frame undoes what is decoded and may fail midway: it has an image of its own.
    with contextlib.suppress(Exception), Image.open(_file(source), formats=_ANIMATED) as other:
        return bool(getattr(other, "is_animated", False))
    return False


def _without_metadata(source: Path | bytes) -> bytes | None:
    """A PNG without the chunks that its pixels do not need; None for a file that is no whole PNG. Pillow
    gives up on a PNG with a faulty one."""
    with (
        contextlib.suppress(OSError),
        io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file,
    ):
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if file.read(len(_PNG)) != _PNG:
            return None
        seen, kind = [_PNG], b""
        while kind != b"IEND":
            head = file.read(8)
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            rest = min(length, size) + 4  # and the chunk's checksum
            if kind in _PNG_PIXELS:
                seen += [head, file.read(rest)]
            else:
                file.seek(rest, os.SEEK_CUR)
            if len(kind) < 4:
                return None
        return b"".join(seen)
    return None


def _to_rgb(image: Any) -> tuple[Any, bool]:
    """(a PIL image of mode RGB, whether something in it was transparent)."""
    from PIL import Image

    if image.mode.startswith("I"):  # which pillow would clip at 255
        grey = np.asarray(image, np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey levels beyond 16 bits")
        clear = grey == image.info.get("transparency", -1)
        eight_bits = np.where(clear, 255, np.rint(grey / 257)).astype(np.uint8)
        return Image.fromarray(eight_bits).convert("RGB"), bool(clear.any())
    if image.mode == "F":
        raise ValueError("grey levels of unknown range")
    if image.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in image.info:
        return image.convert("RGB"), False
    image = image.convert("LA") if image.mode == "La" else image
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB"), False
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white, True
