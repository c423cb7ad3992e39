"""What a network's features hold (host side): probes, similarity of two networks, separability, pictures.

Features are f32[N,D] of one layer; `features_of` gathers them by name. What needs labels is fitted on one set
of examples and judged on another.

Left out: canonical correlations (CKA keeps its meaning where D is near N, Kornblith et al. 2019, section 3).
"""

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
    found = _features(model, variables, jnp.asarray(images), min(batch_size, len(images)))
    names = hidden_layers(model, images.shape[1:])  # `found` is sorted by name, not by depth
    return {name: np.asarray(found[name]) for name in (*names, "logits")}


def probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Recall of each class, f64[K], of a linear probe: logistic regression on standardised features (Alain &
    Bengio 2017, section 3), fitted on `train`; nan where a class has no test example."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
    fitted.fit(train, train_labels)
    return recalls(fitted.predict(test), test_labels, num_classes)


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
    """Linear centred kernel alignment of two networks' features of the same examples, in [0, 1]: 1 where they
    differ by rotation and scale alone; nan where one of them is constant.

    Args: x f32[N,D], y f32[N,E].  Source: Kornblith et al. 2019, section 3, equation 4 with linear kernels.
    """
    if len(x) != len(y):
        raise ValueError(f"features of {len(x)} and {len(y)} examples")
    x, y = (np.float64(z) - np.float64(z).mean(axis=0) for z in (x, y))
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / norms) if norms else float("nan")


def separability(features: np.ndarray, member: np.ndarray) -> dict[str, float]:
    """How apart a class lies from the others.

    Args: features f32[N,D]; member: bool[N], who belongs to it: some do, some do not.
    Returns: silhouette: the mean over its members of scikit-learn's coefficient, in [-1, 1] (Rousseeuw 1987),
        on the first 2,000 examples; centroid_distance: of the two means, in root mean square distances of
        the examples from their own mean.
    """
    from sklearn.metrics import silhouette_samples

    features = features.astype(np.float64)
    centres = [features[member].mean(axis=0), features[~member].mean(axis=0)]
    own = np.where(member[:, None], *centres)
    spread = np.sqrt(np.mean(np.sum((features - own) ** 2, axis=1)))
    distance = np.linalg.norm(centres[0] - centres[1])
    few, few_member = features[:MOST_FOR_DISTANCES], member[:MOST_FOR_DISTANCES]
    silhouette = float("nan")
    if few_member.any() and not few_member.all():
        silhouette = float(np.mean(silhouette_samples(few, few_member)[few_member]))
    return {
        "silhouette": silhouette,
        "centroid_distance": float(distance / spread) if spread else float("nan"),
    }


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
