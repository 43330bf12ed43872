"""A run's part of a shared ledger is never passed, not by a rounding either."""

import pytest
from dp_accounting import GaussianDpEvent

from dpkit.accountants import Budget, BudgetExceeded, PureDpEvent
from dpkit.accountants.answers.relations import Relation
from dpkit.jobs.ledger import part_cost

ANY = Relation.ADD_REMOVE


def test_what_a_float_would_round_away_is_refused():
    # 1 + 2^-60 is 1 in floats.
    with pytest.raises(BudgetExceeded):
        part_cost(Budget(1.0, 0.0), PureDpEvent(2.0**-60), ANY, [[1.0, 0.0]], True)


def test_all_that_is_left_of_delta_may_be_taken():
    part, event = Budget(1.0, 0.5), GaussianDpEvent(10.0)
    asked, delta = part_cost(part, event, ANY, [[0.25, 0.25]], True)
    assert 0 <= asked <= 0.75
    assert delta == 0.25
