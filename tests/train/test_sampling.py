"""The order of an epoch: a masked class never comes, every kept example does, as often as any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from kd_jax.train.sampling import epoch_order, example_mask, shot_mask
from kd_jax.train.sweep import QUICK_COMPILE

N = 24
FLAGS = st.lists(st.booleans(), min_size=N, max_size=N)
few = settings(max_examples=100, deadline=None, derandomize=True)

one_order = jax.jit(epoch_order, static_argnums=2, compiler_options=QUICK_COMPILE)
one_left_over = jax.jit(shot_mask, compiler_options=QUICK_COMPILE)


def test_example_mask():
    np.testing.assert_array_equal(
        example_mask(jnp.asarray([0, 2, 1, 2], jnp.int32), jnp.asarray([True, True, False])),
        [True, False, True, False],
    )


@few
@given(mask=FLAGS.filter(any), seed=st.integers(0, 2**31), num=st.sampled_from([1, 7, N, 100]))
def test_every_kept_example_and_no_other(mask, seed, num):
    """Length `num`; of n kept examples each floor or ceil(num / n) times."""
    order = np.asarray(one_order(jax.random.key(seed), np.array(mask), num))
    assert order.shape == (num,) and order.dtype == np.int32
    times = np.bincount(order, minlength=N)
    seen = times[mask]
    assert not times[~np.array(mask)].any()
    assert seen.min() == num // len(seen) and seen.max() == -(-num // len(seen))


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
    seen = np.array([2, 3, 11, 20])
    orders = orders_of(np.isin(np.arange(N), seen), num=4)
    assert set(orders.ravel()) == set(seen)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert np.sum((counts - 200) ** 2 / 200) < chi2.ppf(0.999, 23)


@few
@given(
    labels=st.lists(st.integers(0, 3), min_size=N, max_size=N), num=st.integers(0, N), seed=st.integers(0, 99)
)
def test_so_many_shots_of_each_class_are_kept(labels, num, seed):
    """All of a class that has no more; the next number adds to them."""
    chosen, more = (
        np.asarray(one_left_over(jax.random.key(seed), np.int32(labels), np.int32(n))) for n in (num, num + 1)
    )
    for label in range(4):
        of_class = np.equal(labels, label)
        assert chosen[of_class].sum() == min(num, of_class.sum())
    assert not np.any(chosen & ~more)


def test_any_of_a_class_is_a_shot_as_often_as_another():
    """3 of 9 over 3,000 keys: each 1,000 times, give or take sqrt(3000 * 1/3 * 2/3) = 26; 5 of those."""
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(3, dtype=np.int32), [9, 12, 3]))
    keys = jax.random.split(jax.random.key(0), 3000)
    chosen = jax.jit(jax.vmap(shot_mask, (0, None, None)), compiler_options=QUICK_COMPILE)(keys, labels, 3)
    times = np.asarray(chosen).sum(axis=0)
    np.testing.assert_allclose(times[labels == 0], 1000, atol=5 * 26)
    assert np.all(times[labels == 2] == 3000)


def test_wrong_shapes_are_refused():
    """A mask of runs, or labels one-hot, would index without a word."""
    key, labels, mask = jax.random.key(0), jnp.zeros(N, jnp.int32), jnp.ones(N, bool)
    with pytest.raises(AssertionError):
        epoch_order(key, mask[None], 3)
    for bad in [(labels[None], mask), (labels, mask[None])]:
        with pytest.raises(AssertionError):
            example_mask(*bad)
    for wrong in [(labels[None], jnp.int32(1)), (labels, jnp.ones(N, jnp.int32))]:
        with pytest.raises(AssertionError):
            shot_mask(key, *wrong)
