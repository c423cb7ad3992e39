"""A tenth of the simulation: the long version is the part `coverage` of the campaign."""

import pytest

from kd_jax.stats import intervals
from tests.faults import coverage

REPEATS = 2000


@pytest.mark.parametrize(
    "draw, interval",
    [
        (coverage.normal, intervals.mean_interval),
        (coverage.normal, coverage.paired),
        (coverage.of_teachers, coverage.clustered),
    ],
)
def test_95_percent_of_the_intervals_hold_the_true_mean(draw, interval):
    for share in coverage.shares(draw, interval, REPEATS):
        assert share == pytest.approx(0.95, abs=coverage.tolerance(REPEATS))


def test_students_of_one_teacher_are_not_independent():
    """Where a teacher's luck is as large as a student's, the mean of n teachers with 4 students each has the
    variance (1 + 1/4) / n; taken as 4 n independent values, about (1 + 1) / (4 n): the interval is too narrow
    by sqrt(2.5), and a normal one would hold the mean where |z| < 1.96 / 1.58: with probability 0.785."""
    shares = coverage.shares(coverage.of_teachers, intervals.mean_interval, REPEATS)
    assert all(share < 0.85 for share in shares)
    assert shares[-1] == pytest.approx(0.785, abs=0.03)
