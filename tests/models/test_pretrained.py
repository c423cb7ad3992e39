"""Weights in torchvision's and timm's names: logits as of torchvision's own modules; what is wrong is named.

Where torchvision is not installed, the parity tests are skipped, or fail if KD_JAX_EXPECT_TORCHVISION=1.
"""

import functools
import hashlib
import json
import os
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from kd_jax import models
from kd_jax.errors import InputError
from kd_jax.models import pretrained
from kd_jax.train.sweep import QUICK_COMPILE
from tests.torch_modules import import_or_skip


@pytest.fixture(scope="module")
def torch_models():
    torch, theirs = import_or_skip("torchvision.models")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on busy cores its threads wait for one another at every layer
    yield torch, theirs
    torch.set_num_threads(threads)


def template_of(model, image_shape=(64, 64, 3)):
    return jax.eval_shape(lambda: models.init_variables(model, jax.random.key(0), image_shape))


def randomise(torch, module) -> None:
    """All parameters and statistics anew: He normal kernels, all else near its usual value."""
    generator = torch.Generator().manual_seed(0)
    uniform = lambda like, low, high: like.uniform_(low, high, generator=generator)  # noqa: E731
    for key, value in module.state_dict().items():
        if value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif key.endswith("running_var") or (key.endswith("weight")):
            uniform(value, 0.5, 1.5)
        elif value.ndim == 1:
            uniform(value, -0.2, 0.2)


def narrow(torch, module):
    """VGG's head of 32 instead of 4096 units: the same layers, a hundredth of the weights."""
    layers = [torch.nn.Linear(25088, 32), torch.nn.Linear(32, 32), torch.nn.Linear(32, 10)]
    for position, layer in zip((0, 3, 6), layers, strict=True):
        module.classifier[position] = layer


CASES = {
    "resnet18": "resnet-18",
    "resnet34": "resnet-34",
    "resnet50": "resnet-50",
    "vgg16": "vgg-16-imagenet",
    "vgg16_bn": "vgg-16-bn-imagenet",
    "shufflenet_v2_x0_5": "shufflenet-x0.5",
    "shufflenet_v2_x1_0": "shufflenet-x1.0",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_logits_of_torchvision(name, torch_models, tmp_path):
    """Random weights and statistics, through a file: they differ by less than 1e-5 of the largest logit.
    Images of 75 x 64: odd sides too, and VGG averages 2 x 2 up to 7 x 7."""
    torch, theirs = torch_models
    with torch.device("meta"):  # nothing is drawn that randomise would draw again
        module = getattr(theirs, name)(num_classes=10)
    model = models.build(CASES[name], 10)
    module = module.to_empty(device="cpu").eval()
    if name == "vgg16_bn":
        narrow(torch, module)
        model = model.copy(dense=(32, 32))
    with torch.no_grad():
        randomise(torch, module)
    path = write(torch, module, tmp_path / ("weights.pth" if name == "resnet18" else "weights.safetensors"))
    loaded = pretrained.load(str(path), model, template_of(model))
    assert not loaded.fresh_classifier and loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(loaded.variables["params"]))
    assert num_parameters == sum(parameter.numel() for parameter in module.parameters())
    images = np.random.RandomState(0).rand(2, 75, 64, 3).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    apply = jax.jit(lambda variables: models.forward(model, variables, images)[0])
    logits = np.asarray(apply(jax.tree.map(jnp.asarray, loaded.variables)))
    assert np.abs(expected).max() > 0.01 and np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 1e-5


def write(torch, module, path):
    if path.suffix == ".pth":
        torch.save(module.state_dict(), path)
    else:
        safetensors.numpy.save_file({k: v.numpy() for k, v in module.state_dict().items()}, path)
    return path


# --- what needs no PyTorch, on the smallest of the families -------------------------------------------------


@functools.cache
def small():
    """(model, its variables in numpy) of 3 classes."""
    model = models.build("resnet-8", 3)
    init = functools.partial(models.init_variables, model, image_shape=(8, 8, 3))
    variables = jax.jit(init, compiler_options=QUICK_COMPILE)(jax.random.key(0))
    return model, jax.tree.map(np.asarray, variables)


def their_arrays() -> dict[str, np.ndarray]:
    """The small network's variables under torch's names and in torch's layout, written out by hand."""
    flat = flatten_dict(small()[1])
    names = {"stem_conv": "conv1", "stem_norm": "bn1", "logits": "fc"}
    for i in range(3):
        for k in range(2):
            names[f"stage_{i}_block_0/layer_{k}_conv"] = f"layer{i + 1}.0.conv{k + 1}"
            names[f"stage_{i}_block_0/layer_{k}_norm"] = f"layer{i + 1}.0.bn{k + 1}"
        names[f"stage_{i}_block_0/shortcut_conv"] = f"layer{i + 1}.0.downsample.0"
        names[f"stage_{i}_block_0/shortcut_norm"] = f"layer{i + 1}.0.downsample.1"
    words = {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
    arrays = {}
    for (_, *modules, leaf), array in flat.items():
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
        arrays[f"{names['/'.join(modules)]}.{words[leaf]}"] = array.transpose(axes)
    return arrays | {"bn1.num_batches_tracked": np.asarray(7)}


def save(path, arrays) -> str:
    safetensors.numpy.save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, path)
    return str(path)


def load(path, num_classes=3):
    model = models.build("resnet-8", num_classes)
    return pretrained.load(path, model, template_of(model))


def test_every_array_comes_back_in_its_place(tmp_path):
    path = save(tmp_path / "weights.safetensors", their_arrays())
    loaded = load(path)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, small()[1])
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded.variables))
    assert loaded.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert not loaded.fresh_classifier


def test_half_precision_is_widened(tmp_path):
    halves = {key: array.astype(np.float16) for key, array in their_arrays().items()}
    loaded = load(save(tmp_path / "weights.safetensors", halves))
    expected = jax.tree.map(lambda leaf: leaf.astype(np.float16).astype(np.float32), small()[1])
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, expected)


QUANTISED = {
    "I8": 1, "U8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "BOOL": 1, "F8_E4M3": 1,
    "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
}  # fmt: skip
"""Types of a safetensors file that hold no weights, and their bytes."""


def save_raw(path, dtype: str, size: int) -> str:
    """The small network with a classifier of that type, as the specification of the format has it: length of
    the header (u64), header in JSON, bytes."""
    header, content = {}, b""
    for key, array in their_arrays().items():
        kind, bytes_ = {"f": "F32", "i": "I64"}[array.dtype.kind], np.ascontiguousarray(array).tobytes()
        if key == "fc.weight":
            kind, bytes_ = dtype, bytes(array.size * size)
        place = [len(content), len(content) + len(bytes_)]
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        content += bytes_
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + content)
    return str(path)


@pytest.mark.parametrize("dtype, size", QUANTISED.items())
def test_types_that_hold_no_weights_are_refused(tmp_path, dtype, size):
    line = refusal(save_raw(tmp_path / "weights.safetensors", dtype, size))
    assert "not weights: expected floating point numbers of 16 bits or more" in line
    assert line.endswith(f"given fc.weight of {dtype}")


@pytest.mark.parametrize("dtype, size", {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}.items())
def test_types_that_hold_weights(tmp_path, dtype, size):
    loaded = load(save_raw(tmp_path / "weights.safetensors", dtype, size))
    kernel = loaded.variables["params"]["logits"]["kernel"]
    assert kernel.dtype == np.float32 and not kernel.any()


@pytest.mark.parametrize("name", ["int8", "bool", "float8_e4m3fn", "complex64"])
def test_types_of_torch_that_hold_no_weights(tmp_path, name):
    torch = pytest.importorskip("torch", reason="PyTorch (the extra bench) is not installed")
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in their_arrays().items()}
    tensors["fc.weight"] = tensors["fc.weight"].to(getattr(torch, name))
    torch.save(tensors, tmp_path / "weights.pt")
    assert refusal(str(tmp_path / "weights.pt")).endswith(f"given fc.weight of torch.{name}")


def test_bfloat16_is_widened(tmp_path):
    import ml_dtypes

    halves = {key: array.astype(ml_dtypes.bfloat16) for key, array in their_arrays().items() if array.ndim}
    loaded = load(save(tmp_path / "weights.safetensors", halves))
    expected = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16).astype(np.float32), small()[1])
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, expected)


def test_a_classifier_of_other_classes_is_left_out(tmp_path):
    loaded = load(save(tmp_path / "weights.safetensors", their_arrays()), num_classes=5)
    expected = flatten_dict(small()[1])
    backbone = {path: leaf for path, leaf in expected.items() if "logits" not in path}
    assert loaded.fresh_classifier and len(backbone) == len(expected) - 2
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, unflatten_dict(backbone))


def test_missing_unexpected_and_misshapen_keys_are_named(tmp_path):
    arrays = their_arrays()
    for key in ("bn1.running_mean", "conv1.weight", "fc.bias", "layer1.0.bn1.bias"):
        del arrays[key]
    arrays["fc2.weight"] = np.zeros((3, 4), np.float32)
    arrays["layer1.0.conv1.weight"] = np.zeros((16, 16, 5, 5), np.float32)
    with pytest.raises(InputError) as caught:
        load(save(tmp_path / "weights.safetensors", arrays))
    message = str(caught.value)
    assert "4 missing: bn1.running_mean, conv1.weight, fc.bias, ...;" in message
    assert "1 unexpected: fc2.weight;" in message
    assert "1 of another shape: layer1.0.conv1.weight (16, 16, 5, 5) instead of (16, 16, 3, 3)" in message
    assert "num_batches_tracked" not in message and "\n" not in message


def test_a_classifier_on_other_features_is_misshapen(tmp_path):
    arrays = their_arrays() | {"fc.weight": np.zeros((5, 65), np.float32), "fc.bias": np.zeros(5, np.float32)}
    with pytest.raises(InputError, match=r"2 of another shape: fc.bias \(5,\) instead of \(3,\), fc.weight"):
        load(save(tmp_path / "weights.safetensors", arrays))


def test_timm_keeps_the_first_dense_layer_of_vgg_as_a_convolution():
    """Output o of it is the sum over c, y, x of weight[o, c, y, x] image[y, x, c], as torchvision's is with
    weight[o, c * 49 + y * 7 + x]."""
    model = models.build("vgg-16-imagenet", 3).copy(dense=(4, 6), convolutions=(1, 1, 1, 1, 1))
    template = template_of(model)
    random = np.random.RandomState(0)
    arrays = {}
    for i, (fan_in, fan_out) in enumerate([(3, 64), (64, 128), (128, 256), (256, 512), (512, 512)]):
        arrays[f"features.{3 * i}.weight"] = random.randn(fan_out, fan_in, 3, 3)
        arrays[f"features.{3 * i}.bias"] = random.randn(fan_out)
    weights = {"0": random.randn(4, 512, 7, 7), "3": random.randn(6, 4, 1, 1), "6": random.randn(3, 6)}
    biases = {name: random.randn(len(weight)) for name, weight in weights.items()}
    timm = {"0": "pre_logits.fc1", "3": "pre_logits.fc2", "6": "head.fc"}
    of_timm, of_torchvision = dict(arrays), dict(arrays)
    for name, weight in weights.items():
        of_timm |= {f"{timm[name]}.weight": weight, f"{timm[name]}.bias": biases[name]}
        flat = weight.reshape(len(weight), -1)
        of_torchvision |= {f"classifier.{name}.weight": flat, f"classifier.{name}.bias": biases[name]}
    (one, fresh), (other, _) = (pretrained.convert(model, template, a) for a in (of_timm, of_torchvision))
    assert not fresh
    jax.tree.map(np.testing.assert_array_equal, one, other)
    image = random.randn(7, 7, 512)
    np.testing.assert_allclose(
        image.reshape(-1) @ one["params"]["dense_0"]["kernel"].astype(np.float64),
        np.einsum("ocyx,yxc->o", weights["0"], image),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    assert pretrained.convert(models.build("vgg-16-imagenet", 7).copy(dense=(4, 6), convolutions=(1,) * 5),
                              template_of(model.copy(num_classes=7)), of_timm)[1]  # fmt: skip


def test_a_hub_name_is_downloaded(tmp_path, monkeypatch):
    path, asked = save(tmp_path / "weights.safetensors", their_arrays()), []
    hub = types.SimpleNamespace(hf_hub_download=lambda *words: asked.append(words) or path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    jax.tree.map(np.testing.assert_array_equal, load("timm/resnet8.of_ours-1k").variables, small()[1])
    assert asked == [("timm/resnet8.of_ours-1k", "model.safetensors")]


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_had_is_refused_in_one_line(tmp_path, monkeypatch):
    def unreachable(*words):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=unreachable))
    assert "no route" in refusal("timm/resnet8")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "the extra hub" in refusal("timm/resnet8")
    for name in ("nothing.safetensors", "no/such.pth", "a/b/c", str(tmp_path), "resnet8"):
        assert "no such file of weights" in refusal(name)
    (tmp_path / "weights.h5").write_bytes(b"")
    assert "one of .safetensors, .pt, .pth" in refusal(str(tmp_path / "weights.h5"))
    (tmp_path / "bad.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    assert "damaged weights" in refusal(str(tmp_path / "bad.safetensors"))
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pt").write_bytes(b"")
    assert "a package that is missing" in refusal(str(tmp_path / "weights.pt"))


@pytest.mark.parametrize("spec", ["mlp-5", "wrn-10-1", "vgg-8-bn", "resnet-164"])
def test_families_that_have_none(spec, tmp_path):
    model = models.build(spec, 3)
    with pytest.raises(InputError, match="cannot be read for this model"):
        pretrained.load("nothing.safetensors", model, {})


class Payload:
    """Pickled, it would run a command when read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_torch_file_is_data_alone(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch (the extra bench) is not installed")
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in their_arrays().items()}
    torch.save(tensors, tmp_path / "weights.pt")
    jax.tree.map(np.testing.assert_array_equal, load(str(tmp_path / "weights.pt")).variables, small()[1])
    torch.save({"epoch": 3, "model": tensors}, tmp_path / "saved.pt")  # as training scripts do
    jax.tree.map(np.testing.assert_array_equal, load(str(tmp_path / "saved.pt")).variables, small()[1])
    torch.save({"epoch": 3, "weights": tensors}, tmp_path / "other.pt")
    assert "not a state dict" in refusal(str(tmp_path / "other.pt"))
    torch.save({"epoch": 3, "model": {"a": 1}}, tmp_path / "nested.pt")
    assert "not a state dict" in refusal(str(tmp_path / "nested.pt"))
    torch.save({3: tensors["fc.bias"]}, tmp_path / "numbers.pt")
    assert "not a state dict" in refusal(str(tmp_path / "numbers.pt"))
    torch.save({"fc.bias": Payload(tmp_path / "executed")}, tmp_path / "evil.pth")
    assert "holds more than tensors and is not executed" in refusal(str(tmp_path / "evil.pth"))
    torch.save({**tensors, "fc.bias": torch.full((3,), float("nan"))}, tmp_path / "nan.pt")
    assert "finite numbers" in refusal(str(tmp_path / "nan.pt"))
    parameters = {
        key: torch.nn.Parameter(tensor) for key, tensor in tensors.items() if tensor.is_floating_point()
    }
    torch.save(parameters, tmp_path / "parameters.PT")
    jax.tree.map(np.testing.assert_array_equal, load(str(tmp_path / "parameters.PT")).variables, small()[1])
    assert not (tmp_path / "executed").exists()
    (tmp_path / "evil.pth").write_bytes(b"no torch file")
    assert "damaged weights" in refusal(str(tmp_path / "evil.pth"))
