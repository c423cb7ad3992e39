"""The order of an epoch: a masked class never comes, every kept example does, as often as any other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from kd_jax.masking import epoch_order, example_mask
from kd_jax.sweep import QUICK_COMPILE

LABELS = np.random.RandomState(0).permutation(np.repeat(np.arange(4, dtype=np.int32), [3, 9, 11, 1]))
N = len(LABELS)
MASKS = np.array([mask for mask in itertools.product([False, True], repeat=4) if any(mask)])  # all 15


def test_example_mask():
    np.testing.assert_array_equal(
        example_mask(jnp.asarray([0, 2, 1, 2], jnp.int32), jnp.asarray([True, True, False])),
        [True, False, True, False],
    )


@pytest.mark.parametrize("num", [7, 100])
def test_every_kept_example_and_no_other(num):
    """Under vmap over all masks: length `num` for each, n kept examples floor or ceil(num/n) times."""

    def one(key, class_mask):
        return epoch_order(key, example_mask(jnp.asarray(LABELS), class_mask), num)

    run = jax.jit(jax.vmap(one), compiler_options=QUICK_COMPILE)
    orders = np.asarray(run(jax.random.split(jax.random.key(num), 15), jnp.asarray(MASKS)))
    assert orders.shape == (15, num) and orders.dtype == np.int32
    for order, mask in zip(orders, MASKS, strict=True):
        assert np.all(mask[LABELS[order]])
        times = np.bincount(order, minlength=N)[mask[LABELS]]
        kept = len(times)
        assert times.min() == num // kept and times.max() == -(-num // kept)


def orders_of(mask, epochs=range(4800), num=N):
    """One run's orders of these epochs, mapped over epochs."""
    one = lambda epoch: epoch_order(jax.random.fold_in(jax.random.key(1), epoch), jnp.asarray(mask), num)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one), compiler_options=QUICK_COMPILE)(jnp.asarray(epochs, jnp.uint32)))


def test_each_epoch_has_its_own_order_and_only_one():
    orders = orders_of(np.ones(N, bool))
    assert len(np.unique(orders, axis=0)) == 4800  # of 24!
    np.testing.assert_array_equal(orders[5:6], orders_of(np.ones(N, bool), [5]))  # mapped or alone


def test_every_order_is_equally_likely():
    """Four kept examples of 24 over 4,800 epochs: each of the 24 orders 200 times expected. The chi-square
    statistic has 23 degrees of freedom; the key is fixed, so what has passed once cannot fail by chance."""
    kept = np.array([2, 3, 11, 20])
    orders = orders_of(np.isin(np.arange(N), kept), num=4)
    assert set(orders.ravel()) == set(kept)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert np.sum((counts - 200) ** 2 / 200) < chi2.ppf(0.999, 23)
