"""Ways to spoil what a program reads: bytes, JSON, comma-separated cells, members of an .npz. All are
functions of a random.Random and the whole input, so a seed gives the same spoilt input again."""

import copy
import io
import json
import random
import zipfile
from typing import Any

import numpy as np

ODD = (
    None, True, False, 0, -1, 1, 2, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, 1e-320, float("nan"),
    float("inf"), "", "a", "none", "../../outside", "/etc/hostname", "~nobody/x", "a\0b", "\ud800",
    "\u202eabc", "\n\r\x1b[2J", "<script>alert(1)</script>", "${7*7}{{7*7}}", "%s%n", "9" * 5000,
    "x" * 3000, "\u017f\u0663\u00b2", [], {}, [[]], [None], [1] * 300, {"a": None},
    [{"name": "a", "omitted": []}],
)  # fmt: skip
"""Values that hardly anything expects."""


def spoil_bytes(draw: random.Random, content: bytes) -> bytes:
    """One to three places flipped, cut out, doubled, overwritten or cut off."""
    spoilt = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        place, length = draw.randrange(len(spoilt) + 1), draw.choice((1, 1, 4, 50))
        how = draw.randrange(6)
        if how == 0 and place < len(spoilt):
            spoilt[place] ^= 1 << draw.randrange(8)
        elif how == 1:
            del spoilt[place : place + length]
        elif how == 2:
            spoilt[place:place] = spoilt[place : place + length]
        elif how == 3:
            spoilt[place : place + length] = draw.randbytes(length)
        elif how == 4:
            del spoilt[place:]
        else:
            spoilt[place:place] = draw.choice((b"\0", b"\xff", b"\r", b'"', b"{", b"-", b"NaN", b"[" * 3000))
    return bytes(spoilt)


def spoil_json(draw: random.Random, value: Any) -> Any:
    """A copy with one to three of its values replaced, removed, doubled, renamed or wrapped."""
    holder = [copy.deepcopy(value)]
    for _ in range(draw.randint(1, 3)):
        container, key = draw.choice(list(_places(holder)))
        how = draw.randrange(6)
        if how <= 2:
            container[key] = copy.deepcopy(draw.choice(ODD))
        elif how == 3 and container is not holder:
            del container[key]
        elif how == 4 and isinstance(container, list) and container is not holder:
            container.insert(key, copy.deepcopy(container[key]))
        elif how == 5 and isinstance(container, dict):
            container[str(draw.choice(ODD))[:50]] = container.pop(key)
        else:
            container[key] = draw.choice(([container[key]], {"a": container[key]}, str(container[key])))
    return holder[0]


def _places(holder: list):
    """(container, key) of every value, `holder`'s one included."""
    waiting: list[Any] = [holder]
    while waiting:
        container = waiting.pop()
        for key in container if isinstance(container, dict) else range(len(container)):
            yield container, key
            if isinstance(container[key], dict | list) and container[key]:
                waiting.append(container[key])


def json_bytes(draw: random.Random, content: bytes) -> bytes:
    """Of a JSON file: spoilt as JSON, or once in four times as bytes."""
    if draw.randrange(4) == 0:
        return spoil_bytes(draw, content)
    return json.dumps(spoil_json(draw, json.loads(content))).encode()


def csv_bytes(draw: random.Random, content: bytes) -> bytes:
    """Of a file of comma-separated values: cells replaced, lines removed, doubled or cut, or bytes spoilt."""
    if draw.randrange(4) == 0:
        return spoil_bytes(draw, content)
    lines = content.decode().split("\n")[:-1]
    for _ in range(draw.randint(1, 3)):
        row = draw.randrange(len(lines))
        how = draw.randrange(5)
        if how <= 1:
            cells = lines[row].split(",")
            cells[draw.randrange(len(cells))] = _cell(draw)
            lines[row] = ",".join(cells)
        elif how == 2 and len(lines) > 1:
            del lines[row]
        elif how == 3:
            lines.insert(row, draw.choice(lines))
        elif len(lines) > 2:
            del lines[draw.randrange(1, len(lines)) :]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def _cell(draw: random.Random) -> str:
    numbers = (
        "1.5",
        "-0.5",
        "1e9",
        "1e400",
        "0x1",
        "1_0",
        "\u0663",
        "1e-400",
        "diverged",
        "-0",
        "4.0",
        "99",
        "2",
        "1",
    )
    return draw.choice((*numbers, str(draw.choice(ODD))))


def npz_bytes(draw: random.Random, content: bytes) -> bytes:
    """Of an .npz: a member's bytes, type, shape or name spoilt and zipped again, or the whole as bytes."""
    if draw.randrange(4) == 0:
        return spoil_bytes(draw, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    how = draw.randrange(5)
    if how == 0:
        members[name] = spoil_bytes(draw, members[name])
    elif how == 1:
        members[draw.choice(("../outside.npy", "/etc/x.npy", "a\0.npy", name.upper()))] = members.pop(name)
    else:
        members[name] = _member(_odd_array(draw, np.load(io.BytesIO(members[name]), allow_pickle=False)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for key, member in members.items():
            archive.writestr(key, member)
    return buffer.getvalue()


def _member(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _odd_array(draw: random.Random, array: np.ndarray) -> np.ndarray:
    """The array with another type, another shape or other values."""
    how = draw.randrange(7)
    if how == 0:
        kind = draw.choice(("f2", "f8", "c8", "b1", "i1", "u8", "S3", "U2", "M8[s]", "V4"))
        return np.zeros(array.shape, kind)
    if how == 1:
        return array[:0] if array.ndim else array.reshape(1)
    if how == 2:
        return array[None]
    if how == 3:
        return array.reshape(-1)
    if how == 4:
        return np.asfortranarray(array[..., ::-1] if array.ndim else array)
    if how == 5 and array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        return np.full_like(array, draw.choice((info.min, info.max, 3)))
    return np.zeros([(), (0, 3), (2, 0), (1,), (2, 3), (1, 1, 1, 1, 1)][draw.randrange(6)], array.dtype)
