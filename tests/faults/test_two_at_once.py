"""A second command is refused while the first is within a checkpoint, and takes over when that is killed."""

import pytest

from tests.faults import two_at_once


@pytest.mark.slow
def test_the_second_is_refused_and_takes_over_from_a_dead_one(fresh):
    within = ".epoch_000002.incomplete/manifest.json"
    tried = two_at_once.held(fresh, "train_teacher", [within], goes_on=False)
    assert (tried.times, tried.held) == (1, 1), tried.failures
