"""One call that trains privately: sample, clip, noise, charge, evaluate, resume.

`fit` reserves the whole plan in the ledger before the first step and then takes
exactly the steps of the plan. With a folder it can be killed at any moment and started
again: the batches and the noise of a step are functions of the run's secret roots and
the step number, so a resumed run repeats the steps after its last checkpoint to the
last bit and ends where an uninterrupted one would have. A repeated step is the same
release and is not charged again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
import optax

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.ledger import Ledger
from dpkit.data.random_access import Rows, as_rows
from dpkit.data.units import UserRows
from dpkit.jobs.folder import RunFolder
from dpkit.jobs.session import Session, default_devices, environment
from dpkit.training.autotune import DEFAULT, choose_microbatch
from dpkit.training.comparison import made_up
from dpkit.training.examples import per_user
from dpkit.training.execution import Execution
from dpkit.training.gradients import LossFn, clipped_grad
from dpkit.training.inspection import check_loss, check_params
from dpkit.training.loop import Evaluation, Loop, Progress
from dpkit.training.optimizer import check_generator
from dpkit.training.plan import DPSGDPlan
from dpkit.training.step import Stepper, digest_of

DEFAULT_EXECUTION = Execution()


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a finished run released, and its cost.

    Args:
      params: the final parameters, averaged if an average was asked for.
      bound: what the ledger counts for this run.
      history: a row for each score: step, epsilon, test_accuracy (None if private).
      plan: what ran.
      run_id: the ledger's name for it.
      microbatch_size: examples a chunk on each device.
      devices: how many shared a batch.
      seconds: wall time of all sessions of the run.
      private_scores: (step, score) on PRIVATE rows: not a release, not to be shown.

    Example:
      >>> done = FitResult(params={}, bound=None, history=[], plan=None, run_id="a",
      ...                  microbatch_size=8, devices=1, seconds=0.5,
      ...                  private_scores=[(1, 0.9)])
      >>> "private_scores" in repr(done)
      False
    """

    params: Any
    bound: PrivacyBound
    history: Sequence[dict[str, Any]]
    plan: DPSGDPlan
    run_id: str
    microbatch_size: int
    devices: int
    seconds: float
    private_scores: Sequence[tuple[int, float]] = dataclasses.field(
        default=(), repr=False
    )

    @property
    def params_sha256(self) -> str:
        """A digest of the final parameters."""
        return digest_of(self.params)


def fit(
    loss_fn: LossFn,
    params: Any,
    records: Any,
    *,
    plan: DPSGDPlan,
    optimizer: optax.GradientTransformation,
    ledger: Ledger,
    delta: float | None = None,
    label: str = "train",
    evaluation: Evaluation | None = None,
    average_decay: float | None = None,
    unit_ids: np.ndarray | None = None,
    rows_per_unit: int | None = None,
    folder: RunFolder | None = None,
    session: Session | None = None,
    facts: Mapping[str, Any] | None = None,
    execution: Execution = DEFAULT_EXECUTION,
    insecure_seed: int | None = None,
    allow_insecure_ledger: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Trains with DP-SGD, exactly as planned, charged before the first step.

    Privacy: all parameters that the run passes through, and any public history, cost
    `plan.event(ledger.relation)` together, which the ledger counts as `result.bound`;
    refused with nothing spent when it doesn't fit. Noise and batches come from the
    operating system. An interrupted run stays spent in full.

    Args:
      loss_fn: (params, example, key) -> the loss of ONE example, without a batch axis.
      params: a tree of real floating arrays to start from; must not depend on private
        rows.
      records: a tree of arrays (num_records, ...), one row a privacy unit; or rows by
        number from any source that is too large for memory, see
        `dpkit.data.random_access`; private.
      plan: what is sampled, clipped, noised; num_records <= plan.sampler.max_records.
      optimizer: any optax transformation; its schedules may read the step only.
      ledger: has the budget, the relation and the unit; decides.
      delta: at which the run's own epsilon is stated, and its share of delta where the
        ledger counts it as a plan; default: the ledger's, and all that is left.
      label: the entry's name in the ledger.
      evaluation: how to score while training.
      average_decay: in (0, 1): publish an exponential average of the parameters too,
        which is post-processing.
      unit_ids: (num_records,) who each row belongs to; required when the ledger's unit
        is not "example", and then without repetition, or with:
      rows_per_unit: k: all rows of a unit make one record, at most k of them, chosen
        for each unit alone by a secret of the run; `loss_fn` is the loss of one row
        still, and averaged over them (`per_user`). The plan's records are the units.
      folder: makes the run resumable; the caller deletes its private part at the end.
      session: of a job that trains among other things; instead of a folder.
      facts: further JSON values that a resumed run must share with its beginning.
      execution: how steps are computed and noise is drawn. A microbatch size that it
        leaves open is measured on zeros before the run, or a constant with
        `insecure_seed`, so that such runs repeat to the bit.
      insecure_seed: makes the roots known to everybody, for tests; marked in the
        ledger, and refused with a finite budget on disk unless
        `allow_insecure_ledger`.
      allow_insecure_ledger: accepts that.
      on_progress: called after each step.

    Before a new run, norms are compared with those of per-example gradients on two
    made-up rows; a loss whose gradient is zero for both is warned of.

    Raises:
      BudgetExceeded: before anything runs; nothing is written.
      ValueError, TypeError: records, ids, loss or parameters that can't be trained on
        with this guarantee; a folder whose unfinished run was another one.
      LedgerCorrupt: the folder's checkpoint is unknown to the ledger.

    Example:
      >>> import jax.numpy as jnp, numpy as np, optax
      >>> from dpkit import Budget, DPSGDPlan, Ledger, fit
      >>> from dpkit.training import Execution
      >>> x = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
      >>> def loss(w, row, key):
      ...     return (jnp.vdot(w, row) - row[0]) ** 2
      >>> plan = DPSGDPlan.for_budget(
      ...     epsilon=2.0, delta=1e-5, relation="add_remove", max_records=500,
      ...     expected_batch_size=100, steps=20, clip_norm=1.0)
      >>> ledger = Ledger.open(None, budget=Budget(2.0, 1e-5), relation="add_remove",
      ...                      unit="example", dataset="toy 1")
      >>> done = fit(loss, jnp.zeros(2), x, plan=plan, optimizer=optax.sgd(0.3),
      ...            ledger=ledger, execution=Execution(microbatch_size=50))
      >>> done.bound.upper <= 2.0
      True
    """
    _check_settings(average_decay, insecure_seed, ledger, allow_insecure_ledger)
    _check_objects(optimizer, folder, execution)
    check_generator(plan, execution.generator)
    check_params(params)
    records = as_rows(records)  # on the host: rows are picked there
    if session is None:
        session = Session.begin(folder, insecure_seed)
    if rows_per_unit is not None:
        records = _by_unit(records, unit_ids, rows_per_unit, ledger.unit, session)
        loss_fn = per_user(loss_fn, rows_per_unit)
        unit_ids = np.arange(len(records))
    num_records = _check_records(records, plan, ledger.unit, unit_ids)
    loss_fn = _checked_loss(loss_fn, params, records.example)
    execution = execution.chosen(session.facts)
    if execution.devices is None:
        execution = dataclasses.replace(execution, devices=default_devices())
    if execution.microbatch_size is None and insecure_seed is not None:
        # A seed asks for the same bits again.
        execution = dataclasses.replace(execution, microbatch_size=DEFAULT)

    def make(execution: Execution) -> Stepper:
        return Stepper(
            loss_fn,
            plan,
            optimizer,
            session.secrets,
            execution,
            average_decay=average_decay,
        )

    if execution.microbatch_size is None:
        execution = choose_microbatch(
            make, execution, params, records.example, plan.sampler.max_batch_size
        )
    stepper = make(execution)
    if not session.resumed:
        _check_mode(loss_fn, params, records.example, execution.mode)
    state = stepper.start(params)
    session.agree(
        **environment(),
        devices=execution.devices,
        microbatch_size=execution.microbatch_size,
        ledger=ledger.id,
        sampler=repr(plan.sampler),
        program=stepper.digest(state, records.example),
        data=session.secrets.fingerprint(records),
        insecure_seed=insecure_seed,
        **(facts or {}),
    )
    with contextlib.closing(session):
        loop = Loop.resume(session, plan, state)
        event, count = plan.charge(ledger.relation)
        grant = session.reserve(ledger, event, count, label=label, delta=delta)
        loop.run(stepper, records, num_records, grant, evaluation, on_progress)
        grant.commit(count)
    final = loop.state.params if average_decay is None else loop.state.average
    return FitResult(
        params=jax.tree.map(np.asarray, final),
        bound=grant.bound,
        history=tuple(loop.history),
        plan=plan,
        run_id=session.run_id,
        microbatch_size=cast(int, execution.microbatch_size),
        devices=cast(int, execution.devices),
        seconds=loop.seconds,
        private_scores=tuple(loop.private_scores),
    )


def _by_unit(
    records: Rows, unit_ids: Any, most: int, unit: str, session: Session
) -> UserRows:
    """The rows of each unit as one record."""
    if unit_ids is None or unit == "example":
        raise ValueError(
            f"rows_per_unit={most} groups the rows of a unit: it needs unit_ids, and a "
            f"ledger whose unit is who they name, not {unit!r}"
        )
    return UserRows(records, unit_ids, most, key=session.secrets.grouping_key)


def _check_records(
    records: Rows, plan: DPSGDPlan, unit: str, unit_ids: np.ndarray | None
) -> int:
    """The number of rows, after refusing what would break the unit of privacy."""
    num_records = len(records)
    if num_records > plan.sampler.max_records:
        raise ValueError(
            f"records has more rows than max_records={plan.sampler.max_records}, the "
            "plan's public bound: plan with a larger one"
        )
    if unit_ids is None:
        if unit != "example":
            raise ValueError(
                f"unit={unit!r} needs unit_ids, to check that each one has one row"
            )
        return num_records
    ids = np.asarray(unit_ids)
    if ids.shape != (num_records,):
        raise ValueError(
            f"unit_ids has shape {ids.shape}: it must have one id for each row"
        )
    if len(np.unique(ids)) != num_records:
        raise ValueError(
            f"unit_ids repeats an id: a {unit} in two rows can be in a batch twice and "
            "has no guarantee; put all of one unit's data into one row"
        )
    return num_records


def _check_settings(
    average_decay: float | None,
    insecure_seed: int | None,
    ledger: Ledger,
    allow_insecure_ledger: bool,
) -> None:
    """Refuses settings that make no sense, or no privacy."""
    if average_decay is not None and not 0 < average_decay < 1:
        raise ValueError(f"average_decay={average_decay!r} must be in (0, 1)")
    if insecure_seed is None or allow_insecure_ledger:
        return
    if ledger.path is not None and np.isfinite(ledger.budget.epsilon):
        raise ValueError(
            f"insecure_seed={insecure_seed} with a ledger that has a real budget: "
            "anybody could subtract the noise; leave the seed out, or pass "
            "allow_insecure_ledger=True in a test"
        )


def _check_objects(optimizer: Any, folder: Any, execution: Any) -> None:
    """Refuses what would only fail after the charge."""
    if not isinstance(optimizer, optax.GradientTransformation):
        wrapped = hasattr(optimizer, "gradient_transformation")
        needed = "what its .gradient_transformation() returns"
        raise TypeError(
            f"optimizer={type(optimizer).__name__}: give an optax transformation, "
            + (needed if wrapped else "such as optax.sgd(0.1)")
        )
    if folder is not None and not isinstance(folder, RunFolder):
        raise TypeError(
            f"folder={type(folder).__name__}: give a RunFolder, RunFolder('runs/mine')"
        )
    if not isinstance(execution, Execution):
        raise TypeError(
            f"execution={type(execution).__name__}: give an Execution, such as "
            "Execution(microbatch_size=64)"
        )
    devices = execution.devices
    if devices is not None and devices > len(jax.devices()):
        raise ValueError(
            f"devices={devices}: needed 1 to {len(jax.devices())}, which JAX sees here"
        )


def _checked_loss(loss_fn: LossFn, params: Any, example: Any) -> LossFn:
    """The loss, traced on the shape of one record before anything is charged.

    A program that was traced under a mesh holds on to it: then the function stays.
    """
    example = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)
        ),
        example,
    )
    params, key = jax.eval_shape(lambda params: (params, jax.random.key(0)), params)
    checked = check_loss(loss_fn, params, example, key)
    return checked if jax.sharding.get_abstract_mesh().empty else loss_fn


def _check_mode(loss_fn: LossFn, params: Any, example: Any, mode: str) -> None:
    """Compares a mode with per-example gradients on rows that are made up."""
    rows, keys = made_up(example)
    if mode in ("vmap", "microbatch"):
        grad = clipped_grad(loss_fn, clip_norm=1.0, mode="vmap")
        norms = jax.jit(grad)(params, rows, None, keys)[1].norms
    else:
        grad = clipped_grad(loss_fn, clip_norm=1.0, mode=mode)
        norms = grad.check(params, rows, keys).norms
    if not norms.any():
        warnings.warn(
            "loss_fn has no gradient, or none that is finite, on two made-up examples: "
            "it may compare an example with others of a batch, which it never sees",
            stacklevel=3,
        )
