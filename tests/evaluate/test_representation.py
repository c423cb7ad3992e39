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


def unbiased_hsic(a, b):
    """Song et al. 2007, equation 5, term by term: O(N^2) memory, no centring, no algebra."""
    n, one = len(a), np.ones(len(a))
    a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
    trace = np.trace(a @ b)
    totals = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
    return (trace + totals - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3))


@pytest.mark.parametrize("shape", [(4, 3, 2), (40, 7, 5), (40, 90, 60), (30, 200, 4)])
def test_cka_is_that_of_the_gram_matrices(shape):
    """Nguyen, Raghu & Kornblith 2021, section 3, the features neither centred nor independent."""
    num, width, other = shape
    x = 3 + RANDOM.normal(size=(num, width))
    y = x @ RANDOM.normal(size=(width, other)) + RANDOM.normal(size=(num, other)) - 5
    a, b = x @ x.T, y @ y.T
    expected = unbiased_hsic(a, b) / np.sqrt(unbiased_hsic(a, a) * unbiased_hsic(b, b))
    assert representation.linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("num", [300, 2700])
def test_cka_of_unrelated_features_is_0_whatever_their_number(num):
    """Independent x, y: HSIC(x, y) is a mean over N (N - 1) / 2 pairs of terms x_i.x_j * y_i.y_j that are
    uncorrelated, of mean 0 and variance |Cov x|^2 |Cov y|^2 (Frobenius); HSIC(x, x) has the mean |Cov x|^2.
    So CKA has the standard deviation sqrt(2 / (N (N - 1))), whatever the widths; five of it are allowed. The
    biased estimate is the root of D / (D + N) times E / (E + N): 0.72 of 300 examples, 0.23 of 2,700."""
    random = np.random.RandomState(1)
    x, y = random.normal(size=(num, 576)), random.normal(size=(num, 1152))
    assert abs(representation.linear_cka(x, y)) < 5 * np.sqrt(2 / (num * (num - 1)))


@pytest.mark.parametrize(("num", "width"), [(100, 300), (1000, 30)])
def test_cka_of_related_features_does_not_depend_on_their_number(num, width):
    """y = x + noise of the same variance: |Cov(x, y)|^2 = D, |Cov x|^2 = D, |Cov y|^2 = 4 D, so 1/2. The
    biased estimate is (1 + 2 r) / (2 (1 + r)), r = D / N: 0.875 of 100 examples of width 300. Of these normal
    features HSIC(x, y) has the relative variance 12 / (N D) + 10 / N^2, HSIC(x, x) and HSIC(y, y) have
    8 / (N D) + 4 / N^2 (to leading order). Five standard deviations are allowed, none of them cancelling.
    """
    random = np.random.RandomState(2)
    x = random.normal(size=(num, width))
    across, within = np.sqrt(12 / num / width + 10 / num**2), np.sqrt(8 / num / width + 4 / num**2)
    found = representation.linear_cka(x, x + random.normal(size=x.shape))
    assert found == pytest.approx(0.5, abs=5 * 0.5 * (across + within))


def test_cka_knows_no_rotation_scale_or_shift():
    x = RANDOM.normal(size=(50, 6))
    rotation, _ = np.linalg.qr(RANDOM.normal(size=(6, 6)))
    assert representation.linear_cka(x, x) == pytest.approx(1)
    assert representation.linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1)
    with pytest.raises(ValueError, match="50 and 40"):
        representation.linear_cka(x, x[:40])


def test_cka_may_be_negative():
    """The two closest pairs of four points are the two farthest of the other network."""
    x = np.array([[0.0, 0], [0, 1], [2, 0], [2, 1]])
    y = x[[0, 2, 3, 1]]
    a, b = x @ x.T, y @ y.T
    expected = unbiased_hsic(a, b) / unbiased_hsic(a, a)
    assert expected < -0.1 and representation.linear_cka(x, y) == pytest.approx(expected)


def test_cka_is_undefined_of_too_few_examples_and_where_nothing_varies():
    x = RANDOM.normal(size=(50, 6)).astype(np.float32)
    assert all(np.isnan(representation.linear_cka(x[:num], x[:num])) for num in range(4))
    for constant in (np.ones((50, 2)), np.full((50, 3), 0.1, np.float32), np.zeros((50, 1))):
        assert np.isnan(representation.linear_cka(x, constant)) and np.isnan(
            representation.linear_cka(constant, x)
        )
    single = np.zeros((50, 2))
    single[7] = 1 / 3  # no pair of examples is alike or unlike: all that the estimate leaves is rounding
    assert np.isnan(representation.linear_cka(x, single))


def test_both_sides_of_a_comparison_have_as_many_examples():
    member = RANDOM.uniform(size=100) < 0.2
    inside, outside = representation.equal_samples(member)
    np.testing.assert_array_equal(inside, np.flatnonzero(member))
    assert len(outside) == len(inside) and not member[outside].any()
    np.testing.assert_array_equal(outside, np.unique(outside))
    np.testing.assert_array_equal(
        outside, representation.equal_samples(member)[1]
    )  # the same of every network
    most, few = representation.equal_samples(~member)
    np.testing.assert_array_equal(few, inside)
    assert len(most) == len(few) and not member[most].any()
    in_order = representation.equal_samples(np.arange(1000) < 10)[1]
    assert in_order.max() > 200  # drawn from all of them, where they lie class by class


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
    sides = [np.float64(x[member]), np.float64(x[~member])]
    variances = [np.var(side, axis=0, ddof=1).sum() for side in sides]
    squared = np.sum((sides[0].mean(0) - sides[1].mean(0)) ** 2) - variances[0] / 30 - variances[1] / 30
    pooled = (29 * variances[0] + 29 * variances[1]) / 58
    assert found["centroid_distance"] == pytest.approx(np.sqrt(squared / pooled))


def test_separability_of_too_few():
    alike = representation.separability(np.zeros((6, 2), np.float32), np.arange(6) < 3)
    assert np.isnan(alike["centroid_distance"])
    alone = representation.separability(
        RANDOM.normal(size=(6, 2)), np.arange(6) == 3
    )  # no spread of one alone
    assert np.isnan(alone["centroid_distance"]) and np.isnan(alone["silhouette"])


@pytest.mark.parametrize("num", [10, 300])
def test_the_distance_of_centres_does_not_depend_on_their_examples(num):
    """True distance 0.3 of the spread. Taken from the means alone its square is 1/n + 1/1000 too large: 0.44
    of 10 examples. The estimate of the square has, as a multiple of the spread's, the variance 2 e^2 / D +
    4 * 0.09 * e / D, e = 1/n + 1/1000: at 10 examples and D = 2,000 a standard deviation of 0.0053, of the
    distance itself 0.009."""
    random = np.random.RandomState(3)
    x, member = random.normal(size=(num + 1000, 2000)), np.arange(num + 1000) < num
    x[member, 0] += 0.3 * np.sqrt(2000)
    found = representation.separability(x, member)["centroid_distance"]
    assert found == pytest.approx(0.3, abs=5 * 0.009)


def test_the_distance_of_centres_is_0_where_chance_explains_it():
    random = np.random.RandomState(5)
    found = [
        representation.separability(random.normal(size=(40, 50)), np.arange(40) < 10)["centroid_distance"]
        for _ in range(20)
    ]
    assert min(found) == 0.0


def test_the_silhouette_is_of_all_classes_where_examples_lie_class_by_class():
    """2,000 of them are drawn, not the first."""
    member = np.arange(2400) >= 2100
    x = RANDOM.normal(size=(2400, 2)) + 50 * member[:, None]
    assert representation.separability(x, member)["silhouette"] > 0.9


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
