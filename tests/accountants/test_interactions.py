"""Whole interactions with a ledger, played out: every path, and its exact probability.

Each release is one of two outcomes (or three, one of infinite loss) under two
neighbours, whose laws its event states exactly. An analyst chooses the next charge by
what came out, and stops with a report. Over all paths, for every set S of them,

    P(S) <= E_Q[e^report; S] + delta

must hold, S the worst one. A report of inf states nothing about its path.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest

from dpkit.accountants import (
    ApproxDpEvent,
    Budget,
    BudgetExceeded,
    Ledger,
    PmfPairDpEvent,
    PureDpEvent,
)
from dpkit.accountants.ledger.merging import merge
from tests.accountants.toy_ledgers import new_ledger

EPSILON, DELTA = 3.0, 1e-3
BUDGET = Budget(EPSILON, DELTA)
QUIET = dp.GaussianDpEvent(1e3)  # charged, but what is released is a constant
PRICES: dict[str, Any] = {}  # the same for all ledgers here


class Game:
    """One path: outcomes in the order that was given, then always the first."""

    def __init__(self, path: tuple[int, ...]):
        self._given = iter(path)
        self.path: list[tuple[int, int]] = []
        self.p = self.q = 1.0

    def draw(self, p: tuple[float, ...], q: tuple[float, ...]) -> int:
        """What comes out of a release that has these laws."""
        outcome = next(self._given, 0)
        self.path.append((outcome, len(p)))
        self.p *= p[outcome]
        self.q *= q[outcome]
        return outcome

    def draw_worst(self, epsilon: float, delta: float) -> int:
        """Of the worst release that is (epsilon, delta)-DP."""
        up = (1 - delta) / (1 + math.exp(-epsilon))
        down = 1 - delta - up
        return self.draw((up, down, delta, 0.0), (down, up, 0.0, delta))


Strategy = Callable[[Game], float]


def leaves(strategy: Strategy) -> Iterator[tuple[float, float, float]]:
    """(P, Q, report) at the end of every path."""
    pending: list[tuple[int, ...]] = [()]
    while pending:
        given = pending.pop()
        game = Game(given)
        report = strategy(game)
        yield game.p, game.q, report
        outcomes = tuple(outcome for outcome, _ in game.path)
        for place in range(len(given), len(game.path)):
            _, number = game.path[place]
            pending += [(*outcomes[:place], other) for other in range(1, number)]


def excess(strategy: Strategy) -> float:
    """The most by which P(S) is above E_Q[e^report; S]."""
    found = list(leaves(strategy))
    assert math.fsum(p for p, _, _ in found) == pytest.approx(1.0)
    assert math.fsum(q for _, q, _ in found) == pytest.approx(1.0)
    stated = [leaf for leaf in found if leaf[2] < math.inf]
    return math.fsum(max(p - math.exp(r) * q, 0.0) for p, q, r in stated)


def two(mass: float, loss: float) -> Any:
    """A release with an outcome of that P-mass and loss, and its event."""
    p, other = (mass, 1 - mass), mass * math.exp(-loss)
    q = (other, 1 - other)
    how = {"relation": "zero_out", "name": "two", "provenance": "direct"}
    return PmfPairDpEvent(p=p, q=q, certified=True, **how)


def toy(**options) -> Any:
    """A ledger under the relation of the pairs."""
    ledger = new_ledger(budget=BUDGET, relation="zero_out", **options)
    ledger._book._prices = PRICES
    return ledger


def largest(fits: Callable[[float], bool], high: float, steps: int = 24) -> float:
    """Nearly the largest number up to `high` that fits."""
    low = 0.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def charged(ledger: Ledger, event: Any) -> bool:
    """Whether the charge was accepted."""
    try:
        ledger.charge(event, label="x")
    except BudgetExceeded:
        return False
    return True


def tempting(begin: Callable[[], Ledger], factor: float) -> Any:
    """The largest loss that a ledger still takes, of the mass that an order minds."""
    opens = begin().entries()[1].body["cost"]["all"].get("opens")
    order = float(opens["orders"][0]) if opens else 1.0
    mass = factor * order * 0.675 * DELTA
    loss = largest(lambda loss: charged(begin(), two(mass, loss)), 12.0)
    return two(mass, loss)


# Merging ------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_merging_again_and_again_gives_no_delta_anew(share):
    def strategy(game: Game) -> float:
        ledger = toy()
        for _ in range(4):
            if not charged(ledger, ApproxDpEvent(0.0, share * DELTA)):
                break
            if game.draw_worst(0.0, share * DELTA) >= 2:
                break
            ledger = merge([ledger], None)
        return EPSILON

    assert 0.0 < excess(strategy) <= DELTA * (1 + 1e-12)


FIRST = [(1.3, 0.6), (2.0, 1.0), (3.0, 0.6)]


def one_plan(mass: float, loss: float, **options) -> Callable[[], Ledger]:
    """A ledger that holds one sealed plan, made anew at each call."""

    def begin() -> Ledger:
        ledger = toy(**options)
        ledger.reserve(two(mass * DELTA, loss), label="first")
        return ledger

    return begin


@pytest.mark.parametrize(("mass", "loss"), FIRST)
@pytest.mark.parametrize("merged", [False, True])
def test_a_plan_that_was_alone_until_something_came_out(mass, loss, merged):
    """Where it lost, stop, or spend all the rest; else go on in the filter."""
    begin = one_plan(mass, loss)
    assert begin().entries()[1].body["counted"] == "renyi"
    first, second = two(mass * DELTA, loss), tempting(begin, 1.0)

    def strategy(game: Game) -> float:
        ledger: Any = begin()
        if game.draw(first.p, first.q) == 0:
            if not merged:
                return ledger.spent().upper
            rest = EPSILON - ledger.spent().upper - 1e-9
            ledger = merge([ledger], None)
            ledger.charge(PureDpEvent(rest), label="the rest")
            game.draw_worst(rest, 0.0)
            return EPSILON
        assert charged(ledger, second)
        game.draw(second.p, second.q)
        return EPSILON if merged else ledger.spent().upper

    # Near the promise: a filter that gave a little more would break it.
    assert 0.5 * DELTA < excess(strategy) <= DELTA


# Reports along the way ------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"filter": "approx"}])
@pytest.mark.parametrize("part", [1.0, 0.3])
def test_reports_of_a_plan_and_of_looks_hold_together(how, part):
    """At a delta fixed beforehand; whoever lost something stops at once."""
    plan, look = two(1.2 * part * DELTA, 1.0), two(0.004 * part, 2.0)

    def strategy(game: Game) -> float:
        ledger = toy(**how)
        ledger.reserve(plan, delta=0.4 * DELTA, label="plan")
        out = game.draw(plan.p, plan.q)
        while out and charged(ledger, look) and len(game.path) < 4:
            out = game.draw(look.p, look.q)
        return ledger.spent(part * DELTA).upper

    assert 0.0 < excess(strategy) <= part * DELTA


@pytest.mark.parametrize("filter", ["zcdp", "pure", "approx"])
@pytest.mark.parametrize("part", [1.0, 0.3])
def test_reports_of_pure_releases_hold_together(filter, part):
    def strategy(game: Game) -> float:
        ledger = toy(filter=filter)
        while len(game.path) < 5 and charged(ledger, PureDpEvent(0.5)):
            if game.draw_worst(0.5, 0.0) and len(game.path) > 1:
                break
        return ledger.spent(part * DELTA).upper

    assert excess(strategy) <= part * DELTA


@pytest.mark.parametrize("factor", [0.6, 1.0])
@pytest.mark.parametrize("loss", [2.6, 3.2])
@pytest.mark.parametrize("part", [0.0548, 0.055, 0.9, 1.0])
def test_a_report_at_a_smaller_delta_doesnt_follow_what_was_spent(factor, loss, part):
    """Delta is spent only where little else was lost."""
    lost = 4.99e-5

    def begin() -> Ledger:
        ledger = toy()
        ledger.charge(QUIET, label="opens the filter")
        return ledger

    opens: Any = begin().entries()[1].body["cost"]["all"]["opens"]
    mass = factor * float(opens["orders"][0]) * 0.75 * part * DELTA
    event = two(mass, largest(lambda loss: charged(begin(), two(mass, loss)), loss))

    def strategy(game: Game) -> float:
        ledger: Any = begin()
        ledger.charge(event, label="first")
        if game.draw(event.p, event.q) == 1:
            assert charged(ledger, ApproxDpEvent(0.0, lost))
            game.draw_worst(0.0, lost)
        return ledger.spent(part * DELTA).upper

    assert excess(strategy) <= part * DELTA


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_any_interaction_keeps_to_its_reports(seed):
    """Charges, plans, merges and stops at random, near what each ledger takes."""
    options: Any = [{}, {}, {"filter": "approx"}, {"adaptive": Budget(1.0, 4e-4)}]
    choices = np.random.default_rng(seed)
    how = options[int(choices.integers(len(options)))]
    part = float(choices.choice([1.0, 1.0, 0.5, 0.06]))
    events = [two(0.004 * choices.random() * part, 4 * choices.random() ** 2)]
    events += [two(3e-3 * choices.random(), 3 * choices.random()) for _ in range(2)]

    def strategy(game: Game) -> float:
        ledger: Any = toy(**how)
        for _ in range(4):
            outcomes = [outcome for outcome, _ in game.path]
            rng = np.random.default_rng([seed, len(outcomes), *outcomes])
            kind = rng.integers(8)
            event = events[rng.integers(len(events))]
            if kind == 0 and game.path:
                break
            if kind == 1 and part == 1.0:
                ledger = merge([ledger], None)
            elif kind == 2:
                lost = float(rng.choice([5e-5, 2e-5, 1e-6]))
                if charged(ledger, ApproxDpEvent(0.1, lost)):
                    game.draw_worst(0.1, lost)
            elif kind == 3:
                share = float(rng.choice([0.3, 0.5])) * DELTA
                try:
                    ledger.reserve(event, label="plan", delta=share)
                except BudgetExceeded:
                    continue
                game.draw(event.p, event.q)
            elif charged(ledger, event):
                game.draw(event.p, event.q)
        return ledger.spent(part * DELTA).upper

    assert excess(strategy) <= part * DELTA * (1 + 1e-9)
