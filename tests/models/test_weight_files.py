"""Files of weights as people have them: prefixes, wrappers, endings, a head that is not there."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from kd_jax.models import pretrained
from tests.models.test_pretrained import load, refusal, save, small, their_arrays


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch (the extra bench) is not installed")


def whole(loaded) -> None:
    assert not loaded.fresh_classifier
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, small()[1])


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "_orig_mod.", "backbone.net.0."])
def test_a_prefix_of_all_keys_is_taken_off(tmp_path, prefix):
    """Also beside the counter of torch's averaged models, which has none."""
    arrays = {prefix + key: array for key, array in their_arrays().items()} | {"n_averaged": np.asarray(3)}
    loaded = load(save(tmp_path / "weights.safetensors", arrays))
    whole(loaded)
    assert loaded.notes == (f"the prefix {prefix} is taken off the keys of the weights",)
    assert load(save(tmp_path / "weights.safetensors", their_arrays())).notes == ()


def test_a_prefix_of_some_keys_stays(tmp_path):
    arrays = {"model." + key: array for key, array in their_arrays().items()}
    arrays["criterion.center.weight"] = np.zeros((3, 4), np.float32)
    line = refusal(save(tmp_path / "weights.safetensors", arrays))
    assert "missing: bn1.bias" in line and "unexpected: criterion.center.weight, model." in line


@pytest.mark.parametrize(
    "key, prefix",
    [("bn1.weight", ""), ("layer1.0.bn1.weight", "layer1.0."), ("weight", ""), ("a.b.c.d", "a.b.")],
)
def test_what_is_a_prefix(key, prefix):
    one = np.zeros(1, np.float32)
    assert pretrained.without_prefix({key: one})[1] == prefix
    assert pretrained.without_prefix({}) == ({}, "")
    assert pretrained.without_prefix({key: one, "other.weight": one})[1] == ""


def test_a_head_that_is_not_there_starts_afresh(tmp_path):
    arrays = {key: array for key, array in their_arrays().items() if not key.startswith("fc.")}
    loaded = load(save(tmp_path / "weights.safetensors", arrays))
    expected = {path: leaf for path, leaf in flatten_dict(small()[1]).items() if "logits" not in path}
    assert loaded.fresh_classifier
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, unflatten_dict(expected))
    half = arrays | {"fc.weight": their_arrays()["fc.weight"]}
    assert "1 missing: fc.bias" in refusal(save(tmp_path / "weights.safetensors", half))


def tensors_of(torch):
    return {key: torch.from_numpy(np.array(array)) for key, array in their_arrays().items()}


@pytest.mark.parametrize("words", ["net", "model_state_dict", "state_dict", "model", "model state_dict"])
@pytest.mark.parametrize("ending", [".pth", ".pth.tar", ".PT"])
def test_wrappers_of_training_scripts(torch, tmp_path, words, ending):
    saved = {f"module.{key}": value for key, value in tensors_of(torch).items()}
    for word in reversed(words.split()):
        saved = {word: saved, "epoch": 90, "best": torch.tensor(0.5)}
    torch.save(saved, tmp_path / f"weights{ending}")
    loaded = load(str(tmp_path / f"weights{ending}"))
    whole(loaded)
    assert loaded.notes == ("the prefix module. is taken off the keys of the weights",)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float64"])
def test_floats_of_torch_become_single(torch, tmp_path, name):
    saved = {
        key: value.to(getattr(torch, name)) if value.is_floating_point() else value
        for key, value in tensors_of(torch).items()
    }
    torch.save({"net": saved}, tmp_path / "weights.pth.tar")
    loaded = flatten_dict(load(str(tmp_path / "weights.pth.tar")).variables)
    for path, leaf in flatten_dict(small()[1]).items():
        assert loaded[path].dtype == np.float32
        expected = torch.from_numpy(np.array(leaf)).to(getattr(torch, name)).float().numpy()
        np.testing.assert_array_equal(loaded[path], expected)


def test_what_is_no_state_dict(torch, tmp_path):
    tensors, path = tensors_of(torch), tmp_path / "weights.pth"
    torch.save({"net": tensors, "model": tensors}, path)
    assert "several state dicts" in refusal(str(path)) and refusal(str(path)).endswith("given model, net")
    torch.save({"weights": tensors}, path)
    assert "not a state dict: expected a dict of tensors by name" in refusal(str(path))
    itself: dict = {}
    itself["model"] = itself
    torch.save(itself, path)
    assert "not a state dict" in refusal(str(path))
    for content in (b"", b"PK\3\4 and no more", path.read_bytes()[:-30]):
        (tmp_path / "weights.pth.tar").write_bytes(content)
        assert "weights.pth.tar" in refusal(str(tmp_path / "weights.pth.tar"))
    (tmp_path / "weights.tar").write_bytes(b"")
    assert "not a file of weights: expected one of .safetensors, .pt, .pth" in refusal(
        str(tmp_path / "weights.tar")
    )
