"""Holm's correction against a hand computation, and against its definition as a step-down test."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_jax.stats.intervals import holm


def rejected(p_values, level):
    """Holm 1979: in increasing order, reject while p_(j) <= level / (m - j + 1); stop at the first that is
    not."""
    found = set()
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        found.add(place)
    return found


def test_holm_by_hand():
    """0.01 x 4; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.9 x 1. The third keeps the largest before it."""
    assert holm([0.9, 0.01, 0.03, 0.02]) == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert holm([0.04, 0.011]) == pytest.approx([0.04, 0.022])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_has_no_p_is_no_comparison():
    first, none, second = holm([0.02, math.nan, 0.5])
    assert (first, second) == (0.04, 0.5) and math.isnan(none)


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_adjusted_values_decide_as_the_steps_do(p_values, level):
    """But where rounding decides."""
    adjusted = holm(p_values)
    if all(abs(p - level) > 1e-9 for p in adjusted):
        assert {place for place, p in enumerate(adjusted) if p <= level} == rejected(p_values, level)
