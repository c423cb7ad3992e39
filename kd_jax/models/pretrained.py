"""Weights that others trained: .safetensors, or a torch state dict, in torchvision's or timm's key names.

For ResNet-18/34/50, VGG-13/16 in the ImageNet form (with batch normalisation or not) and ShuffleNet V2; and
for the ResNets of CIFAR, whose weights the distillation literature has under the same names. All of them
compute what torchvision's do; only names and layouts differ: convolutions are OIHW there and HWIO here, dense
kernels are transposed, and VGG's first dense layer reads the image as c, h, w there and as h, w, c here (timm
keeps it as a 7x7 convolution, which says so itself). Nothing loaded is executed.
A prefix that all keys have, as wrappers of a module leave it (`module.`, `model.`), is taken off.
Left out: Flax checkpoints (checkpoint.py), other key names, and normalising the input, which is the data's.
"""

import hashlib
from typing import NamedTuple

import flax.traverse_util
import numpy as np

from kd_jax.errors import InputError
from kd_jax.models import torch_names
from kd_jax.models.weight_files import COUNTERS, locate, read
from kd_jax.types import Variables


class Pretrained(NamedTuple):
    """variables: f32, without the classifier where the file has none, or one of another number of classes.
    sha256: of the file. fresh_classifier: whether it is so. notes: how the file was read."""

    variables: Variables
    sha256: str
    fresh_classifier: bool
    notes: tuple[str, ...] = ()


def load(name: str, model, template: Variables) -> Pretrained:
    """What the file or hub name holds of the model's variables.

    template: the model's variables, or their shapes.  Errors: InputError naming the keys that are missing,
        unexpected or of another shape.
    """
    if not torch_names.has_names(model):
        expected = "resnet-18, -34, -50, vgg-16-imagenet (or vgg-16-bn-imagenet), shufflenet-x0.5 or -x1.0"
        raise InputError("pretrained weights cannot be read for this model", expected, type(model).__name__)
    path = locate(name)
    arrays, prefix = without_prefix(read(path))
    variables, fresh = convert(model, template, arrays)
    notes = (f"the prefix {prefix} is taken off the keys of the weights",) if prefix else ()
    with open(path, "rb") as file:
        return Pretrained(variables, hashlib.file_digest(file, "sha256").hexdigest(), fresh, notes)


def without_prefix(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """(arrays by keys without what all of them begin with, that prefix, as in "module.model.").

    A network has several modules: parts of a key that all share are no module of it.
    """
    keys = [key.split(".") for key in arrays if not key.endswith(COUNTERS)]
    depth = 0
    while all(len(key) > depth + 2 and key[depth] == keys[0][depth] for key in keys) and keys:
        depth += 1
    if not depth:
        return arrays, ""
    prefix = ".".join(keys[0][:depth]) + "."
    return {key.removeprefix(prefix): array for key, array in arrays.items()}, prefix


def convert(model, template: Variables, arrays: dict[str, np.ndarray]) -> tuple[Variables, bool]:
    """(variables, whether the classifier is left out: it is not there, or its number of classes differs).

    template: the model's own variables, whose shapes decide; arrays: by torchvision's or timm's keys, OIHW.
    Errors: InputError that names the keys that are missing, unexpected or of another shape.
    """
    names = torch_names.module_names(model, arrays)
    leaves = {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(template).items()}
    keys = {path: torch_names.key_of(path, names) for path in leaves}
    expected = {key: _their_shape(leaves[path], arrays.get(key)) for path, key in keys.items()}
    classifier = {keys["params", "logits", leaf] for leaf in ("kernel", "bias")}
    absent = not classifier & arrays.keys()
    fresh = absent or all(
        key in arrays and arrays[key].shape[1:] == expected[key][1:] and arrays[key].shape != expected[key]
        for key in classifier
    )
    given = {key: array for key, array in arrays.items() if not key.endswith(COUNTERS)}
    wrong = {
        "missing": sorted(set(expected) - set(given) - (classifier if absent else set())),
        "unexpected": sorted(set(given) - set(expected)),
        "of another shape": [
            f"{key} {given[key].shape} instead of {shape}"
            for key, shape in expected.items()
            if key in given and given[key].shape != shape and not (fresh and key in classifier)
        ],
    }
    if any(wrong.values()):
        found = "; ".join(_some(what, which) for what, which in wrong.items() if which)
        raise InputError("weights of another network", "the keys of this model in torchvision's names", found)
    taken = {
        path: _layout(given[key], leaves[path])
        for path, key in keys.items()
        if not (fresh and key in classifier)
    }
    for path, array in taken.items():
        if not np.all(np.isfinite(array)):
            raise InputError("damaged weights", "finite numbers", f"others in {keys[path]}")
    return flax.traverse_util.unflatten_dict(taken), fresh


def _some(what: str, keys: list[str]) -> str:
    return f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"


def _their_shape(shape: tuple[int, ...], given: np.ndarray | None) -> tuple[int, ...]:
    """Of a variable whose shape here is `shape`. A dense layer may be a convolution over the whole image
    there (timm), which its number of axes says."""
    if len(shape) == 4:
        height, width, fan_in, fan_out = shape
        return fan_out, fan_in, height, width
    if len(shape) == 2 and given is not None and given.ndim == 4 and given.shape[-1]:
        side = given.shape[-1]
        return shape[1], shape[0] // side**2, side, side
    return shape[::-1]


def _layout(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Their array as ours of that shape, f32."""
    if array.ndim == 2 and shape[0] == 7 * 7 * 512:  # VGG's first dense layer; no other has as many inputs
        array = array.reshape(-1, 512, 7, 7)
    axes = (2, 3, 1, 0) if array.ndim == 4 else tuple(reversed(range(array.ndim)))
    return np.ascontiguousarray(array.transpose(axes).reshape(shape), np.float32)
