"""Intervals and paired differences against derived numbers, scipy.stats and simulated coverage."""

import math

import numpy as np
import pytest
import scipy.stats

from kd_jax import stats


def test_interval_by_hand():
    # mean 3; deviations -2, 0, 2: sd = sqrt(8 / 2) = 2, standard error 2 / sqrt(3) = 1.154701.
    # Student's t has the quantile 4.302653 at 0.975 with 2 degrees of freedom: half width 4.968275.
    interval = stats.mean_interval([1.0, 3.0, 5.0])
    assert interval == pytest.approx((3.0, -1.968275, 7.968275, 3), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_interval_agrees_with_scipy(n, confidence):
    values = np.random.default_rng(n).normal(5.0, 3.0, n)
    low, high = scipy.stats.t.interval(confidence, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    expected = (values.mean(), low, high, n)
    assert stats.mean_interval(values, confidence) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_paired_difference_agrees_with_scipy(n):
    a, b = np.random.default_rng(n).normal([[0.3], [0.0]], 1.0, (2, n))
    reference = scipy.stats.ttest_rel(a, b)
    low, high = reference.confidence_interval(0.95)
    expected = (np.mean(a - b), low, high, reference.pvalue, n)
    assert stats.paired_difference(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_coverage_is_95_percent(n):
    # Of 4000 intervals, each covers the truth with probability 0.95: the share that does has the standard
    # error sqrt(0.95 * 0.05 / 4000) = 0.0034, and 4 of those are allowed. (A normal interval covers 0.81
    # at n = 3, and the p of an unpaired test would be off by far more.)
    samples = np.random.default_rng(n).normal(2.0, 1.0, (4000, n)).tolist()
    covered = [low <= 2.0 <= high for _, low, high, _ in map(stats.mean_interval, samples)]
    significant = [stats.paired_difference(sample, [2.0] * n).p < 0.05 for sample in samples]
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * 0.0034)
    assert np.mean(significant) == pytest.approx(0.05, abs=4 * 0.0034)


def test_coverage_where_students_share_teachers():
    # 5 teachers with 4 students each; the luck of a teacher is as large as that of a student.
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(5), 4).tolist()
    samples = (rng.normal(size=(4000, 5, 1)) + rng.normal(size=(4000, 5, 4))).reshape(4000, 20).tolist()

    def coverage(intervals):
        return np.mean([low <= 0 <= high for _, low, high, _ in intervals])

    clustered = coverage(stats.clustered_interval(sample, clusters) for sample in samples)
    assert clustered == pytest.approx(0.95, abs=4 * 0.0034)
    assert coverage(map(stats.mean_interval, samples)) < 0.8  # what taking the students as independent does


def test_clusters_by_hand():
    # The means of the clusters are 2 and 10, each one unit whatever its size: mean 6, sd sqrt(32) and
    # standard error 4; the t quantile at 0.975 with 1 degree of freedom is 12.706205.
    interval = stats.clustered_interval([1.0, 10.0, 3.0], ["a", "b", "a"])
    assert interval == pytest.approx((6.0, 6 - 4 * 12.706205, 6 + 4 * 12.706205, 2), abs=1e-5)
    difference = stats.paired_difference([1.0, 10.0, 3.0], [0.0, 0.0, 0.0], ["a", "b", "a"])
    # One degree of freedom is Cauchy's distribution: p = 1 - 2/pi atan(t), t = 6 / 4.
    p = 1 - 2 / math.pi * math.atan(1.5)
    assert difference == pytest.approx((*interval[:3], p, 2), abs=1e-12)


@pytest.mark.parametrize("clusters", [[0, 0, 0, 0], [0, 1, 2, 3], [None] * 4])
def test_one_cluster_and_distinct_clusters_are_the_plain_interval(clusters):
    values = [0.2, 0.4, 0.1, 0.9]
    assert stats.clustered_interval(values, clusters) == stats.mean_interval(values)
    assert stats.paired_difference(values, [0.1] * 4, clusters) == stats.paired_difference(values, [0.1] * 4)


def test_what_cannot_be_said_is_nan():
    nan = math.nan
    assert stats.mean_interval([]) == pytest.approx((nan, nan, nan, 0), nan_ok=True)
    assert stats.mean_interval([0.5]) == pytest.approx((0.5, nan, nan, 1), nan_ok=True)
    assert stats.mean_interval([0.5, nan]) == pytest.approx((nan, nan, nan, 2), nan_ok=True)
    assert stats.mean_interval([0.5, math.inf]) == pytest.approx((nan, nan, nan, 2), nan_ok=True)
    assert stats.paired_difference([], []) == pytest.approx((nan, nan, nan, nan, 0), nan_ok=True)
    assert stats.paired_difference([1.0], [0.5]) == pytest.approx((0.5, nan, nan, nan, 1), nan_ok=True)


def test_no_spread():
    assert stats.mean_interval([0.1] * 3) == (0.1, 0.1, 0.1, 3)  # fsum([0.1] * 3) / 3 is not 0.1
    assert stats.mean_interval([0.0, 0.0]) == (0.0, 0.0, 0.0, 2)
    assert stats.paired_difference([0.3, 0.7], [0.3, 0.7]) == (0.0, 0.0, 0.0, 1.0, 2)
    # In binary, 0.9 - 0.8 and 0.7 - 0.6 are not equal, and 0.1 + 0.2 is not 0.3: rounding is no finding.
    difference = stats.paired_difference([0.9, 0.7, 0.4], [0.8, 0.6, 0.3])
    assert difference.low == difference.high == pytest.approx(0.1)
    assert difference.p == 0.0
    assert stats.paired_difference([0.1 + 0.2, 0.3], [0.3, 0.3]) == (0.0, 0.0, 0.0, 1.0, 2)


def test_a_small_spread_is_not_rounding():
    interval = stats.mean_interval([0.5, 0.5 + 1e-12])
    assert interval.low < 0.5 < 0.5 + 1e-12 < interval.high


def test_lengths_that_differ():
    with pytest.raises(ValueError):
        stats.paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError):
        stats.clustered_interval([1.0, 2.0], [0])
