"""One call that trains privately: sample, clip, noise, charge, evaluate, resume.

`fit` reserves the whole plan in the ledger before the first step and then takes
exactly the steps of the plan. With a folder it can be killed at any moment and started
again: the batches and the noise of a step are functions of the run's secret roots and
the step number, so a resumed run repeats the steps after its last checkpoint to the
last bit and ends where an uninterrupted one would have. A repeated step is the same
release and is not charged again.
"""

from __future__ import annotations

import bisect
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from dpkit.accountants import _check
from dpkit.accountants.accounting import epsilon as epsilon_of
from dpkit.accountants.accounting import epsilon_curve
from dpkit.accountants.bounds import PrivacyBound
from dpkit.accountants.ledger import Grant, Ledger
from dpkit.data.random_access import Rows, as_rows
from dpkit.data.units import UserRows
from dpkit.training.autotune import DEFAULT, choose_microbatch
from dpkit.training.checkpoint import Checkpoints
from dpkit.training.examples import per_user
from dpkit.training.folder import RunFolder
from dpkit.training.gradients import LossFn, check_mode
from dpkit.training.inspection import check_loss, check_params
from dpkit.training.optimizer import check_generator
from dpkit.training.plan import DPSGDPlan
from dpkit.training.session import Session, default_devices, environment
from dpkit.training.step import Stepper, TrainState, digest_of

_CURVE_POINTS = 20
_CHECKPOINTS_A_RUN = 40


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands; nothing here is private, unless the run's time is.

    Args:
      step: steps done.
      steps: steps planned.
      epsilon: certified upper bound on what the steps so far cost, at the run's delta.
      test_accuracy: the last score on public rows, or None.
      examples_per_second: from the EXPECTED batch size, never the realised one.

    Example:
      >>> Progress(1, 10, 0.5, None, 1000.0).epsilon
      0.5
    """

    step: int
    steps: int
    epsilon: float
    test_accuracy: float | None
    examples_per_second: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a run is scored while it trains.

    Args:
      score_fn: parameters -> a number, on held-out rows.
      public: whether those rows are public. Scores on private rows are no release: they
        are kept in the run's private folder and in `FitResult.private_scores`.
      every: steps between two scores; the last step is always scored.

    Example:
      >>> Evaluation(lambda params: 0.5, public=True, every=10).every
      10
    """

    score_fn: Callable[[Any], float]
    public: bool
    every: int

    def __post_init__(self) -> None:
        """Refuses an interval of nothing."""
        if not isinstance(self.public, bool):
            raise TypeError(f"public={self.public!r}: say True or False")
        if isinstance(self.every, bool) or self.every < 1:
            raise ValueError(f"every={self.every!r}: give 1 or more steps")


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

    Example: see `fit`.
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
    facts: Mapping[str, Any] | None = None,
    mode: str = "auto",
    generator: str = "threefry",
    microbatch_size: int | None = None,
    devices: int | None = None,
    constant_time: bool = True,
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
      delta: the share of the ledger's delta for this run; default: all that is left.
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
      facts: further JSON values that a resumed run must share with its beginning.
      mode: how gradients are clipped, see `clipped_grad`.
      generator: of the noise: "threefry" (a key of 64 bits) or "chacha20" (256 bits).
      microbatch_size: examples a chunk; default: measured on zeros before the run, or
        a constant with `insecure_seed`, so that such runs repeat to the bit.
      devices: how many share a batch; default: all, but at most two on a CPU.
      constant_time: work through padding as through records. Without it the time of a
        step, hence `FitResult.seconds` and `Progress.examples_per_second`, tells how
        many records were drawn: private, under "add_remove".
      insecure_seed: makes the roots known to everybody, for tests; marked in the
        ledger, and refused with a finite budget on disk unless
        `allow_insecure_ledger`.
      allow_insecure_ledger: accepts that.
      on_progress: called after each step.

    Before a new run, norms are compared with those of per-example gradients on two
    made-up rows (training.gradients.check_mode).

    Raises:
      BudgetExceeded: before anything runs; nothing is written.
      ValueError, TypeError: records, ids, loss or parameters that can't be trained on
        with this guarantee; a folder whose unfinished run was another one.
      LedgerCorrupt: the folder's checkpoint is unknown to the ledger.

    Example:
      >>> import jax.numpy as jnp, numpy as np, optax
      >>> from dpkit import Budget, DPSGDPlan, Ledger, fit
      >>> x = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
      >>> def loss(w, row, key):
      ...     return (jnp.vdot(w, row) - row[0]) ** 2
      >>> plan = DPSGDPlan.for_budget(
      ...     epsilon=2.0, delta=1e-5, relation="add_remove", max_records=500,
      ...     expected_batch_size=100, steps=20, clip_norm=1.0)
      >>> ledger = Ledger.open(None, budget=Budget(2.0, 1e-5), relation="add_remove",
      ...                      unit="example", dataset="toy 1")
      >>> done = fit(loss, jnp.zeros(2), x, plan=plan, optimizer=optax.sgd(0.3),
      ...            ledger=ledger, microbatch_size=50)
      >>> done.bound.upper <= 2.0
      True
    """
    _check_settings(average_decay, insecure_seed, ledger, allow_insecure_ledger)
    _check_objects(optimizer, folder, devices)
    check_generator(plan, generator)
    check_params(params)
    records = as_rows(records)  # on the host: rows are picked there
    session = Session.begin(folder, insecure_seed)
    if rows_per_unit is not None:
        records = _by_unit(records, unit_ids, rows_per_unit, ledger.unit, session)
        loss_fn = per_user(loss_fn, rows_per_unit)
        unit_ids = np.arange(len(records))
    num_records = _check_records(records, plan, ledger.unit, unit_ids)
    _check_loss_on_records(loss_fn, params, records.example)
    if devices is None:
        devices = session.facts.get("devices") or default_devices()
    if microbatch_size is None:
        microbatch_size = session.facts.get("microbatch_size")
    if microbatch_size is None and insecure_seed is not None:
        microbatch_size = DEFAULT  # a seed asks for the same bits again

    def make(size: int | None) -> Stepper:
        return Stepper(
            loss_fn,
            plan,
            optimizer,
            session.roots,
            average_decay=average_decay,
            mode=mode,
            generator=generator,
            microbatch_size=size,
            devices=devices,
            constant_time=constant_time,
        )

    if microbatch_size is None:
        slots = plan.sampler.max_batch_size
        microbatch_size = choose_microbatch(make, params, records.example, slots)
    stepper = make(microbatch_size)
    if not session.resumed:
        check_mode(loss_fn, params, records.example, mode)
    state = stepper.start(params)
    session.agree(
        **environment(),
        devices=devices,
        microbatch_size=microbatch_size,
        ledger=ledger.id,
        program=stepper.digest(state, records.example),
        data=session.roots.fingerprint(records),
        insecure_seed=insecure_seed,
        **(facts or {}),
    )
    session.save()
    saved = session.checkpoints()
    try:
        loop = _Loop.resume(session, ledger, plan, saved, state)
        event, count = plan.charge(ledger.relation)
        grant = ledger.reserve(
            event,
            count=count,
            delta=delta,
            label=label,
            key=session.run_id,
            provenance=_provenance(session, insecure_seed),
        )
        loop.run(stepper, records, num_records, grant, evaluation, on_progress)
        grant.commit(count)
    finally:
        if saved is not None:
            saved.close()
    final = loop.state.params if average_decay is None else loop.state.average
    return FitResult(
        params=jax.tree.map(np.asarray, final),
        bound=grant.bound,
        history=tuple(loop.history),
        plan=plan,
        run_id=session.run_id,
        microbatch_size=microbatch_size,
        devices=devices,
        seconds=loop.seconds,
        private_scores=tuple(loop.private_scores),
    )


@dataclasses.dataclass
class _Loop:
    """The steps of one session, from where the last checkpoint left off."""

    session: Session
    plan: DPSGDPlan
    saved: Checkpoints | None
    state: TrainState
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    private_scores: list[tuple[int, float]] = dataclasses.field(default_factory=list)

    @classmethod
    def resume(
        cls,
        session: Session,
        ledger: Ledger,
        plan: DPSGDPlan,
        saved: Checkpoints | None,
        state: TrainState,
    ) -> _Loop:
        """The loop at the newest checkpoint, or at the start."""
        loop = cls(session, plan, saved, state)
        found = None if saved is None else saved.latest(state)
        if found is None:
            return loop
        kept, facts = found
        step = int(facts["step"])
        session.check_checkpoint(ledger, step, facts["run_id"])
        if step > plan.steps:
            raise ValueError(
                f"the checkpoint is at step {step}, beyond the {plan.steps} that were "
                "reserved: it belongs to another run"
            )
        loop.state = jax.tree.map(jax.numpy.asarray, kept)
        loop.step = step
        loop.seconds = float(facts["seconds"])
        loop.history = list(facts["history"])
        return loop

    def run(
        self,
        stepper: Stepper,
        records: Any,
        num_records: int,
        grant: Grant,
        evaluation: Evaluation | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """Takes the steps that are left."""
        spent = _SpentSoFar(self.plan, grant.bound)
        every = max(1, self.plan.steps // _CHECKPOINTS_A_RUN)
        before, start = self.seconds, time.perf_counter()
        first = self.step
        self.state = stepper.place(self.state)
        for step in range(first, self.plan.steps):
            key = self.session.roots.sampling_key
            batch = self.plan.batch(key, step, num_records)
            self.state = stepper(self.state, records, batch)
            self.step = step + 1
            elapsed = time.perf_counter() - start
            self.seconds = before + elapsed
            epsilon = spent.upper(self.step)
            self._score(evaluation, epsilon)
            if on_progress is not None:
                rate = self.plan.expected_batch_size * (self.step - first) / elapsed
                on_progress(self._progress(epsilon, rate))
            if self.step % every == 0 and self.step < self.plan.steps:
                self._checkpoint(grant)

    def _score(self, evaluation: Evaluation | None, epsilon: float) -> None:
        """Scores the parameters if it is time to."""
        if evaluation is None:
            return
        if self.step % evaluation.every and self.step < self.plan.steps:
            return
        average = self.state.average
        score = float(
            evaluation.score_fn(self.state.params if average is None else average)
        )
        shown = score if evaluation.public else None
        self.history.append(
            {"step": self.step, "epsilon": epsilon, "test_accuracy": shown}
        )
        if evaluation.public:
            return
        self.private_scores.append((self.step, score))
        if self.session.folder is not None:
            line = {"step": self.step, "score": score}
            self.session.folder.add_private_line("scores.jsonl", line)

    def _progress(self, epsilon: float, rate: float) -> Progress:
        """What may be told after a step."""
        score = self.history[-1]["test_accuracy"] if self.history else None
        return Progress(self.step, self.plan.steps, epsilon, score, rate)

    def _checkpoint(self, grant: Grant) -> None:
        """Keeps the state, then notes in the ledger how far the run has come."""
        if self.saved is None:
            return
        facts = {
            "run_id": self.session.run_id,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        self.saved.save(self.step, self.state, facts)
        # A run that died after its last step has nothing left to note, nor has one
        # whose steps were reserved as a whole.
        if not grant.committed and grant.count == self.plan.steps:
            grant.checkpoint(self.step)


class _SpentSoFar:
    """Certified upper bounds on the cost of the first t steps, for display.

    A plan that is fixed beforehand is a fixed plan at every prefix. Between the points
    of a coarse grid the next higher one is shown, so the figure is never too low.
    """

    def __init__(self, plan: DPSGDPlan, bound: PrivacyBound) -> None:
        grid = np.linspace(0, plan.steps, _CURVE_POINTS + 1)[1:]
        self._counts = sorted({int(np.ceil(point)) for point in grid})
        self._total = float("inf") if bound.upper is None else bound.upper
        if not np.isfinite(self._total):
            self._uppers = [float("inf")] * len(self._counts)
            return
        curve = _curve(plan, self._counts, bound)
        self._uppers = [
            self._total if upper is None else min(upper, self._total) for upper in curve
        ]

    def upper(self, step: int) -> float:
        """What `step` steps cost, at most."""
        return self._uppers[bisect.bisect_left(self._counts, step)]


def _curve(
    plan: DPSGDPlan, counts: list[int], bound: PrivacyBound
) -> list[float | None]:
    """The certified cost of the first steps of a plan, for each number of steps."""
    relation, delta = bound.relation, bound.delta
    event, count = plan.charge(relation)
    if count == plan.steps:
        curve = epsilon_curve(event, counts, delta, relation=relation)
        return [point.upper for point in curve]
    prefixes = {n: plan.event_until(n, relation) for n in counts}
    if all(prefix == event for prefix in prefixes.values()):
        return [bound.upper] * len(counts)
    return [epsilon_of(prefixes[n], delta, relation=relation).upper for n in counts]


def _provenance(session: Session, insecure_seed: int | None) -> dict[str, Any]:
    """Public facts for the ledger's entry."""
    facts = {
        "run_id": session.run_id,
        "dpkit": session.facts["versions"]["dpkit-jax"],
        "program": session.facts["program"],
    }
    if insecure_seed is not None:
        facts["insecure_seed"] = True
    return facts


def _by_unit(
    records: Rows, unit_ids: Any, most: int, unit: str, session: Session
) -> UserRows:
    """The rows of each unit as one record."""
    if unit_ids is None or unit == "example":
        raise ValueError(
            f"rows_per_unit={most} groups the rows of a unit: it needs unit_ids, and a "
            f"ledger whose unit is who they name, not {unit!r}"
        )
    return UserRows(records, unit_ids, most, key=session.roots.grouping_key)


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


def _check_objects(optimizer: Any, folder: Any, devices: int | None) -> None:
    """Refuses what would only fail after the charge."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer={type(optimizer).__name__}: give an optax transformation, such "
            "as optax.sgd(0.1)"
        )
    if folder is not None and not isinstance(folder, RunFolder):
        raise TypeError(
            f"folder={type(folder).__name__}: give a RunFolder, RunFolder('runs/mine')"
        )
    if devices is None:
        return
    _check.integer_at_least(1, devices=devices)
    if devices > len(jax.devices()):
        raise ValueError(
            f"devices={devices}: needed 1 to {len(jax.devices())}, which JAX sees here"
        )


def _check_loss_on_records(loss_fn: LossFn, params: Any, example: Any) -> None:
    """Traces the loss on the shape of one record, before anything is charged."""
    example = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)
        ),
        example,
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    check_loss(loss_fn, params, example, key)
