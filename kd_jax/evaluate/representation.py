"""What a network's features hold (host side): probes, similarity of two networks, separability, pictures.

Features are f32[N,D] of one layer; `features_of` gathers them by name. What needs labels is fitted on one set
of examples and judged on another.

Where a measure of one group of examples is compared with that of another, its mean must depend neither on N
nor on D: see `linear_cka`, `equal_samples` and `separability`.

Left out: canonical correlations (1 of any features where D >= N, Kornblith et al. 2019, section 3).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.models import as_vectors, forward, hidden_layers, scale_pixels
from kd_jax.types import Variables

NEIGHBOURS = 10
MOST_FOR_DISTANCES = 2000
"""Examples of which all pairs are compared, in the silhouette and in t-SNE."""


@partial(jax.jit, static_argnums=(0, 3))
def _features(model: Any, variables: Variables, images: jax.Array, batch_size: int) -> dict[str, jax.Array]:
    num = images.shape[0]
    index = jnp.arange(num + -num % batch_size, dtype=jnp.int32).reshape(-1, batch_size) % num

    def one_batch(rows):
        logits, features, _ = forward(model, variables, scale_pixels(images[rows]))
        return {name: as_vectors(x) for name, x in (features | {"logits": logits}).items()}

    stacked = jax.lax.map(one_batch, index)
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:num], stacked)


def features_of(
    model: Any, variables: Variables, images: np.ndarray, batch_size: int = 500
) -> dict[str, np.ndarray]:
    """Features in evaluation mode by layer, in order, "logits" last, each `models.as_vectors`.

    images: u8[N,h,w,c].  Returns: f32[N,D] each.
    """
    features = _features(model, variables, jnp.asarray(images), min(batch_size, len(images)))
    names = hidden_layers(model, images.shape[1:])  # `features` is sorted by name, not by depth
    return {name: np.asarray(features[name]) for name in (*names, "logits")}


def probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Recall of each class, f64[K], of a linear probe: logistic regression on standardised features (Alain &
    Bengio 2017, section 3), fitted on `train`; nan where a class has no test example.

    A class of which `train` holds fewer examples has a lower recall for that reason alone. So compare
    networks on the same examples; compare classes only where `train` holds about as many of each. The same is
    true of `nearest_neighbours`.
    """
    return recalls(fit_probe(train, train_labels)(test), test_labels, num_classes)


def fit_probe(train: np.ndarray, train_labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The linear probe of `probe`: features f32[N,D] -> the classes that it reads off them, i32[N]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
    return fitted.fit(train, train_labels).predict


def nearest_neighbours(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Recall of each class, f64[K], of the vote of the 10 nearest of `train` (Euclidean distance)."""
    from sklearn.neighbors import KNeighborsClassifier

    fitted = KNeighborsClassifier(min(NEIGHBOURS, len(train))).fit(train, train_labels)
    return recalls(fitted.predict(test), test_labels, num_classes)


def recalls(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each class that is called so, f64[K]; nan where it has no example."""
    right = np.bincount(labels[predicted == labels], minlength=num_classes)
    total = np.bincount(labels, minlength=num_classes)
    with np.errstate(invalid="ignore"):
        return right / total


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of two networks' features of the same examples, in [-1, 1].

    It is 1 where they differ by rotation, scale and shift alone; about 0, of either sign, where they are
    independent.

    From the unbiased estimate of HSIC, whose mean does not depend on N, D or E. The estimate of Kornblith et
    al. 2019 does: where D and E are not small beside N it is near 1 of independent features too. Of
    independent features the standard deviation is about sqrt(2) / N.

    Args: x f32[N,D], y f32[N,E].  Returns: nan where N < 4, or where one of them does not vary.
    Source: Nguyen, Raghu & Kornblith 2021, section 3, of one batch; HSIC: Song et al. 2007, equation 5.
    """
    if len(x) != len(y):
        raise ValueError(f"features of {len(x)} and {len(y)} examples")
    if len(x) < 4:
        return float("nan")
    x, y = _centred(x), _centred(y)
    within = [_unbiased_hsic(z, z) for z in (x, y)]
    if min(within) == 0:
        return float("nan")
    return _unbiased_hsic(x, y) / float(np.sqrt(within[0]) * np.sqrt(within[1]))


def _centred(features: np.ndarray) -> np.ndarray:
    """Less their mean; exactly 0 where a feature is constant, which rounding of its mean would hide."""
    features = np.asarray(features, np.float64)
    return np.where(np.ptp(features, axis=0) > 0, features - features.mean(axis=0), 0.0)


def _unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate of HSIC with linear kernels, of centred features f64[N,D] and f64[N,E], N >= 4.

    Song et al. 2007, equation 5, takes K = x x^T and L = y y^T without their diagonals a and b. The rows of K
    and L sum to 0 with their diagonals, so without them to -a and -b, and its three terms become
    tr(K L) - a.b,  sum(a) sum(b) / ((N - 1) (N - 2))  and  -2 a.b / (N - 2).
    A result within the rounding of these terms is returned as 0.
    """
    num = len(x)
    a, b = np.sum(x**2, axis=1), np.sum(y**2, axis=1)
    # tr(K L) is |x^T y|^2 (Frobenius): from N x N or from D x E numbers, whichever are fewer.
    by_examples = num**2 < x.shape[1] * y.shape[1]
    trace = np.sum((x @ x.T) * (y @ y.T)) if by_examples else np.sum((x.T @ y) ** 2)
    total = trace - a @ b * num / (num - 2) + a.sum() * b.sum() / ((num - 1) * (num - 2))
    return 0.0 if abs(total) <= 1e-12 * a.sum() * b.sum() else float(total / (num * (num - 3)))


def equal_samples(member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices, in order, of as many members as others: all of those that are fewer, and of the rest a sample
    without replacement, the same at each call.

    For measures of two groups that are compared with each other. member: bool[N].
    """
    groups = np.flatnonzero(member), np.flatnonzero(~member)
    num, random = min(map(len, groups)), np.random.RandomState(0)
    first, second = (np.sort(random.choice(group, num, replace=False)) for group in groups)
    return first, second


def separability(features: np.ndarray, member: np.ndarray) -> dict[str, float]:
    """How apart a class lies from the others, which count as one class.

    Args: features f32[N,D]; member: bool[N], who belongs to it: some do, some do not.
    Returns: silhouette: the mean over its members of scikit-learn's coefficient, in [-1, 1] (Rousseeuw 1987),
        on 2,000 examples, drawn at random where there are more, and nan where the class has fewer than two;
        centroid_distance: see there.
    """
    from sklearn.metrics import silhouette_samples

    features = features.astype(np.float64)
    few = np.random.RandomState(0).permutation(len(features))[:MOST_FOR_DISTANCES]
    few, few_member = features[few], member[few]
    silhouette = float("nan")
    if few_member.sum() > 1 and not few_member.all():
        silhouette = float(np.mean(silhouette_samples(few, few_member)[few_member]))
    return {"silhouette": silhouette, "centroid_distance": centroid_distance(features, member)}


def centroid_distance(features: np.ndarray, member: np.ndarray) -> float:
    """Distance of the means of members and others, in root mean square distances of the examples from their
    own mean.

    |a - b|^2 of the means of n and m examples exceeds that of the true means by v / n + w / m on average,
    v and w the groups' variances summed over the features: that is subtracted. So the distance does not grow
    where examples are few; it is 0 where the difference is negative.

    Args: features f32[N,D]; member: bool[N].  Returns: nan where a group has fewer than two examples.
    """
    features = features.astype(np.float64)
    groups = features[member], features[~member]
    if min(map(len, groups)) < 2:
        return float("nan")
    means = [group.mean(axis=0) for group in groups]
    squares = [np.sum((group - mean) ** 2) for group, mean in zip(groups, means, strict=True)]
    excess = sum(s / (len(group) - 1) / len(group) for s, group in zip(squares, groups, strict=True))
    spread = sum(squares) / (len(features) - 2)  # squared, as the distance
    squared = np.sum((means[0] - means[1]) ** 2) - excess
    return float(np.sqrt(max(squared, 0.0) / spread)) if spread else float("nan")


def embed(features: np.ndarray, how: str, seed: int = 0) -> np.ndarray:
    """The first 2,000 examples in the plane, f64[<=2000,2].  how: "pca" or "tsne" (van der Maaten & Hinton
    2008, perplexity 30 of a PCA to 50 dimensions)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = features[:MOST_FOR_DISTANCES].astype(np.float64)
    if how == "pca":
        return PCA(2, random_state=seed).fit_transform(few)
    if how != "tsne":
        raise ValueError(f"how: pca or tsne, not {how!r}")
    reduced = PCA(min(50, *few.shape), random_state=seed).fit_transform(few)
    perplexity = min(30.0, (len(few) - 1) / 3)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced)
