"""Probes, similarity and separability against independent formulas and known cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from kd_jax import models
from kd_jax.evaluate import representation
from kd_jax.models import build, forward, init_variables, scale_pixels

RANDOM = np.random.RandomState(0)


def clusters(num=300, classes=3, distance=20.0, dimensions=8):
    """(features, labels): a normal cloud a class, this far apart."""
    labels = np.arange(num) % classes
    centres = distance * np.eye(dimensions)[:classes]
    return (centres[labels] + RANDOM.normal(size=(num, dimensions))).astype(np.float32), labels


@pytest.mark.parametrize("judge", [representation.probe, representation.nearest_neighbours])
def test_what_lies_apart_is_told_apart_and_noise_is_not(judge):
    (x, labels), (y, held_out) = clusters(), clusters()
    recall = judge(x, labels, y, held_out, 4)
    np.testing.assert_array_equal(recall[:3], 1)
    assert np.isnan(recall[3])  # no example
    noise = judge(RANDOM.normal(size=x.shape), labels, RANDOM.normal(size=y.shape), held_out, 3)
    assert 0.15 < np.mean(noise) < 0.5


def test_recalls_by_hand():
    found = representation.recalls(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]), 3)
    np.testing.assert_allclose(found, [2 / 3, 1, np.nan])


def test_cka_is_that_of_the_kernels():
    """HSIC of the centred Gram matrices K = x x^T, L = y y^T: tr(K L) / sqrt(tr(K K) tr(L L))."""
    x, y = RANDOM.normal(size=(40, 7)), RANDOM.normal(size=(40, 5))
    centring = np.eye(40) - 1 / 40
    gram = [centring @ z @ z.T @ centring for z in (x, y)]
    expected = np.trace(gram[0] @ gram[1]) / np.sqrt(
        np.trace(gram[0] @ gram[0]) * np.trace(gram[1] @ gram[1])
    )
    assert representation.linear_cka(x, y) == pytest.approx(expected)


def test_cka_knows_no_rotation_scale_or_shift():
    x = RANDOM.normal(size=(50, 6))
    rotation, _ = np.linalg.qr(RANDOM.normal(size=(6, 6)))
    assert representation.linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1)
    assert np.isnan(representation.linear_cka(x, np.ones((50, 2))))
    with pytest.raises(ValueError, match="50 and 40"):
        representation.linear_cka(x, x[:40])


def test_separability_by_its_formulas():
    x, labels = clusters(60, 2, 6.0)
    member = labels == 0
    distances = cdist(np.float64(x), np.float64(x))
    scores = []
    for i in np.flatnonzero(member):
        within = distances[i, member].sum() / (member.sum() - 1)
        beyond = distances[i, ~member].mean()
        scores.append((beyond - within) / max(beyond, within))
    found = representation.separability(x, member)
    assert found["silhouette"] == pytest.approx(np.mean(scores))
    means = [np.float64(x[member]).mean(0), np.float64(x[~member]).mean(0)]
    squares = np.concatenate(
        [
            np.sum((np.float64(x[side]) - mean) ** 2, 1)
            for side, mean in zip((member, ~member), means, strict=True)
        ]
    )
    expected = np.linalg.norm(means[0] - means[1]) / np.sqrt(squares.mean())
    assert found["centroid_distance"] == pytest.approx(expected)
    alike = representation.separability(np.zeros((6, 2), np.float32), np.arange(6) < 3)
    assert np.isnan(alike["centroid_distance"])


@pytest.mark.parametrize("how", ["pca", "tsne"])
def test_pictures_keep_clusters_apart(how):
    x, labels = clusters(120, 2, 40.0)
    plane = representation.embed(x, how)
    centres = [plane[labels == k].mean(axis=0) for k in range(2)]
    spread = max(np.linalg.norm(plane[labels == k] - centres[k], axis=1).mean() for k in range(2))
    assert plane.shape == (120, 2) and np.linalg.norm(centres[0] - centres[1]) > 2 * spread


def test_embed_knows_two_ways():
    with pytest.raises(ValueError, match="umap"):
        representation.embed(np.zeros((5, 3)), "umap")


@pytest.mark.parametrize("spec", ["mlp" + 11 * "-6", "cnn-4-6"])
def test_features_are_the_models_own_whatever_the_batch(spec):
    model = build(spec, 3)
    images = RANDOM.randint(0, 256, (11, 8, 8, 1)).astype(np.uint8)
    variables = init_variables(model, jax.random.key(0), (8, 8, 1))
    logits, features, _ = forward(model, variables, scale_pixels(jnp.asarray(images)))
    found = representation.features_of(model, variables, images, batch_size=4)
    assert list(found) == [*features, "logits"]  # by depth: hidden_10 is the last, though JAX sorts the names
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-5)
    for name, x in features.items():
        np.testing.assert_allclose(found[name], np.asarray(x).reshape(11, -1), rtol=1e-4, atol=1e-5)


def test_large_maps_are_averaged_over_places():
    x = RANDOM.normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(models.as_vectors(jnp.asarray(x)), x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(models.as_vectors(jnp.asarray(x[:, :8, :8])), x[:, :8, :8].reshape(2, -1))
