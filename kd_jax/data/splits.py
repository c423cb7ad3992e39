"""Stratified splits: a function of labels, share and seed alone."""

from collections.abc import Mapping

import numpy as np

from kd_jax.data.arrays import require

TEST_FRACTION = 0.2
"""Share of each class that is the test split, where the data come without one and no other share is named."""


def split_validation(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A stratified split of examples into training and validation, a function of its arguments alone.

    labels: integers [N].
    Each class gives round(fraction * count) examples to validation: at least one where it has two and
    fraction > 0, and never its last one.
    Returns (train_index, validation_index), i64, each sorted, together 0..N-1.
    Raises InputError for a fraction outside [0, 1) or labels of another form.
    """
    labels = np.asarray(labels)
    given = f"{labels.dtype} {list(labels.shape)}"
    require(labels.ndim == 1 and labels.dtype.kind in "iu", "labels cannot be split", "integers [N]", given)
    require(0 <= fraction < 1, "validation fraction out of range", "0 <= fraction < 1", fraction)
    require(0 <= seed < 2**32, "validation seed out of range", "0 <= seed < 2**32", seed)
    classes, counts = np.unique(labels, return_counts=True)
    take = np.minimum(np.maximum(np.rint(fraction * counts), fraction > 0), counts - 1)
    chosen = choose(labels, dict(zip(classes, take.astype(int), strict=True)), seed)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def split_test(
    what: object, labels: np.ndarray, fraction: float | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """(train_index, test_index, a note) of data without a test split, as of `split_validation`.

    what: the data, for the errors.  fraction: None: TEST_FRACTION.
    Raises InputError for a fraction outside ]0, 1[, and where no class has two examples.
    """
    share = TEST_FRACTION if fraction is None else fraction
    require(0 < share < 1, "test_fraction out of range", "0 < fraction < 1", share)
    train, test = split_validation(labels, share)
    given = "one example of each class" if len(labels) else "no example"
    require(len(test), f"{what} cannot be split", "a class of two examples or more", given)
    note = f"no test split: {len(test)} of {len(labels)} examples, drawn from each class, are taken for it"
    return train, test, f"{note} (test_fraction {share:g})"


def choose(labels: np.ndarray, take: Mapping[int, int], seed: int) -> np.ndarray:
    """bool[N]: True for `take[k]` examples of each class k."""
    # RandomState's streams are frozen for good, the newer Generator's are not: a split, and with it the
    # fingerprint of `digits`, has to be the same under every numpy.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label, count in take.items():
        chosen[order[labels[order] == label][:count]] = True
    return chosen
