"""Files of weights, local or of the Hugging Face hub -> arrays by key. Nothing loaded is executed."""

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kd_jax.errors import InputError, import_extra

HUB_FILE = "model.safetensors"

# as safetensors and as torch call them
_FLOATS = ("f64", "f32", "f16", "bf16", "float64", "float32", "float16", "bfloat16")


_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts save a state dict, beside the epoch and the like."""

COUNTERS = ("num_batches_tracked", "n_averaged")  # integers of torch's modules that are no weights


def locate(name: str) -> Path:
    """The local file of that name, or the one that the hub has under owner/model, downloaded once."""
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path
    if path.exists() or not re.fullmatch(r"[\w-]+/[\w.-]+", name) or _reader(path):
        expected = "a .safetensors, .pt or .pth file, or a hub name such as timm/resnet50.a1_in1k"
        raise InputError("no such file of weights", expected, name)
    expected = "the extra hub (huggingface_hub), or a local file"
    huggingface_hub = import_extra("huggingface_hub", "weights from the hub need", expected, name)
    try:
        return Path(huggingface_hub.hf_hub_download(name, HUB_FILE))
    except Exception as error:  # its own, its HTTP library's, the network's
        raise InputError("the hub gave nothing", f"{HUB_FILE} of {name}", f"{error!r:.200}") from None


def read(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays by key, f32 in their own layout.

    Errors: InputError for another kind of file, or one that cannot be read.
    """
    reader = _reader(path)
    if reader is None:
        raise InputError("not a file of weights", f"one of {', '.join(READERS)}", path)
    try:
        return reader(path)
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
    if dtype.removeprefix("torch.").lower() not in _FLOATS and not key.endswith(COUNTERS):
        expected = "floating point numbers of 16 bits or more, not quantised"
        raise InputError("not weights", expected, f"{key} of {dtype}")


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """A state dict; a pickled module is refused: reading it would execute what the file says."""
    expected = "PyTorch (the extra bench), or the same weights as .safetensors"
    torch = import_extra("torch", "a torch file needs", expected, path)
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
    for _ in range(len(_WRAPPERS)):  # not for ever: a dict may hold itself
        if not isinstance(tensors, dict):
            break
        inner = [tensors[name] for name in _WRAPPERS if isinstance(tensors.get(name), dict)]
        if len(inner) > 1:
            there = ", ".join(name for name in _WRAPPERS if isinstance(tensors.get(name), dict))
            raise InputError("several state dicts", f"one of {', '.join(_WRAPPERS)} in {path}", there)
        if not inner:
            break
        (tensors,) = inner
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in tensors.items()
    ):
        raise InputError("not a state dict", "a dict of tensors by name", path)
    seen = {key: value for key, value in tensors.items() if not key.endswith(COUNTERS)}
    for key, value in seen.items():
        _require_float(key, str(value.dtype))
    return {key: value.detach().float().numpy() for key, value in seen.items()}


_TORCH = (".pt", ".pth", ".pth.tar", ".th", ".bin", ".ckpt")
READERS = {".safetensors": _read_safetensors} | dict.fromkeys(_TORCH, _read_torch)


def _reader(path: Path) -> Callable[[Path], dict[str, np.ndarray]] | None:
    """By the ending of the file's name, in any case; None for another."""
    return next((READERS[ending] for ending in READERS if path.name.lower().endswith(ending)), None)
