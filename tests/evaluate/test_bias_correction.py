"""Bias correction against brute force: no b does better than the one found, and shares come out exact.

Problems are random, many at a time: the functions take one run and are mapped. The reference counts errors in
float64 at a b between each two neighbouring margins, below and above all, and on a fine grid besides.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_jax.evaluate import bias_correction
from kd_jax.train.sweep import QUICK_COMPILE

P, N, K = 150, 12, 4
RANDOM = np.random.RandomState(0)
LOGITS = (3 * RANDOM.standard_normal((P, N, K))).astype(np.float32)
LOGITS[::5] *= 1000  # a fifth of the problems on the scale of 1e4
LABELS = RANDOM.randint(K, size=(P, N)).astype(np.int32)
MISSING = np.array(
    [np.isin(np.arange(K), RANDOM.permutation(K)[: 1 + p % (K - 1)]) for p in range(P)]
)  # 1, 2 or 3


def mapped(function, *arguments):
    return np.asarray(
        jax.jit(jax.vmap(function), compiler_options=QUICK_COMPILE)(*map(jnp.asarray, arguments))
    )


def predictions(logits, omitted, b):
    """argmax in float64.  logits [N,K], b [G] -> [G,N]."""
    return np.argmax(np.float64(logits) + np.multiply.outer(np.atleast_1d(b), omitted[None, :]), axis=-1)


def errors(logits, labels, omitted, b):
    return np.sum(predictions(logits, omitted, b) != labels, axis=-1)


def all_margins(logits, omitted):
    logits = np.float64(logits)
    return logits[:, ~omitted].max(axis=-1) - logits[:, omitted].max(axis=-1)


def candidates(logits, omitted):
    """A b within every interval in which no prediction changes, and a grid; none at a margin itself."""
    m = np.unique(all_margins(logits, omitted))
    return np.concatenate(
        [[m[0] - 1], (m[1:] + m[:-1]) / 2, [m[-1] + 1], np.linspace(-15.00371, 15.00429, 501)]
    )


def test_margin_is_where_the_prediction_turns():
    """logits (5, 2, 1, 4), missing {1, 2}: best kept 5, best missing 2: it turns to class 1 at b = 3."""
    logits, omitted = np.float32([[5, 2, 1, 4]]), np.array([False, True, True, False])
    np.testing.assert_array_equal(bias_correction.margins(jnp.asarray(logits), jnp.asarray(omitted)), [3])
    for b, predicted in [(2.99, 0), (3.01, 1)]:
        shifted = bias_correction.add_class_bias(jnp.asarray(logits), jnp.asarray(omitted), jnp.float32(b))
        np.testing.assert_allclose(shifted, logits + np.float32([0, b, b, 0]))
        assert int(jnp.argmax(shifted)) == predicted


def test_no_bias_has_fewer_errors_than_the_tuned_one():
    found = mapped(bias_correction.min_error_bias, LOGITS, LABELS, MISSING)
    assert found.dtype == np.float32
    ours = mapped(
        lambda *run: jnp.argmax(bias_correction.add_class_bias(*run), axis=-1), LOGITS, MISSING, found
    )
    for p in range(P):
        problem = LOGITS[p], LABELS[p], MISSING[p]
        fewest = errors(*problem, candidates(LOGITS[p], MISSING[p])).min()
        assert errors(*problem, found[p])[0] == fewest == np.sum(ours[p] != LABELS[p])


def test_of_several_best_biases_the_middle_of_the_widest_interval():
    """The outermost intervals count as 2 wide."""
    found = mapped(bias_correction.min_error_bias, LOGITS, LABELS, MISSING)
    for p in range(P):
        m = np.sort(all_margins(LOGITS[p], MISSING[p]))
        edges = np.concatenate([[m[0] - 2], m, [m[-1] + 2]])
        middles, widths = (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1]
        wrong = errors(LOGITS[p], LABELS[p], MISSING[p], middles)
        ours = np.argmin(np.abs(middles - found[p]))
        rounding = 1e-6 * np.abs(LOGITS[p]).max()
        assert abs(found[p] - middles[ours]) <= rounding and wrong[ours] == wrong.min()
        assert widths[ours] >= widths[wrong == wrong.min()].max() - rounding


ROWS = st.tuples(*[st.integers(-4, 4)] * K, st.integers(0, K - 1))
PROBLEMS = st.tuples(
    st.lists(ROWS, min_size=6, max_size=6),  # logits on a coarse grid, as bfloat16 gives them, and the label
    st.sampled_from([mask for mask in itertools.product([False, True], repeat=K) if 0 < sum(mask) < K]),
)
few = settings(max_examples=100, deadline=None, derandomize=True)
one_tuned, one_matched = (
    jax.jit(function, compiler_options=QUICK_COMPILE)
    for function in (bias_correction.min_error_bias, bias_correction.prior_matching_bias)
)


@few
@given(problem=PROBLEMS, wanted=st.integers(0, 6))
def test_where_examples_tie_all_or_none_of_them_turn(problem, wanted):
    """The fewest errors, and the nearest share, that any b gives."""
    rows, omitted = np.float32(problem[0]), np.array(problem[1])
    logits, labels = rows[:, :K], rows[:, K].astype(np.int32)
    possible = candidates(logits, omitted)
    found = float(one_tuned(logits, labels, omitted))
    assert errors(logits, labels, omitted, found)[0] == errors(logits, labels, omitted, possible).min()
    turned = lambda b: omitted[predictions(logits, omitted, b)].sum(axis=-1)  # noqa: E731
    found = float(one_matched(logits, omitted, np.float32(wanted / 6)))
    assert abs(turned(found)[0] - wanted) == np.abs(turned(possible) - wanted).min()


@few
@given(problem=PROBLEMS, biases=st.lists(st.floats(-12, 12, width=16), min_size=2, max_size=5))
def test_more_bias_only_moves_predictions_to_the_omitted_classes(problem, biases):
    """None comes back, none moves from one omitted class to another or between kept ones."""
    logits, omitted = jnp.asarray(problem[0], jnp.float32)[:, :K], np.array(problem[1])
    shifted = [
        bias_correction.add_class_bias(logits, jnp.asarray(omitted), jnp.float32(b)) for b in sorted(biases)
    ]
    predicted = np.argmax(shifted, axis=-1)
    for before, after in itertools.pairwise(predicted):
        moved = before != after
        assert not omitted[before[moved]].any() and omitted[after[moved]].all()


@pytest.mark.parametrize("lower", [1, 1 + 2.0**-23])
def test_between_two_neighbouring_numbers_there_is_no_bias(lower):
    """Two margins with no f32 between, of which the lower alone should turn: it takes both or none. Half of
    their sum rounds to the lower one at 1, to the upper one at 1 + 2^-23."""
    logits = jnp.float32([[lower, 0], [lower + 2.0**-23, 0]])
    omitted = jnp.asarray([False, True])
    for found in (
        bias_correction.min_error_bias(logits, jnp.asarray([1, 0], jnp.int32), omitted),
        bias_correction.prior_matching_bias(logits, omitted, jnp.float32(0.5)),
    ):
        assert float(found) < lower or float(found) > lower + 2.0**-23


def test_share_matched_gives_exactly_the_share():
    """All N + 1 shares j / N on each problem: exactly j examples are predicted as missing."""

    def counts(logits, omitted):
        def one(share):
            found = bias_correction.prior_matching_bias(logits, omitted, share)
            corrected = bias_correction.add_class_bias(logits, omitted, found)
            return found, jnp.sum(omitted[jnp.argmax(corrected, axis=-1)])

        return jax.vmap(one)(jnp.arange(N + 1, dtype=jnp.float32) / N)

    found, turned = jax.jit(jax.vmap(counts))(LOGITS, MISSING)
    np.testing.assert_array_equal(turned, np.broadcast_to(np.arange(N + 1), (P, N + 1)))
    for p in range(P):
        predicted = predictions(LOGITS[p], MISSING[p], np.asarray(found[p]))
        np.testing.assert_array_equal(MISSING[p][predicted].sum(axis=-1), np.arange(N + 1))


def test_share_between_two_counts_gives_the_nearest():
    """A share of 0.3 of 12 examples is 3.6: 4 of them; 0.2 is 2.4: 2."""
    for share, count in [(0.3, 4), (0.2, 2)]:
        found = mapped(
            lambda *run, share=share: bias_correction.prior_matching_bias(*run, jnp.float32(share)),
            LOGITS,
            MISSING,
        )
        for p in range(P):
            assert MISSING[p][predictions(LOGITS[p], MISSING[p], found[p])].sum() == count


def test_no_omitted_class_or_nothing_else_means_no_correction():
    for omitted in (np.zeros((P, K), bool), np.ones((P, K), bool)):
        assert not np.any(mapped(bias_correction.min_error_bias, LOGITS, LABELS, omitted))
        assert not np.any(
            mapped(lambda *run: bias_correction.prior_matching_bias(*run, jnp.float32(0.5)), LOGITS, omitted)
        )


def test_one_example():
    """N = 1, margin 3: with the label missing b is 1 above the margin, with the label kept 1 below."""
    logits, omitted = jnp.float32([[5, 2, 1]]), jnp.asarray([False, True, True])
    for label, b in [(1, 4), (0, 2)]:
        assert float(bias_correction.min_error_bias(logits, jnp.asarray([label], jnp.int32), omitted)) == b
    for share, b in [(1, 4), (0, 2)]:
        assert float(bias_correction.prior_matching_bias(logits, omitted, jnp.float32(share))) == b


def test_lowering_the_seen_is_raising_the_omitted():
    """ "Only 7s and 8s": the paper lowers the two kept biases; the predictions are the same."""
    b = RANDOM.standard_normal(P).astype(np.float32)
    raised = mapped(
        lambda *run: jnp.argmax(bias_correction.add_class_bias(*run), axis=-1), LOGITS, MISSING, b
    )
    lowered = np.argmax(LOGITS - (b[:, None] * ~MISSING)[:, None], axis=-1)
    np.testing.assert_array_equal(raised, lowered)


def test_omitted_share():
    shares = mapped(bias_correction.omitted_share, LOGITS, MISSING)
    predicted = LOGITS.argmax(axis=-1)
    np.testing.assert_allclose(
        shares, [m[row].mean() for m, row in zip(MISSING, predicted, strict=True)], rtol=1e-6
    )


def test_curve_is_the_count_under_each_bias():
    grid = np.linspace(-4, 4, 7).astype(np.float32)
    curves = mapped(partial(bias_correction.curve, biases=jnp.asarray(grid)), LOGITS, LABELS, MISSING)
    assert curves.shape == (P, 7, K)
    for p in range(1, 5):  # the problems whose logits are not on the scale of the rounding of b
        for g, row in enumerate(predictions(LOGITS[p], MISSING[p], grid)):
            np.testing.assert_array_equal(curves[p, g], np.bincount(LABELS[p][row == LABELS[p]], minlength=K))


def mixed(mask: np.ndarray, num: int) -> np.ndarray:
    """Shares [num, N] of each example in each mixture. Image i is 255 at pixel i, else 55: the mean of
    examples i and j is 155 at both, and of an example with itself 255 again."""
    images = (55 + 200 * np.eye(24)).astype(np.uint8).reshape(24, 4, 6, 1)
    out = bias_correction.average_image_pairs(jax.random.key(0), jnp.asarray(images), jnp.asarray(mask), num)
    assert out.shape == (num, 4, 6, 1) and out.dtype == jnp.uint8
    return (np.float64(out).reshape(num, 24) - 55) / 200


def test_mixtures_are_means_of_two_kept_examples():
    mask = np.arange(24) % 4 > 0  # 18 kept
    shares = mixed(mask, 9)
    assert np.all(shares.sum(axis=1) == 1) and not np.any(shares[:, ~mask])
    assert np.all(np.sort(shares, axis=1)[:, -2:] == 0.5)


def test_every_kept_example_has_its_part_in_as_many_mixtures():
    shares = mixed(np.arange(24) < 20, 20)
    assert np.all(shares[:, :20].max(axis=0) == 0.5)


@pytest.mark.parametrize("seen, num", [(10, 10), (10, 30), (20, 40)])
def test_no_mixture_is_an_example_itself(seen, num):
    shares = mixed(np.arange(24) < seen, num)
    assert np.all(shares.max(axis=1) == 0.5)


def test_many_mixtures_of_few_examples_are_many_pairs():
    """10 examples make 45 pairs; of 405 random ones nearly all occur, at least 40 surely."""
    shares = mixed(np.arange(24) < 10, 405)
    assert len(np.unique(shares, axis=0)) >= 40
