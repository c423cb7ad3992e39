"""Image files that tests draw, and the line that refuses a folder."""

import zlib

import numpy as np
import pytest
from PIL import Image

from kd_jax.errors import InputError


def pixels(seed, shape=(6, 5, 3)):
    return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)


def draw(path, image, **options):
    """Writes an image file; image: a PIL image or u8[h,w(,3)]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def png_of(width, height):
    """The file of a black image, made without it."""

    def png_chunk(kind, content):
        code = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + code.to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    )


def refused(load, **options):
    """The error's line."""
    with pytest.raises(InputError) as caught:
        load(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
