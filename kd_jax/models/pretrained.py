"""Weights that others trained: .safetensors, or a torch state dict, in torchvision's or timm's key names.

For ResNet-18/34/50, VGG-13/16 in the ImageNet form (with batch normalisation or not) and ShuffleNet V2; and
for the ResNets of CIFAR, whose weights the distillation literature has under the same names. All of them
compute what torchvision's do; only names and layouts differ: convolutions are OIHW there and HWIO here, dense
kernels are transposed, and VGG's first dense layer reads the image as c, h, w there and as h, w, c here (timm
keeps it as a 7x7 convolution, which says so itself). Nothing loaded is executed.
Left out: Flax checkpoints (checkpoint.py), other key names, and normalising the input, which is the data's.
"""

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import flax.traverse_util
import numpy as np

from kd_jax.errors import InputError
from kd_jax.models import torch_names
from kd_jax.types import Variables

HUB_FILE = "model.safetensors"

# as safetensors and as torch call them
_FLOATS = ("f64", "f32", "f16", "bf16", "float64", "float32", "float16", "bfloat16")


class Pretrained(NamedTuple):
    """variables: f32, without the classifier where the file's has another number of classes. sha256: of the
    file. fresh_classifier: whether it is so."""

    variables: Variables
    sha256: str
    fresh_classifier: bool


def load(name: str, model, template: Variables) -> Pretrained:
    """What the file or hub name holds of the model's variables.

    template: the model's variables, or their shapes.  Errors: InputError naming the keys that are missing,
        unexpected or of another shape.
    """
    if not torch_names.has_names(model):
        expected = "resnet-18, -34, -50, vgg-16-imagenet (or vgg-16-bn-imagenet), shufflenet-x0.5 or -x1.0"
        raise InputError("pretrained weights cannot be read for this model", expected, type(model).__name__)
    path = locate(name)
    arrays = read(path)
    variables, fresh = convert(model, template, arrays)
    with open(path, "rb") as file:
        return Pretrained(variables, hashlib.file_digest(file, "sha256").hexdigest(), fresh)


def locate(name: str) -> Path:
    """The local file of that name, or the one that the hub has under owner/model, downloaded once."""
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path
    if path.exists() or not re.fullmatch(r"[\w-]+/[\w.-]+", name) or path.suffix in READERS:
        expected = "a .safetensors, .pt or .pth file, or a hub name such as timm/resnet50.a1_in1k"
        raise InputError("no such file of weights", expected, name)
    try:
        import huggingface_hub
    except ImportError:
        expected = "the extra hub (huggingface_hub), or a local file"
        raise InputError("weights from the hub need a package that is missing", expected, name) from None
    try:
        return Path(huggingface_hub.hf_hub_download(name, HUB_FILE))
    except Exception as error:  # its own, its HTTP library's, the network's
        raise InputError("the hub gave nothing", f"{HUB_FILE} of {name}", f"{error!r:.200}") from None


def read(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays by key, f32 in their own layout.

    Errors: InputError for another kind of file, or one that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise InputError("not a file of weights", f"one of {', '.join(READERS)}", path)
    try:
        return READERS[suffix](path)
    except InputError:
        raise
    except Exception as error:  # both libraries have many, and torch's unpickler raises any
        raise InputError("damaged weights", f"a readable {path}", f"{error!r:.200}") from None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors.numpy

    with safetensors.safe_open(path, framework="np") as file:  # the header alone
        for key in file.keys():  # noqa: SIM118 - it has no other way
            _require_float(key, file.get_slice(key).get_dtype())
    return safetensors.numpy.load_file(path)


def _require_float(key: str, dtype: str) -> None:
    """InputError unless a tensor's type holds weights as they are. Integers and floats of 8 bits are
    quantised: without their scales they mean nothing."""
    if dtype.removeprefix("torch.").lower() not in _FLOATS and not key.endswith("num_batches_tracked"):
        expected = "floating point numbers of 16 bits or more, not quantised"
        raise InputError("not weights", expected, f"{key} of {dtype}")


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """A state dict; a pickled module is refused: reading it would execute what the file says."""
    try:
        import torch
    except ImportError:
        expected = "PyTorch (the extra bench), or the same weights as .safetensors"
        raise InputError("a torch file needs a package that is missing", expected, path) from None
    try:
        with warnings.catch_warnings(action="ignore"):
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if (
            "global" not in str(error).lower()
        ):  # torch's word for what names code, or else the file is damaged
            raise
        expected = "a state dict, torch.save(model.state_dict(), ...)"
        given = f"{path}, which holds more than tensors and is not executed"
        raise InputError("not a state dict", expected, given) from error
    for name in ("state_dict", "model"):  # as training scripts save it, beside the epoch and the like
        if isinstance(tensors, dict) and isinstance(tensors.get(name), dict):
            tensors = tensors[name]
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in tensors.items()
    ):
        raise InputError("not a state dict", "a dict of tensors by name", path)
    seen = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    for key, value in seen.items():
        _require_float(key, str(value.dtype))
    return {key: value.detach().float().numpy() for key, value in seen.items()}


READERS = {".safetensors": _read_safetensors, ".pt": _read_torch, ".pth": _read_torch}


def convert(model, template: Variables, arrays: dict[str, np.ndarray]) -> tuple[Variables, bool]:
    """(variables, whether the classifier is left out because its number of classes differs).

    template: the model's own variables, whose shapes decide; arrays: by torchvision's or timm's keys, OIHW.
    Errors: InputError that names the keys that are missing, unexpected or of another shape.
    """
    names = torch_names.module_names(model, arrays)
    leaves = {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(template).items()}
    keys = {path: torch_names.key_of(path, names) for path in leaves}
    expected = {key: _their_shape(leaves[path], arrays.get(key)) for path, key in keys.items()}
    classifier = {keys["params", "logits", leaf] for leaf in ("kernel", "bias")}
    fresh = all(
        key in arrays and arrays[key].shape[1:] == expected[key][1:] and arrays[key].shape != expected[key]
        for key in classifier
    )
    given = {key: array for key, array in arrays.items() if not key.endswith("num_batches_tracked")}
    wrong = {
        "missing": sorted(set(expected) - set(given)),
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
