"""A few draws of the comparison with float64: the long version is the part `numbers` of the campaign."""

import numpy as np
import pytest

from tests.faults import float64, numbers


@pytest.mark.parametrize("name", float64.LOSSES)
def test_losses_and_gradients(name):
    assert max(map(np.max, numbers.of_loss(name, draws=1))) <= 1


@pytest.mark.parametrize(
    "compared",
    [numbers.of_averages, numbers.of_signals, numbers.of_metrics, numbers.of_bias, numbers.of_stats],
)
def test_what_the_library_computes_is_as_near_to_float64_as_f32_allows(compared):
    assert max(map(np.max, compared(1))) <= 1


@pytest.mark.parametrize("wrong", [1.01, np.nan, np.inf])
def test_an_error_beyond_the_bound_is_told(wrong):
    row = numbers.near("a number", [numbers.share([1.0, wrong], 1.0, 0.005)])
    assert (row.times, row.held, row.failures) == (2, 1, ("1 beyond the bound",))
