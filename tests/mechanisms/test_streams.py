"""Every stream of the list passes every common check; a new one needs no other line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpkit import Budget, Ledger, fit
from dpkit.mechanisms.clips import Flat
from dpkit.training import Execution, as_optax
from tests.streams import CHECKS, ROWS, Fading, check_event, check_steps


def rows_and_checks():
    """Every row with every check; running all steps of a long one is a guard."""
    often = [pytest.mark.slow, pytest.mark.guard]
    for row in ROWS:
        for check in CHECKS:
            long = check is check_steps and row.name != "changing"
            name = f"{row!r}-{check.__name__}"
            yield pytest.param(row, check, id=name, marks=often if long else [])


@pytest.mark.parametrize(("row", "check"), list(rows_and_checks()))
def test_stream(row, check):
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_a_run_costs_its_steps_under_every_relation(row):
    check_event(row, every=True)


@pytest.mark.slow
@pytest.mark.guard
def test_a_new_noise_trains_by_its_plan_alone():
    """In `fit`, which charges what its own event says, and in a loop of one's own."""
    (row,) = (row for row in ROWS if isinstance(row.stream, Fading))
    plan, root = row.plan(), jax.random.key(0)
    records = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)

    def loss(w, x, key):
        return (jnp.vdot(w, x) - x.sum()) ** 2

    ledger = Ledger.open(
        None, budget=Budget(100.0, 1e-5), relation="add_remove",
        unit="example", dataset="toy 1",
    )  # fmt: skip
    done = fit(
        loss, jnp.zeros(3), records, plan=plan, optimizer=optax.sgd(0.1), ledger=ledger,
        execution=Execution(microbatch_size=4), insecure_seed=1,
    )  # fmt: skip
    want = plan.epsilon(1e-5, relation="add_remove").upper
    assert done.bound.upper == pytest.approx(want, rel=1e-6)
    assert np.isfinite(done.params).all() and np.any(done.params != 0)
    optimizer = optax.chain(as_optax(plan, root), optax.sgd(0.1))
    params: Any = jnp.zeros(3)
    total: Any = None
    update: Any
    state, gradient = optimizer.init(params), plan.gradient(loss)
    for batch in plan.batches(root, records):
        total, _ = gradient(params, batch)
        update, state = optimizer.update(total, state, params)
        params = optax.apply_updates(params, update)
    assert np.isfinite(np.asarray(params)).all()
    update, _ = optimizer.update(total, state, params)
    assert np.isnan(np.asarray(update)).all()


def test_a_deterministic_factor_that_the_event_forgot_would_show():
    """The check of events is no empty one."""
    from tests.streams import Row

    class Wrong(Fading):
        def run_event(self, sampler, steps, relation):
            return Fading(Flat(1.0), 1.5, 12, 1.0).run_event(sampler, steps, relation)

    (row,) = (row for row in ROWS if isinstance(row.stream, Fading))
    wrong = Row("wrong", Wrong(Flat(1.0), 1.5, 12), row.sampler, 4, (), written=False)
    with pytest.raises(AssertionError, match=">"):
        check_event(wrong)
