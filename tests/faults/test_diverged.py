"""A run that goes to nan touches no other; the long version has more networks, optimisers and mappings."""

import jax
import pytest

from tests.faults import diverged


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax's Adam mixes Python floats with integer counts, which the strict setting forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("vmap_size", [1, None])
def test_neighbours_of_a_run_that_diverges_are_untouched(vmap_size):
    assert diverged.differences("mlp-16", "adam", vmap_size) == []
