"""Export: one network of a run folder as a file that is used without this code, and what describes it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from experiments.cli import places, provenance
from experiments.cli.main import log_note
from experiments.settings import networks
from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.evaluate import classifier
from kd_jax.io import run_files
from kd_jax.models import torch_names
from kd_jax.types import Variables

PROGRAM = """\
import jax.export
import numpy as np

student = jax.jit(jax.export.deserialize(bytearray(np.fromfile({name}, np.uint8))).call)
images = np.zeros((2, {shape}), np.uint8)  # any number of images
probabilities = np.asarray(student(images))  # one row an image, one column a class
print(probabilities.argmax(axis=1))
"""
TORCHVISION = """\
from safetensors.torch import load_file
from torchvision.models import {model}

network = {model}(num_classes={num_classes}).eval()
network.load_state_dict(load_file({name}), strict=True)
"""


def run(folder: Path, choice: networks.Choice, kind: str, out: Path) -> None:
    """Writes the network, and a json file beside it.

    folder: of a run of train_teacher or distill.  kind: of FORMATS.  Errors: InputError; then nothing is
        written.
    """
    if out.suffix[1:] != kind and out.suffix[1:] in FORMATS:
        expected = f"a name that ends in .{kind}, or --format={out.suffix[1:]}"
        raise InputError(f"--out names a file of another format than --format={kind}", expected, out)
    about = out.with_name(f"{out.name}.json")
    for path in (out, about):
        places.refuse_existing(path)
    chosen = networks.choose(networks.load(folder), choice)
    if chosen.note:
        log_note(f"note: {chosen.note}")
    content, more, usage = FORMATS[kind](chosen, out)
    description = describe(chosen) | more | {"sha256": hashlib.sha256(content).hexdigest()}
    run_files.write(out, content)
    run_files.write(about, run_files.to_json({"format": kind} | description))
    print(networks.describe(chosen))
    print(f"Wrote {out} ({len(content) / 1e6:.3g} MB) and {about}. {usage}")


def describe(chosen: networks.Chosen) -> dict[str, Any]:
    """What the json file says of every format: what goes in, what comes out, where it comes from."""
    metadata, options = chosen.networks.metadata, chosen.networks.metadata["model_options"]
    return {
        "model": metadata["model"],
        "model_options": options,
        "image_shape": list(chosen.networks.image_shape),
        "normalize": options.get("normalize"),
        "class_names": chosen.class_names,
        "omitted": np.flatnonzero(chosen.omitted).tolist(),
        "correction": chosen.correction,
        "bias": float(chosen.biases[0]),
        "setting": chosen.setting,
        "seed": chosen.seeds[0],
        "run": chosen.networks.description.command,
        "command": provenance.command(),
        "versions": metadata.get("versions", {}),
    }


def to_stablehlo(chosen: networks.Chosen, out: Path) -> tuple[bytes, dict[str, Any], str]:
    """(the file, what is special about it, how it is used)."""
    run = chosen.networks
    content = classifier.to_stablehlo(
        run.model, first_of(chosen.variables), chosen.omitted, chosen.biases[0], run.image_shape
    )
    more = {"input": "images u8[b,h,w,c]", "output": "probabilities f32[b,K]"}
    program = PROGRAM.format(name=quoted(out), shape=", ".join(map(str, run.image_shape)))
    return content, more, f"It is used so:\n\n{program}"


def to_safetensors(chosen: networks.Chosen, out: Path) -> tuple[bytes, dict[str, Any], str]:
    """(the file, what is special about it, how it is used). The classifier's bias holds the correction."""
    run, spec = chosen.networks, chosen.networks.metadata["model"]
    variables = flax.traverse_util.flatten_dict(first_of(chosen.variables))
    bias = ("params", "logits", "bias")
    variables[bias] = variables[bias] + chosen.biases[0] * np.float32(chosen.omitted)
    network = models.network_of(run.model)
    scaled = "" if network is run.model else ", less the mean and divided by the deviation of normalize"
    more = {"input": f"images in [0, 1]{scaled}", "output": "logits"}
    if not torch_names.has_names(network):
        # The names of parameters and of statistics differ in their last part.
        arrays = {".".join(path[1:]): np.ascontiguousarray(leaf) for path, leaf in variables.items()}
        more |= {"names": "kd_jax", "layouts": "kernels [in,out] and [k,k,in,out], images [b,h,w,c]"}
        return safetensors.numpy.save(arrays), more, f"{out}.json describes the network."
    arrays = torch_names.to_arrays(network, flax.traverse_util.unflatten_dict(variables))
    more |= {"names": "torchvision", "layouts": "kernels [out,in] and [out,in,k,k], images [b,c,h,w]"}
    model = torch_names.TORCHVISION.get(spec) if run.image_shape[2] == 3 else None
    program = TORCHVISION.format(model=model, num_classes=len(chosen.class_names), name=quoted(out))
    usage = f"It is used so:\n\n{program}" if model else f"{out}.json describes the network."
    content = safetensors.numpy.save(arrays, {"format": "pt"})
    return content, more | {"torchvision_model": model}, usage


FORMATS: dict[str, Callable[[networks.Chosen, Path], tuple[bytes, dict[str, Any], str]]] = {
    "stablehlo": to_stablehlo,
    "safetensors": to_safetensors,
}


def quoted(path: Path) -> str:
    """A path as Python code in double quotes, for the lines that are printed."""
    return json.dumps(str(path), ensure_ascii=False)


def first_of(variables: Variables) -> Variables:
    return jax.tree.map(lambda leaf: leaf[0], variables)
