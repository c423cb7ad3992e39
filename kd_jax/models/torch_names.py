"""Variables in torchvision's key names and layouts: the map that reading (pretrained.py) and writing share.

For ResNets (torchvision's and those of CIFAR), VGG in the ImageNet form and ShuffleNet V2; others have none.
"""

import flax.traverse_util
import numpy as np

from kd_jax.models.resnet import ResNet
from kd_jax.models.shufflenet import BLOCKS, ShuffleNet
from kd_jax.models.vgg import VGG
from kd_jax.types import Variables

TORCHVISION = {f"resnet-{depth}": f"resnet{depth}" for depth in (18, 34, 50)}
TORCHVISION |= {f"vgg-{depth}-imagenet": f"vgg{depth}" for depth in (13, 16)}
TORCHVISION |= {f"vgg-{depth}-bn-imagenet": f"vgg{depth}_bn" for depth in (13, 16)}
TORCHVISION |= {"shufflenet-x0.5": "shufflenet_v2_x0_5", "shufflenet-x1.0": "shufflenet_v2_x1_0"}
"""Spec of a network of three channels -> the function of torchvision.models that makes the same one."""


def has_names(model) -> bool:
    """Whether torchvision, or the distillation literature after it, has key names for the model."""
    return isinstance(model, ResNet | ShuffleNet) or (isinstance(model, VGG) and bool(model.dense))


def to_arrays(model, variables: Variables) -> dict[str, np.ndarray]:
    """The variables by torchvision's keys, in its layouts: a state dict that its module loads strictly.

    model: one that `has_names`.  Returns: f32, convolutions OIHW, dense kernels [out,in]; the counters of
        batches that torch's normalisations have are i64[], 0.
    """
    names, arrays = module_names(model, {}), {}
    for path, leaf in flax.traverse_util.flatten_dict(variables).items():
        key = key_of(path, names)
        arrays[key] = np.ascontiguousarray(_their_layout(np.asarray(leaf)))
        if key.endswith(".running_mean"):
            arrays[key.removesuffix("running_mean") + "num_batches_tracked"] = np.zeros((), np.int64)
    return arrays


def _their_layout(array: np.ndarray) -> np.ndarray:
    """The inverse of what pretrained.py does to their arrays."""
    if array.ndim == 2 and array.shape[0] == 7 * 7 * 512:  # VGG's first dense layer, of an image h, w, c
        return array.reshape(7, 7, 512, -1).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
    return array.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim])


def key_of(path: tuple[str, ...], names: dict[str, str]) -> str:
    """Their key of a variable of ours, such as ("params", "stem_conv", "kernel")."""
    leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return f"{names['/'.join(path[1:-1])]}.{leaf.get(path[-1], path[-1])}"


def module_names(model, arrays) -> dict[str, str]:
    """Path of our modules, joined by /, -> the prefix of their keys. Lists more modules than there may be."""
    if isinstance(model, ResNet):
        return _resnet_names(model)
    return _shufflenet_names() if isinstance(model, ShuffleNet) else _vgg_names(model, arrays)


def _resnet_names(model: ResNet) -> dict[str, str]:
    names = {"stem_conv": "conv1", "stem_norm": "bn1", "logits": "fc"}
    for i, num in enumerate(model.blocks):
        for j in range(num):
            ours, theirs = f"stage_{i}_block_{j}", f"layer{i + 1}.{j}"
            for k in range(3):
                names |= {f"{ours}/layer_{k}_conv": f"{theirs}.conv{k + 1}"}
                names |= {f"{ours}/layer_{k}_norm": f"{theirs}.bn{k + 1}"}
            names |= {f"{ours}/shortcut_conv": f"{theirs}.downsample.0"}
            names |= {f"{ours}/shortcut_norm": f"{theirs}.downsample.1"}
    return names


def _shufflenet_names() -> dict[str, str]:
    """Theirs are positions in a sequence in which ReLUs count (a depthwise convolution has none)."""
    names = {"logits": "fc"}
    layers = {"stem": "conv1.0", "last": "conv5.0"}
    within = {"passing_0": "branch1.0", "passing_1": "branch1.2"}
    within |= {"layer_0": "branch2.0", "layer_1": "branch2.3", "layer_2": "branch2.5"}
    for i, num in enumerate(BLOCKS):
        for j in range(num):
            for ours, theirs in within.items():
                layers[f"stage_{i}_block_{j}/{ours}"] = f"stage{i + 2}.{j}.{theirs}"
    for ours, theirs in layers.items():
        prefix, position = theirs.rsplit(".", 1)
        names |= {f"{ours}_conv": theirs, f"{ours}_norm": f"{prefix}.{int(position) + 1}"}
    return names


def _vgg_names(model: VGG, arrays) -> dict[str, str]:
    """Theirs are positions in a sequence in which ReLUs and poolings count."""
    timm = "pre_logits.fc1.weight" in arrays
    dense = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
    dense = dense if timm else ("classifier.0", "classifier.3", "classifier.6")
    names = dict(zip(("dense_0", "dense_1", "logits"), dense, strict=True))
    position = 0
    for i, num in enumerate(model.convolutions):
        for j in range(num):
            names |= {f"stage_{i}_{j}_conv": f"features.{position}"}
            names |= {f"stage_{i}_{j}_norm": f"features.{position + 1}"}
            position += 3 if model.normalized else 2
        position += 1
    return names
