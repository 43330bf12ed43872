"""The mutants of tests/mutants.py: each is one line still, and its test kills it."""

import pytest

from tests.mutants import MUTANTS, killed, occurrences

NAMED = [pytest.param(mutant, id=mutant.name) for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", NAMED)
def test_every_mutant_has_its_line(mutant):
    assert occurrences(mutant) == 1, f"{mutant.file} has changed: point the row anew"
    assert mutant.old != mutant.new


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize("mutant", NAMED)
def test_every_mutant_is_killed(mutant, tmp_path):
    dead, said = killed(mutant, tmp_path)
    assert dead, said[-3000:]
