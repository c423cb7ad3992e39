"""Mutants are what they say, and one that matters is caught; the long version breaks every line."""

import ast

import pytest

from tests.faults import mutation
from tests.faults.equivalent import EQUIVALENT


def test_every_mutant_is_another_program():
    described = set()
    for file in mutation.FILES:
        source = mutation.source_of(file)
        whole = ast.dump(ast.parse(source))
        for mutant in mutation.mutants(file):
            assert ast.dump(ast.parse(mutant.applied(source))) != whole, mutant
            assert mutation.described(mutant) not in described
            described.add(mutation.described(mutant))
    assert set(EQUIVALENT) <= described  # of what is there, not of what was


def test_each_line_that_computes_is_broken_and_always_in_the_same_way():
    """Of min_error_bias in evaluate/bias_correction.py, six lines hold something that can be replaced."""
    chosen = mutation.chosen("evaluate/bias_correction", per_line=1)
    assert chosen == mutation.chosen("evaluate/bias_correction", per_line=1)
    source = mutation.source_of("evaluate/bias_correction")
    lines = [source.count(b"\n", 0, one.begin) for one in chosen if one.function == "min_error_bias"]
    assert len(set(lines)) == len(lines) == 6


@pytest.mark.slow
def test_a_change_that_matters_is_caught_and_one_that_does_not_survives():
    wrong = next(
        one for one in mutation.mutants("stats/intervals") if "confidence * 2" in mutation.described(one)
    )
    nothing = wrong._replace(begin=0, end=0, after="")
    assert mutation.survivors([wrong, nothing]) == [nothing]
