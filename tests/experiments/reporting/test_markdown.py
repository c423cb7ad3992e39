"""Intervals and differences as text: no interval looks as if it had no width."""

import math

import pytest

from experiments.reporting.markdown import difference_cells, ends, show
from kd_jax.stats.intervals import Difference, Interval

NAN = math.nan


@pytest.mark.parametrize(
    "interval, text",
    [
        (Interval(0.9, 0.885, 0.915, 5), "90.00 ± 1.50"),
        (Interval(0.0, 0.0, 0.0072, 10), "0.00, at most 0.72"),
        (Interval(1.0, 0.9928, 1.0, 10), "100.00, at least 99.28"),
        (Interval(0.9, 0.7347, 0.9789, 3), "90.00 ± 16.5"),  # the larger side
        (Interval(1.0, 0.99996, 1.0, 10), "100.00, at least 99.99"),
        (Interval(0.5, -0.9, 1.9, 2), "50.00 ± >100"),
        (Interval(0.5, NAN, NAN, 3), "50.00 (no spread seen)"),
        (Interval(0.5, NAN, NAN, 1), "50.00"),
        (Interval(NAN, NAN, NAN, 3), "-"),
        (None, "-"),
    ],
)
def test_mean_and_half_width(interval, text):
    assert show(interval, half=" ± ") == text
    assert show(interval, half=None) == text.split(" ")[0].rstrip(",")


def test_the_ends_of_an_interval_differ_as_text():
    assert ends(0.0, 0.5) == "0.00 to 50.00"
    assert ends(0.0, 0.000037) == "0.000 to 0.004"
    assert ends(0.99999, 1.0) == "99.999 to 100.000"
    assert ends(-0.1, 0.2, "+") == "-10.00 to +20.00"


def test_a_difference_without_an_interval_says_why():
    assert difference_cells(Difference(0.1, -0.1, 0.3, 0.074, 3)) == [
        "+10.00",
        "-10.00 to +30.00",
        "0.074",
        "3",
    ]
    assert difference_cells(Difference(0.0, NAN, NAN, NAN, 3)) == ["+0.00", "no spread seen", "-", "3"]
    assert difference_cells(Difference(0.7, NAN, NAN, NAN, 1)) == ["+70.00", "-", "-", "1"]
