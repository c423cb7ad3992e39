"""Variables written in torchvision's names: its modules load them strictly and compute the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from kd_jax import models
from kd_jax.models import pretrained, torch_names
from tests.models import test_pretrained
from tests.models.test_pretrained import small, template_of, their_arrays

torch_models = test_pretrained.torch_models  # the fixture


def counters_of(arrays):
    return {key for key in arrays if key.endswith("num_batches_tracked")}


def random_variables(model):
    """He normal kernels, all else near its usual value, f32."""
    random, flat = np.random.RandomState(0), {}
    for path, leaf in flatten_dict(template_of(model)).items():
        if len(leaf.shape) > 1:
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            flat[path] = (scale * random.standard_normal(leaf.shape)).astype(np.float32)
        else:
            low, high = (0.5, 1.5) if path[-1] in ("scale", "var") else (-0.2, 0.2)
            flat[path] = random.uniform(low, high, leaf.shape).astype(np.float32)
    return unflatten_dict(flat)


def test_what_is_written_is_what_was_read():
    """By a map that is written out by hand."""
    arrays = torch_names.to_arrays(*small())
    assert not any(arrays[key] for key in counters_of(arrays))
    theirs = {key: array for key, array in their_arrays().items() if key not in counters_of([key])}
    assert arrays.keys() - counters_of(arrays) == theirs.keys()
    for key, array in theirs.items():
        np.testing.assert_array_equal(arrays[key], array)


def test_the_first_dense_layer_of_vgg():
    """Output o there is the sum over c, y, x of weight[o, c * 49 + y * 7 + x] image[c, y, x]."""
    kernel = np.random.RandomState(0).randn(7 * 7 * 512, 3).astype(np.float32)
    image = np.random.RandomState(1).randn(7, 7, 512).astype(np.float32)
    weight = torch_names._their_layout(kernel)
    found = weight.astype(np.float64) @ image.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(found, image.reshape(-1) @ kernel.astype(np.float64), rtol=1e-6, atol=1e-6)


def test_families_without_names():
    for spec in ("mlp-5", "cnn-4-bn", "wrn-10-1", "vgg-8-bn", "resnet-164"):
        assert not torch_names.has_names(models.build(spec, 3))
    for spec in ("resnet-20", *torch_names.TORCHVISION):
        assert torch_names.has_names(models.build(spec, 3))


@pytest.mark.slow
@pytest.mark.parametrize("spec", torch_names.TORCHVISION)
def test_torchvision_loads_it_strictly(spec, torch_models):
    """Keys and shapes of all; of the smaller ones the logits, which differ by below 1e-5 of the largest."""
    torch, theirs = torch_models
    model = models.build(spec, 10)
    with torch.device("meta"):  # nothing is drawn that is replaced at once
        module = getattr(theirs, torch_names.TORCHVISION[spec])(num_classes=10)
        if spec.startswith("vgg"):
            test_pretrained.narrow(torch, module)
            model = model.copy(dense=(32, 32))
    variables = random_variables(model)
    arrays = torch_names.to_arrays(model, variables)
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    module.load_state_dict(tensors, strict=True, assign=True)
    back, fresh = pretrained.convert(model, template_of(model), arrays)
    assert not fresh
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    if spec not in ("resnet-18", "shufflenet-x0.5"):
        return
    images = np.random.RandomState(0).rand(2, 64, 64, 3).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    apply = jax.jit(lambda variables: models.forward(model, variables, images)[0])
    logits = np.asarray(apply(jax.tree.map(jnp.asarray, variables)))
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 1e-5
