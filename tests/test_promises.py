"""Promises that slips in one line once broke without a test to notice.

Each test here is one that tests/mutants.py names: that line, changed back, makes it
fail. All of them look at what users see alone.
"""

import os
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpkit import Budget, DPSGDPlan, Ledger, RunFolder, epsilon, fit
from dpkit.accountants import PrivacyBound
from dpkit.accountants.readings.best import delta_of
from dpkit.cli.bounds import bound_in_words, delta_in_words
from dpkit.report import of_ledger, render_account
from dpkit.training import Execution, as_optax, clipped_grad, load_config, run
from dpkit.training.autotune import choose_microbatch
from tests.dpkit.report.pages import training_page as render
from tests.dpkit.report.test_account import filled
from tests.dpkit.training.test_job import QUICK
from tests.dpkit.training.test_report import CONFIG, HISTORY, RESULT

pytestmark = pytest.mark.usefixtures("quick_compilation")
TERMS: dict[str, Any] = {
    "relation": "add_remove",
    "unit": "example",
    "dataset": "toy 1",
}


def folded(monkeypatch, root, action):
    """What a root key is folded with while something happens."""
    words, true, found = np.asarray(jax.random.key_data(root)), jax.random.fold_in, []

    def watched(key, data):
        if not isinstance(key, jax.core.Tracer):
            if np.array_equal(jax.random.key_data(jax.random.clone(key)), words):
                found.append(int(data))
        return true(key, data)

    with monkeypatch.context() as patch:
        patch.setattr(jax.random, "fold_in", watched)
        action()
    return set(found)


def test_one_root_gives_noise_and_batches_streams_of_their_own(monkeypatch):
    plan = DPSGDPlan.create(
        max_records=50,
        expected_batch_size=10,
        steps=2,
        clip_norm=1.0,
        noise_multiplier=1.0,
    )
    root, params, records = jax.random.key(3), jnp.zeros(2), np.ones((50, 2), "f4")
    gradient = clipped_grad(lambda w, x, key: jnp.vdot(w, x), clip_norm=1.0)
    batches = folded(
        monkeypatch, root, lambda: list(plan.batches(root, num_records=50))
    )

    def one_step():
        optimizer = as_optax(plan, root)
        batch = plan.batch(jax.random.key(4), 0, 50)
        total, _ = jax.jit(gradient)(params, records[batch.indices], batch.mask)
        optimizer.update(total, optimizer.init(params), params)

    noise = folded(monkeypatch, root, one_step)
    assert batches and noise
    assert not batches & noise


def test_every_row_has_randomness_of_its_own_in_every_step():
    """128 gradients that are random directions, clipped to 1, in two steps of 64.

    The square of their sum has mean 128 and, in 200 dimensions, a deviation of
    128 (2/200)^0.5 = 12.8: the bounds here are 4 of them away (a false alarm has a
    probability below 1e-4; the seed is fixed). With one key for all rows the sum has
    norm 128 or 90, with one for both steps about 16. The noise adds less than 0.2.
    """
    steps = 2

    def loss(w, x, key):
        return jnp.vdot(w, jax.random.normal(key, w.shape)) + 0.0 * x

    plan = DPSGDPlan.create(
        max_records=64,
        expected_batch_size=64,
        steps=steps,
        clip_norm=1.0,
        noise_multiplier=0.005,
        sampling="full_batch",
    )
    ledger = Ledger.open(None, budget=Budget(1e9, 1e-5), **TERMS)
    done = fit(
        loss,
        jnp.zeros(200),
        np.zeros(64, np.float32),
        plan=plan,
        optimizer=optax.sgd(1.0),
        ledger=ledger,
        average_decay=None,
        execution=Execution(microbatch_size=64, mode="vmap", devices=1),
        insecure_seed=1,
    )
    moved = 64 * np.linalg.norm(done.params)
    assert 8.7 < moved < 13.5


class Killed(BaseException):
    """What ends a process stands in for."""


OFTEN = [pytest.mark.slow, pytest.mark.guard]


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize(
    "dies_at",
    [
        pytest.param("params.npz", marks=OFTEN),
        "report.html",
        pytest.param("result.json", marks=OFTEN),
    ],
)
def test_a_death_before_the_last_file_leaves_a_run_that_goes_on(
    tmp_path, monkeypatch, dies_at
):
    """Dead when a file was to be there; the next call makes all of them."""
    out, true = tmp_path / "run", os.replace

    def replace(source, target, **options):
        if os.path.basename(target) == dies_at:
            raise Killed
        return true(source, target, **options)

    config = load_config(QUICK.replace("steps = 6", "steps = 2"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            run(config, out)
    assert not RunFolder(out).finished
    done = run(config, out)
    assert not done.already_finished
    assert {"params.npz", "report.html", "result.json"} <= set(os.listdir(out))


def test_the_cost_shown_on_the_way_is_never_below_the_steps_that_ran():
    """40 steps and a grid of 20 points: in between, the next point counts."""
    plan = DPSGDPlan.create(
        max_records=60,
        expected_batch_size=6,
        steps=40,
        clip_norm=1.0,
        noise_multiplier=1.0,
    )
    ledger = Ledger.open(None, budget=Budget(1e3, 1e-5), **TERMS)
    shown: dict[int, float] = {}
    done = fit(
        lambda w, x, key: jnp.vdot(w, x),
        jnp.zeros(2),
        np.ones((60, 2), np.float32),
        plan=plan,
        optimizer=optax.sgd(0.1),
        ledger=ledger,
        execution=Execution(microbatch_size=8, mode="microbatch", devices=1),
        on_progress=lambda p: shown.update({p.step: p.epsilon}),
    )
    for step in (1, 2, 3, 4, 20, 39, 40):
        event = plan.event_until(step, "add_remove")
        cost = epsilon(event, 1e-5, relation="add_remove")
        assert cost.lower is not None
        assert shown[step] >= cost.lower
    assert shown[40] == pytest.approx(done.bound.upper, rel=1e-12)


def lowered(text):
    """Numbers of these tests that were rounded to the nearest, which is down."""
    text = re.sub(r"<svg.*?</svg>|<pre.*?</pre>", "", text, flags=re.DOTALL)
    return re.findall(r"(?<![\d.])(?:2\.999|1\.999|2\.1|1e-5)(?!\d)", text)


def test_a_report_rounds_no_bound_down():
    facts = {"epsilon": 2.99941, "delta": 1.00004e-5}
    history = [HISTORY[0] | {"epsilon": 2.10004}, HISTORY[1] | {"epsilon": 2.99941}]
    page = render({**RESULT, **facts}, history, CONFIG)
    assert lowered(page) == []
    assert page.count("≤ 3<") and page.count("2.101") and page.count("1.001e-5") > 2


def test_the_report_of_a_ledger_rounds_no_bound_down():
    with filled(None) as ledger:
        facts = of_ledger(ledger)
    pair = {"delta": 1.00004e-5, "upper": 2.99941}
    facts["bound"] |= pair
    facts["if_fixed_in_advance"]["bound"] |= pair
    for charge in facts["charges"]:
        charge["own"] |= pair
    scope = {"name": "2024", "budget": {"epsilon": 5, "delta": 0.1}}
    facts["budget"] |= {"delta": 1e-3}  # of a budget, what is below is safe
    facts["scopes"] = [scope | {"bound": facts["bound"] | {"upper": 1.99941}}]
    page = render_account(facts)
    assert lowered(page) == []
    assert page.count("≤ 3") >= 5 and page.count("1.001e-5") >= 5
    assert ">2<" in page


def test_printed_bounds_are_never_rounded_down():
    pair: dict[str, Any] = {"certified": True, "relation": "add_remove"}
    bound = PrivacyBound(delta=1.00004e-5, upper=2.99941, method_upper="pld", **pair)
    words = dict(bound_in_words(bound))
    assert words["epsilon"] == "≤ 3, certified upper bound (pld)"
    assert words["delta"] == "1.001e-5"
    event = DPSGDPlan.create(
        max_records=10,
        expected_batch_size=5,
        steps=1,
        clip_norm=1.0,
        noise_multiplier=1.0,
    ).event("add_remove")
    other = delta_of(event, 1.00004, relation="add_remove")
    words = dict(delta_in_words(other))
    assert words["epsilon"] == "1.001"
    shown = float(str(words["delta"]).split(",")[0].removeprefix("≤ "))
    assert other.upper is not None and other.upper <= shown


class Sleeper:
    """A step that takes as long as its microbatch size says."""

    def __init__(self, way):
        self.seconds = {2: 0.06, 4: 0.0, 8: 0.12}[way.microbatch_size]

    def zeros(self, example, filled):
        return jnp.zeros(filled)

    def gradient(self, params, rows):
        def wait(_):
            time.sleep(self.seconds)
            return np.float32(0.0)

        return jax.pure_callback(wait, jax.ShapeDtypeStruct((), np.float32), rows[0])


def test_the_fastest_microbatch_is_chosen():
    make: Any = Sleeper
    found = choose_microbatch(make, Execution(), None, None, 16, candidates=(2, 4, 8))
    assert found == Execution(microbatch_size=4)
