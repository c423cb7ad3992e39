"""scikit-learn's handwritten digits, which need no download."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from kd_jax.data.splits import choose

_SEED = 0
_NUM_TEST = 500


def read() -> tuple[np.ndarray, ...]:
    """Images u8[N,8,8] and labels i64[N] of 1,297 training and 500 test digits; 17 grey levels, spread over
    0..255. The split is stratified."""
    table = _table()
    images = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, -1]
    quotas = np.bincount(labels) * (_NUM_TEST / len(labels))
    take = np.floor(quotas).astype(int)
    # Largest remainders, so that the classes' shares add up to the test set's size.
    take[np.argsort(take - quotas, kind="stable")[: _NUM_TEST - take.sum()]] += 1
    test = choose(labels, dict(enumerate(take)), _SEED)
    return images[~test], labels[~test], images[test], labels[test]


def _table() -> np.ndarray:
    """i64[1797,65]: 64 grey levels and the label. The file is read without scikit-learn, whose import takes
    longer than all else; a version that keeps it elsewhere is asked for its arrays."""
    package = importlib.util.find_spec("sklearn")
    path = Path(package.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if package else Path()
    if path.is_file():
        with gzip.open(path, "rt") as file:
            return np.loadtxt(file, np.int64, delimiter=",")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels]).astype(np.int64)
