"""Intervals and paired differences against derived numbers, scipy.stats and what holds of any values.

Whether intervals hold the true mean as often as they say: faults/test_coverage.py."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kd_jax.stats import intervals


def test_interval_by_hand():
    # mean 3; deviations -2, 0, 2: sd = sqrt(8 / 2) = 2, standard error 2 / sqrt(3) = 1.154701.
    # Student's t has the quantile 4.302653 at 0.975 with 2 degrees of freedom: half width 4.968275.
    interval = intervals.mean_interval([1.0, 3.0, 5.0])
    assert interval == pytest.approx((3.0, -1.968275, 7.968275, 3), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_interval_agrees_with_scipy(n, confidence):
    values = np.random.default_rng(n).normal(5.0, 3.0, n)
    low, high = scipy.stats.t.interval(confidence, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    expected = (values.mean(), low, high, n)
    assert intervals.mean_interval(values, confidence) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_paired_difference_agrees_with_scipy(n):
    a, b = np.random.default_rng(n).normal([[0.3], [0.0]], 1.0, (2, n))
    reference = scipy.stats.ttest_rel(a, b)
    low, high = reference.confidence_interval(0.95)
    expected = (np.mean(a - b), low, high, reference.pvalue, n)
    assert intervals.paired_difference(a, b) == pytest.approx(expected, rel=1e-9)


def test_clusters_by_hand():
    # The means of the clusters are 2 and 10, each one unit whatever its size: mean 6, sd sqrt(32) and
    # standard error 4; the t quantile at 0.975 with 1 degree of freedom is 12.706205.
    interval = intervals.clustered_interval([1.0, 10.0, 3.0], ["a", "b", "a"])
    assert interval == pytest.approx((6.0, 6 - 4 * 12.706205, 6 + 4 * 12.706205, 2), abs=1e-5)
    difference = intervals.paired_difference([1.0, 10.0, 3.0], [0.0, 0.0, 0.0], ["a", "b", "a"])
    # One degree of freedom is Cauchy's distribution: p = 1 - 2/pi atan(t), t = 6 / 4.
    p = 1 - 2 / math.pi * math.atan(1.5)
    assert difference == pytest.approx((*interval[:3], p, 2), abs=1e-12)


@pytest.mark.parametrize("clusters", [[0, 0, 0, 0], [0, 1, 2, 3], [None] * 4])
def test_one_cluster_and_distinct_clusters_are_the_plain_interval(clusters):
    values = [0.2, 0.4, 0.1, 0.9]
    assert intervals.clustered_interval(values, clusters) == intervals.mean_interval(values)
    assert intervals.paired_difference(values, [0.1] * 4, clusters) == intervals.paired_difference(
        values, [0.1] * 4
    )


def test_what_cannot_be_said_is_nan():
    nan = math.nan
    assert intervals.mean_interval([]) == pytest.approx((nan, nan, nan, 0), nan_ok=True)
    assert intervals.mean_interval([0.5]) == pytest.approx((0.5, nan, nan, 1), nan_ok=True)
    assert intervals.mean_interval([0.5, nan]) == pytest.approx((nan, nan, nan, 2), nan_ok=True)
    assert intervals.mean_interval([0.5, math.inf]) == pytest.approx((nan, nan, nan, 2), nan_ok=True)
    assert intervals.paired_difference([], []) == pytest.approx((nan, nan, nan, nan, 0), nan_ok=True)
    assert intervals.paired_difference([1.0], [0.5]) == pytest.approx((0.5, nan, nan, nan, 1), nan_ok=True)


NAN = math.nan


def is_without_interval(found, mean, n):
    """No ends, no p: units that show no spread say nothing of it."""
    return found == pytest.approx((mean, *[NAN] * (len(found) - 2), n), nan_ok=True)


def test_no_spread_is_no_certainty():
    assert is_without_interval(found := intervals.mean_interval([0.1] * 3), 0.1, 3)
    assert found.mean == 0.1  # fsum([0.1] * 3) / 3 is not
    assert is_without_interval(intervals.mean_interval([0.0, 0.0]), 0.0, 2)
    assert is_without_interval(intervals.clustered_interval([0.2, 0.4, 0.4, 0.2], [0, 0, 1, 1]), 0.3, 2)
    # In binary, 0.9 - 0.8 and 0.7 - 0.6 are not equal, and 0.1 + 0.2 is not 0.3: rounding is no finding.
    for a, b, mean in (
        ([0.3, 0.7], [0.3, 0.7], 0.0),
        ([0.9, 0.7, 0.4], [0.8, 0.6, 0.3], 0.1),
        ([0.8, 0.6, 0.3], [0.9, 0.7, 0.4], -0.1),
        ([0.1 + 0.2, 0.3], [0.3, 0.3], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
    ):
        assert is_without_interval(found := intervals.paired_difference(a, b), mean, len(a))
        assert mean or found.difference == 0


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(
    "right, total, n", [(0, 51, 10), (51, 51, 10), (7, 30, 2), (999, 1000, 3), (0, 1, 2), (1, 1, 2)]
)
def test_shares_without_spread_have_the_exact_interval_of_all_their_examples(right, total, n, confidence):
    exact = scipy.stats.binomtest(n * right, n * total).proportion_ci(confidence, "exact")
    shares = intervals.mean_interval([right / total] * n, confidence, total)
    assert shares == pytest.approx((right / total, exact.low, exact.high, n), rel=1e-9)
    counts = intervals.mean_interval([right] * n, confidence, total, total)
    assert counts == pytest.approx((right, total * exact.low, total * exact.high, n), rel=1e-9)
    assert shares.low < shares.high and shares.low <= shares.mean <= shares.high


def test_ten_seeds_without_a_single_hit_by_hand():
    # Of 10 * 1,010 examples none: the upper end h has (1 - h)^10100 = 0.025.
    found = intervals.mean_interval([0.0] * 10, total=1010)
    assert found == pytest.approx((0, 0, 1 - 0.025 ** (1 / 10100), 10), rel=1e-12)
    # Students of two teachers: one of each counts, and a mean of 2.5 of 10 lies between 2 and 3.
    clustered = intervals.clustered_interval([0.2, 0.3, 0.3, 0.2], [0, 0, 1, 1], total=10)
    two, three = (scipy.stats.binomtest(k, 20).proportion_ci(0.95, "exact") for k in (4, 6))
    assert two.low < clustered.low < three.low and two.high < clustered.high < three.high
    assert (clustered.mean, clustered.n) == (0.25, 2)
    distinct = intervals.clustered_interval([0.2, 0.2], [0, 1], total=10)
    assert distinct == intervals.mean_interval([0.2, 0.2], total=10)


def test_where_there_is_a_spread_the_number_of_examples_changes_nothing():
    values = [0.2, 0.4, 0.1]
    assert intervals.mean_interval(values, total=10) == intervals.mean_interval(values)
    assert is_without_interval(intervals.mean_interval([0.5], total=10), 0.5, 1)
    assert intervals.mean_interval([0.5, NAN], total=10) == pytest.approx((NAN, NAN, NAN, 2), nan_ok=True)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_spread_of_more_than_four_units_in_the_last_place_is_no_rounding(sign):
    """Of the largest value on either side: 2^-52 at 1."""
    unit = 2.0**-52
    at_four, at_five = ([sign * 1.0, sign * (1 + units * unit)] for units in (4, 5))
    assert math.isnan(intervals.mean_interval(at_four).low)
    interval = intervals.mean_interval(at_five)
    assert interval.low < min(at_five) < max(at_five) < interval.high
    assert is_without_interval(
        intervals.paired_difference([*at_four, 0.0], [sign * 1.0, sign * 1.0, 0.0]), 0.0, 3
    )
    assert intervals.paired_difference([*at_five, 0.0], [sign * 1.0, sign * 1.0, 0.0]).p < 1


SAMPLES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8)
BY_CLUSTER = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 3)), min_size=1, max_size=8)
few = settings(max_examples=60, deadline=None, derandomize=True)


def about(interval, size: float):
    """Equal but for the rounding of values of this size."""
    return pytest.approx(interval, rel=1e-9, abs=1e-12 * size, nan_ok=True)


def size_of(values) -> float:
    return max(map(abs, values), default=0.0) + 1


def spreads(values) -> bool:
    """By far more than rounding, which is taken as no spread at all."""
    return max(values) - min(values) > 1e-6 * size_of(values)


@few
@given(values=SAMPLES, shift=st.floats(-1e6, 1e6), scale=st.floats(0.01, 100))
def test_an_interval_moves_and_scales_with_its_values(values, shift, scale):
    assume(spreads([*values, shift]) and spreads(values))
    mean, low, high, n = intervals.mean_interval(values)
    moved = intervals.mean_interval([scale * value + shift for value in values])
    size = scale * (size_of(values) + high - low) + abs(shift)
    assert moved == about((scale * mean + shift, scale * low + shift, scale * high + shift, n), size)
    flipped = intervals.mean_interval([-value for value in values])
    assert flipped == about((-mean, -high, -low, n), size)


@few
@given(pairs=BY_CLUSTER, random=st.randoms(use_true_random=False))
def test_neither_the_order_nor_the_names_of_the_teachers_matter(pairs, random):
    mixed = random.sample(pairs, len(pairs))
    one = intervals.clustered_interval(*zip(*pairs, strict=True))
    values, clusters = zip(*mixed, strict=True)
    other = intervals.clustered_interval(values, [f"teacher {cluster}" for cluster in clusters])
    assert other == about(one, size_of(values) + (0 if math.isnan(one.high) else one.high - one.low))


@few
@given(values=SAMPLES, confidences=st.tuples(st.floats(0.01, 0.999), st.floats(0.01, 0.999)))
def test_an_interval_holds_its_mean_and_grows_with_the_confidence(values, confidences):
    narrow, wide = (intervals.mean_interval(values, confidence) for confidence in sorted(confidences))
    assert min(values) <= narrow.mean <= max(values)
    assume(not math.isnan(narrow.low))
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high


@few
@given(values=SAMPLES, other=SAMPLES)
def test_p_says_what_the_interval_says(values, other):
    """Swapped, the difference changes its sign alone; p < 0.05 just where 0 is outside of the interval."""
    a, b = zip(*zip(values, other, strict=False), strict=True)
    found, swapped = intervals.paired_difference(a, b), intervals.paired_difference(b, a)
    expected = (-found.difference, -found.high, -found.low, found.p, found.n)
    assert swapped == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    if abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_lengths_that_differ():
    with pytest.raises(ValueError):
        intervals.paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError):
        intervals.clustered_interval([1.0, 2.0], [0])


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 10), (10, 4)])
def test_the_difference_of_two_means_is_welch(sizes, confidence):
    random = np.random.default_rng(sum(sizes))
    a, b = random.normal(5.0, 3.0, sizes[0]), random.normal(4.0, 0.3, sizes[1])
    test = scipy.stats.ttest_ind(a, b, equal_var=False)
    ends = test.confidence_interval(confidence)
    found = intervals.mean_difference(
        *(intervals.mean_interval(x, confidence) for x in (a, b)), confidence=confidence
    )
    expected = (a.mean() - b.mean(), ends.low, ends.high, test.pvalue, min(sizes))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0, 1.0], []])
def test_a_mean_without_an_interval_has_no_difference_with_one(values):
    """One value, no spread (also where its interval is the binomial one), no value."""
    for total in (None, 10):
        one, other = intervals.mean_interval(values, total=total), intervals.mean_interval([0.2, 0.4, 0.5])
        for pair in ((one, other), (other, one)):
            found = intervals.mean_difference(*pair)
            assert all(map(math.isnan, (found.low, found.high, found.p))) and found.n == min(len(values), 3)


def test_what_is_undefined_is_null_in_json_and_nan_when_read():
    entry = intervals.to_json(intervals.Interval(0.5, math.nan, 0.75, 3))
    assert entry == {"mean": 0.5, "low": None, "high": 0.75, "n": 3}
    read = intervals.from_json(intervals.Interval, entry | {"metric": "accuracy"})
    assert read == pytest.approx((0.5, math.nan, 0.75, 3), nan_ok=True)
    difference = intervals.Difference(0.5, 0.25, 0.75, 0.01, 3)
    assert intervals.from_json(intervals.Difference, intervals.to_json(difference)) == difference
