"""fit: charged before it runs, honest about time and batches, resumable to the bit."""

import dataclasses
import shutil
from typing import Any

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpkit import (
    Budget,
    BudgetExceeded,
    DPSGDPlan,
    Evaluation,
    Ledger,
    RunFolder,
    epsilon,
    fit,
)
from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.training import Execution, trainer

RECORDS = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
PLAN = DPSGDPlan.create(
    max_records=300,
    expected_batch_size=60,
    steps=12,
    clip_norm=1.0,
    noise_multiplier=1.0,
)
START = {"w": jnp.zeros(4), "b": jnp.zeros(())}
# The quickest to compile; other modes: test_noising.
WAY = Execution(mode="microbatch", microbatch_size=8, devices=2)
pytestmark = pytest.mark.usefixtures("quick_compilation")


def loss(params, x, key):
    return (jnp.vdot(params["w"], x) + params["b"] - x.sum()) ** 2


def new_ledger(path=None, epsilon=30.0, **changes):
    facts: dict[str, Any] = {
        "relation": "add_remove",
        "unit": "example",
        "dataset": "toy 1",
    }
    return Ledger.open(path, budget=Budget(epsilon, 1e-5), **{**facts, **changes})


def train(ledger, records=RECORDS, **options):
    settings: dict[str, Any] = {
        "plan": PLAN,
        "optimizer": optax.sgd(0.1, momentum=0.9),
        "execution": WAY,
        "average_decay": 0.9,
        **options,
    }
    return fit(loss, START, records, ledger=ledger, **settings)


def entry_kinds(ledger):
    return [entry.kind for entry in ledger.entries()]


def error_of(params):
    w, b = np.asarray(params["w"]), np.asarray(params["b"])
    return np.mean((RECORDS @ w + b - RECORDS.sum(1)) ** 2)


def test_a_run_learns_and_costs_what_its_plan_says():
    ledger, seen = new_ledger(), []
    done = train(ledger, on_progress=lambda p: seen.append(entry_kinds(ledger)))
    assert error_of(done.params) < 0.7 * error_of(START)
    want = PLAN.epsilon(1e-5, relation="add_remove").upper
    assert done.bound.upper == pytest.approx(want, rel=1e-9)
    assert ledger.spent().upper == pytest.approx(want, rel=1e-9)
    assert entry_kinds(ledger).count("reserve") == 1
    assert "reserve" in seen[0]  # it is there before the first step


def test_a_run_that_does_not_fit_is_refused_with_nothing_spent_or_run():
    ledger = new_ledger(epsilon=0.5)
    steps = []
    with pytest.raises(BudgetExceeded):
        train(ledger, on_progress=steps.append)
    assert steps == []
    assert entry_kinds(ledger) == ["genesis"]


def test_an_interrupted_run_stays_spent():
    ledger = new_ledger()

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(ledger, on_progress=stop)
    want = PLAN.epsilon(1e-5, relation="add_remove").upper
    assert ledger.spent().upper == pytest.approx(want, rel=1e-9)


@pytest.mark.slow
def test_progress_is_certified_monotone_and_says_nothing_private():
    seen = []
    train(new_ledger(), on_progress=seen.append)
    assert [p.step for p in seen] == list(range(1, 13))
    epsilons = [p.epsilon for p in seen]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] == PLAN.epsilon(1e-5, relation="add_remove").upper
    for p in seen:
        prefix = dp_accounting.SelfComposedDpEvent(
            PLAN.step_event("add_remove"), p.step
        )
        exact = epsilon(prefix, 1e-5, relation="add_remove", accountant="pld").upper
        assert exact is not None
        # The same accountant on a finer grid may be lower, never higher by more.
        assert p.epsilon >= exact * (1 - 1e-4)
    assert {field for field in seen[0].__dataclass_fields__} == {
        "step",
        "steps",
        "epsilon",
        "scores",
        "examples_per_second",
    }


@pytest.mark.slow
@pytest.mark.parametrize("public", [pytest.param(True, marks=pytest.mark.slow), False])
def test_scores_on_private_rows_stay_private(tmp_path, public):
    seen = []
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    done = train(
        new_ledger(),
        evaluation=Evaluation(lambda params: 0.625, public=public, every=5),
        folder=folder,
        on_progress=seen.append,
    )
    steps = [5, 10, 12]
    assert [row["step"] for row in done.history] == steps
    if public:
        assert seen[-1].test_accuracy == 0.625
        assert done.private_scores == ()
        return
    assert {row["test_accuracy"] for row in done.history} == {None}
    assert {p.test_accuracy for p in seen} == {None}
    assert done.private_scores == tuple((step, 0.625) for step in steps)
    assert "0.625" not in repr(done)
    found = [p for p in folder.path.rglob("*") if p.is_file()]
    assert any(b"0.625" in path.read_bytes() for path in found)
    for path in found:
        if folder.private not in path.parents:
            assert b"0.625" not in path.read_bytes()


@pytest.mark.slow
def test_noise_and_batches_are_fresh_in_every_run():
    first, second = train(new_ledger()), train(new_ledger())
    assert first.params_sha256 != second.params_sha256
    assert first.run_id != second.run_id


@pytest.mark.slow
def test_a_fixed_seed_repeats_and_is_marked(tmp_path):
    runs = [train(new_ledger(), insecure_seed=1) for _ in range(2)]
    assert runs[0].params_sha256 == runs[1].params_sha256
    assert train(new_ledger(), insecure_seed=2).params_sha256 != runs[0].params_sha256
    ledger = new_ledger(tmp_path / "ledger.db")
    with pytest.raises(ValueError, match="insecure_seed"):
        train(ledger, insecure_seed=1)
    assert entry_kinds(ledger) == ["genesis"]
    train(ledger, insecure_seed=1, allow_insecure_ledger=True)
    reserve = next(e for e in ledger.entries() if e.kind == "reserve")
    assert reserve.body["provenance"]["insecure_seed"] is True


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize("size", [None, 8])
def test_the_loss_is_traced_once_a_run(size):
    traces = []

    def counted(params, x, key):
        traces.append(1)
        return loss(params, x, key)

    fit(
        counted,
        START,
        RECORDS,
        plan=dataclasses.replace(PLAN, steps=1),
        optimizer=optax.sgd(0.1),
        ledger=new_ledger(),
        execution=Execution(microbatch_size=size, devices=1),
    )
    assert len(traces) == 1


class Killed(Exception):
    """Stands for a process that is gone."""


def kill_at(step):
    def on_progress(progress):
        if progress.step == step:
            raise Killed

    return on_progress


def check_resumption(tmp_path, steps, **changes):
    options = {"insecure_seed": 3, "allow_insecure_ledger": True, **changes}
    whole = train(new_ledger(), **options)
    for step in steps:
        folder = RunFolder(tmp_path / str(step))
        folder.prepare()
        with new_ledger(folder.ledger) as ledger:
            with pytest.raises(Killed):
                train(ledger, folder=folder, on_progress=kill_at(step), **options)
        with new_ledger(folder.ledger) as ledger:
            done = train(ledger, folder=folder, **options)
            assert entry_kinds(ledger).count("reserve") == 1
            spent = ledger.spent().upper
        assert done.params_sha256 == whole.params_sha256
        assert spent == pytest.approx(whole.bound.upper, rel=1e-12)


@pytest.mark.slow
@pytest.mark.guard
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    check_resumption(tmp_path, [7])


@pytest.mark.slow
def test_resuming_at_every_step_gives_the_uninterrupted_run(tmp_path):
    check_resumption(tmp_path, range(1, PLAN.steps + 1))


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 64])
def test_resuming_at_every_step_in_every_way_to_the_sum(tmp_path, size):
    """The rewritten loss in chunks, and all rows at once."""
    plan = dataclasses.replace(PLAN, steps=4)
    way = Execution(microbatch_size=size, devices=2)
    check_resumption(tmp_path, range(1, 5), plan=plan, execution=way)


def way(**changes):
    return {"execution": dataclasses.replace(WAY, **changes)}


def interrupted(tmp_path, step=7):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    ledger = new_ledger(folder.ledger)
    with pytest.raises(Killed):
        train(ledger, folder=folder, on_progress=kill_at(step))
    return folder, ledger


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"plan": PLAN.with_noise(2.0)}, "program"),
        ({"facts": {"mine": 1}}, "mine"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ({"insecure_seed": 1, "allow_insecure_ledger": True}, "insecure_seed"),
                ({"optimizer": optax.sgd(0.2, momentum=0.9)}, "program"),
                ({"average_decay": 0.5}, "program"),
                (way(devices=1), "devices"),
                (way(microbatch_size=4), "microbatch_size"),
                (way(constant_time=False), "program"),
            ]
        ),
    ],
)
def test_noise_is_never_reused_on_another_run(tmp_path, change, name):
    folder, ledger = interrupted(tmp_path)
    before = ledger.head
    with pytest.raises(ValueError, match=name):
        train(ledger, folder=folder, **change)
    assert ledger.head == before


@pytest.mark.slow
@pytest.mark.guard
def test_noise_is_never_reused_on_another_partition(tmp_path):
    """Two samplers may share event, divisor, slots and program, but not batches."""

    def plan(max_records, bins):
        return DPSGDPlan.create(
            max_records=max_records, bins=bins, steps=8, clip_norm=1.0,
            noise_multiplier=1.0, sampling="cyclic",
        )  # fmt: skip

    small, large = plan(len(RECORDS), 8), plan(2 * len(RECORDS), 16)
    assert small.event("add_remove") == large.event("add_remove")
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    ledger = new_ledger(folder.ledger)
    with pytest.raises(Killed):
        train(ledger, folder=folder, plan=small, on_progress=kill_at(1))
    with pytest.raises(ValueError, match="sampler differs"):
        train(ledger, folder=folder, plan=large)


@pytest.mark.slow
def test_noise_is_never_reused_with_another_optimizer_state(tmp_path):
    """A learning rate that lives in the state is in no program."""

    def rate(value):
        return optax.inject_hyperparams(optax.sgd)(learning_rate=value)

    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    ledger = new_ledger(folder.ledger)
    killed = {"folder": folder, "on_progress": kill_at(1)}
    plan = PLAN.with_noise(2.0)  # no checkpoint yet: the state starts anew
    with pytest.raises(Killed):
        train(ledger, optimizer=rate(0.1), plan=plan, **killed)
    with pytest.raises(ValueError, match="program"):
        train(ledger, optimizer=rate(0.2), plan=plan, folder=folder)


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    """Both runs are charged, yet neither's noise may go on from the other's state."""
    first, other = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "other")
    ledger = new_ledger()
    for folder in (first, other):
        folder.prepare()
        with pytest.raises(Killed):
            train(ledger, folder=folder, delta=4e-6, on_progress=kill_at(7))
    shutil.rmtree(first.checkpoints)
    shutil.copytree(other.checkpoints, first.checkpoints)
    with pytest.raises(ValueError, match="two runs wrote"):
        train(ledger, folder=first, delta=4e-6)


@pytest.mark.slow
def test_noise_is_never_reused_on_other_data(tmp_path):
    folder, ledger = interrupted(tmp_path)
    other = RECORDS.copy()
    other[17, 2] += 1
    with pytest.raises(ValueError, match="data differs"):
        train(ledger, records=other, folder=folder)


@pytest.mark.slow
def test_a_checkpoint_of_another_ledger_is_refused(tmp_path):
    folder, ledger = interrupted(tmp_path)
    ledger.close()
    folder.ledger.unlink()
    with new_ledger(folder.ledger) as fresh:
        with pytest.raises((ValueError, LedgerCorrupt), match="ledger"):
            train(fresh, folder=folder)
        assert entry_kinds(fresh) == ["genesis"]


@pytest.mark.slow
def test_a_checkpoint_beyond_the_plan_is_refused(tmp_path):
    from dpkit.jobs.checkpoint import Checkpoints

    folder, ledger = interrupted(tmp_path)
    saved = Checkpoints(folder.checkpoints)
    found = saved.latest(_like())
    assert found is not None
    state, facts = found
    saved.save(99, state, {**facts, "step": 99})
    saved.close()
    with pytest.raises(ValueError, match="step 99"):
        train(ledger, folder=folder)


def _like():
    from dpkit.training.step import TrainState

    optimizer = optax.sgd(0.1, momentum=0.9)
    return TrainState(START, START, optimizer.init(START), jnp.zeros((), jnp.int32))


def test_users_need_ids_and_each_at_most_one_row():
    ledger = new_ledger(unit="user")
    ids = np.arange(300)
    with pytest.raises(ValueError, match="unit_ids"):
        train(ledger)
    with pytest.raises(ValueError, match="repeats an id"):
        train(ledger, unit_ids=np.where(ids == 5, 6, ids))
    with pytest.raises(ValueError, match="one id for each row"):
        train(ledger, unit_ids=ids[:-1])
    assert entry_kinds(ledger) == ["genesis"]
    train(ledger, unit_ids=ids)


@pytest.mark.slow
@pytest.mark.guard
def test_the_rows_of_a_user_are_clipped_as_one(monkeypatch):
    seen = []
    take = trainer.UserRows.take
    monkeypatch.setattr(
        trainer.UserRows, "take", lambda *given: seen.append(take(*given)) or seen[-1]
    )
    ids = np.repeat(np.arange(60), 5)
    plan = DPSGDPlan.create(
        max_records=60,
        sampling="full_batch",
        steps=2,
        clip_norm=1.0,
        noise_multiplier=9.0,
    )
    ledger = new_ledger(unit="user")
    done = train(ledger, plan=plan, unit_ids=ids, rows_per_unit=3, **way(devices=1))
    want = plan.epsilon(1e-5, relation="add_remove").upper
    assert done.bound.upper == pytest.approx(want, rel=1e-9)
    rows, mask = seen[-1]
    assert rows.shape == (60, 3, 4)
    assert mask.all()
    owner = {tuple(row): i // 5 for i, row in enumerate(RECORDS)}
    owners = [[owner[tuple(row)] for row in own] for own in rows]
    assert sorted(owners) == [[user] * 3 for user in range(60)]


@pytest.mark.parametrize(("unit", "ids"), [("user", None), ("example", np.arange(300))])
def test_rows_of_nobody_cannot_be_grouped(unit, ids):
    with pytest.raises(ValueError, match="rows_per_unit=3 groups the rows"):
        train(new_ledger(unit=unit), unit_ids=ids, rows_per_unit=3)


def test_records_that_cannot_be_rows_are_refused():
    ledger = new_ledger()
    common: dict[str, Any] = {
        "plan": PLAN,
        "optimizer": optax.sgd(0.1),
        "ledger": ledger,
    }
    with pytest.raises(ValueError, match="different lengths"):
        fit(loss, START, (RECORDS, RECORDS[:-1]), **common)
    with pytest.raises(ValueError, match="max_records=300"):
        fit(loss, START, np.concatenate([RECORDS, RECORDS]), **common)
    assert entry_kinds(ledger) == ["genesis"]


@pytest.mark.slow
def test_records_on_a_device_train_as_those_on_the_host():
    where = [fit_on(RECORDS), fit_on(jnp.asarray(RECORDS))]
    assert where[0].params_sha256 == where[1].params_sha256


def fit_on(records):
    return fit(
        loss,
        START,
        records,
        plan=PLAN,
        optimizer=optax.sgd(0.1),
        ledger=new_ledger(),
        insecure_seed=1,
    )


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        (way(devices=99), ValueError),
        ({"execution": "vmap"}, TypeError),
        ({"folder": "runs/mine"}, TypeError),
        ({"optimizer": None}, TypeError),
        ({"optimizer": optax.MultiSteps(optax.sgd(0.1), 2)}, TypeError),
    ],
    ids=["devices", "execution", "folder", "no optimizer", "MultiSteps"],
)
def test_settings_that_would_fail_later_are_refused(setting, error):
    ledger = new_ledger()
    with pytest.raises(error, match=f"{next(iter(setting))}|devices=99"):
        train(ledger, **setting)
    assert entry_kinds(ledger) == ["genesis"]


def test_an_optimizer_that_has_a_transformation_is_told_so():
    steps = optax.MultiSteps(optax.sgd(0.1), 2)
    with pytest.raises(TypeError, match=r"MultiSteps: .*\.gradient_transformation\(\)"):
        train(new_ledger(), optimizer=steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "constant", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_the_trainer_asks_for_constant_time_unless_told_otherwise(
    monkeypatch, constant
):
    asked = []

    class Spy(trainer.Stepper):
        def __init__(self, *args, **kwargs):
            asked.append(args[-1].constant_time)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(trainer, "Stepper", Spy)
    train(new_ledger(), **({} if constant else way(constant_time=False)))
    assert set(asked) == {constant}


def test_a_nan_record_does_no_harm_and_nobody_is_told(recwarn):
    poisoned = RECORDS.copy()
    poisoned[5] = np.nan
    seen = []
    done = train(new_ledger(), records=poisoned, on_progress=seen.append)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(done.params))
    assert len(seen) == 12
    assert not recwarn.list


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.filterwarnings("ignore:loss_fn reduces over a leading axis")
@pytest.mark.parametrize(
    "mode", ["microbatch", pytest.param("auto", marks=pytest.mark.slow)]
)
def test_a_contrast_with_a_batch_of_one_is_pointed_out(mode):
    """Against nobody else every example is its own best match, wherever w goes."""

    def contrast(w, batch, key):
        rows = batch @ w
        likeness = jnp.tanh(rows @ rows.T)
        return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(likeness)))

    def of_one(w, x, key):
        return contrast(w, x[None], key)

    with pytest.warns(UserWarning, match="no gradient"):
        fit(
            of_one,
            jnp.eye(4),
            RECORDS,
            plan=dataclasses.replace(PLAN, steps=1),
            optimizer=optax.sgd(0.1),
            ledger=new_ledger(),
            execution=Execution(mode=mode, microbatch_size=8, devices=1),
        )


@pytest.mark.slow
def test_an_empty_data_set_trains_on_noise_alone():
    done = fit(
        loss,
        START,
        RECORDS[:0],
        plan=PLAN,
        optimizer=optax.sgd(0.1),
        ledger=new_ledger(),
        execution=Execution(microbatch_size=8),
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(done.params))
    assert float(np.abs(done.params["w"]).max()) > 0


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.5, 2.0])
def test_a_bad_average_decay_is_refused(bad):
    with pytest.raises(ValueError, match="average_decay"):
        train(new_ledger(), average_decay=bad)


@pytest.mark.parametrize("every", [0, -1, True])
def test_a_bad_evaluation_interval_is_refused(every):
    with pytest.raises(ValueError, match="every"):
        Evaluation(lambda p: 0.0, public=True, every=every)
    with pytest.raises(TypeError, match="public"):
        Evaluation(lambda p: 0.0, public="yes", every=1)  # pyrefly: ignore[bad-argument-type]
