"""The steps of one session of a run: taken, scored, told of and kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from dpkit.accountants.ledger import Grant
from dpkit.jobs.session import Session
from dpkit.training.plan import DPSGDPlan
from dpkit.training.spending import SpentSoFar
from dpkit.training.step import Stepper, TrainState

_CHECKPOINTS_A_RUN = 40


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands; nothing here is private, unless the run's time is.

    Args:
      step: steps done.
      steps: steps planned.
      epsilon: certified upper bound on what the steps so far cost, at the run's delta.
      scores: the last score on public rows, by its name; empty if there is none.
      examples_per_second: from the EXPECTED batch size, never the realised one.

    Example:
      >>> Progress(1, 10, 0.5, {"accuracy": 0.9}, 1000.0).test_accuracy
      0.9
    """

    step: int
    steps: int
    epsilon: float
    scores: Mapping[str, float]
    examples_per_second: float

    @property
    def test_accuracy(self) -> float | None:
        """The last accuracy on public rows, or None."""
        return self.scores.get("accuracy")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a run is scored while it trains.

    Args:
      score_fn: parameters -> a number, on held-out rows.
      public: whether those rows are public. Scores on private rows are no release: they
        are kept in the run's private folder and in `FitResult.private_scores`.
      every: steps between two scores; the last step is always scored.
      name: what the number is, "accuracy" or "rmse".

    Example:
      >>> Evaluation(lambda params: 0.5, public=True, every=10).every
      10
    """

    score_fn: Callable[[Any], float]
    public: bool
    every: int
    name: str = "accuracy"

    def __post_init__(self) -> None:
        """Refuses an interval of nothing."""
        if not isinstance(self.public, bool):
            raise TypeError(f"public={self.public!r}: say True or False")
        if isinstance(self.every, bool) or self.every < 1:
            raise ValueError(f"every={self.every!r}: give 1 or more steps")


@dataclasses.dataclass
class Loop:
    """The steps of one session, from where the last checkpoint left off."""

    session: Session
    plan: DPSGDPlan
    state: TrainState
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    private_scores: list[tuple[int, float]] = dataclasses.field(default_factory=list)

    @classmethod
    def resume(cls, session: Session, plan: DPSGDPlan, state: TrainState) -> Loop:
        """The loop at the newest checkpoint, or at the start."""
        loop = cls(session, plan, state)
        checkpoint = session.kept(state)
        if checkpoint is None:
            return loop
        step, kept, facts = checkpoint
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
        spent = SpentSoFar(self.plan, grant.bound)
        every = max(1, self.plan.steps // _CHECKPOINTS_A_RUN)
        before, start = self.seconds, time.perf_counter()
        first = self.step
        self.state = stepper.place(self.state)
        for step in range(first, self.plan.steps):
            key = self.session.secrets.sampling_key
            batch = self.plan.batch(key, step, num_records)
            self.state = stepper(self.state, records, batch)
            self.step = step + 1
            elapsed = time.perf_counter() - start
            self.seconds = before + elapsed
            epsilon = spent.upper(self.step)
            self._score(evaluation, epsilon)
            if on_progress is not None:
                rate = self.plan.expected_batch_size * (self.step - first) / elapsed
                steps, scores = self.plan.steps, self._shown(evaluation)
                on_progress(Progress(self.step, steps, epsilon, scores, rate))
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
        shown = score if evaluation.public and math.isfinite(score) else None
        row = {"step": self.step, "epsilon": epsilon, f"test_{evaluation.name}": shown}
        self.history.append(row)
        if evaluation.public:
            return
        self.private_scores.append((self.step, score))
        if self.session.folder is not None:
            line = {"step": self.step, "score": score}
            self.session.folder.add_private_line("scores.jsonl", line)

    def _shown(self, evaluation: Evaluation | None) -> dict[str, float]:
        """The last score, where it may be shown."""
        if evaluation is None or not self.history:
            return {}
        score = self.history[-1][f"test_{evaluation.name}"]
        return {} if score is None else {evaluation.name: score}

    def _checkpoint(self, grant: Grant) -> None:
        """Keeps the state, then notes in the ledger how far the run has come."""
        facts = {"seconds": self.seconds, "history": self.history}
        if not self.session.keep(self.step, self.state, facts):
            return
        # A run that died after its last step has nothing left to note, nor has one
        # whose steps were reserved as a whole.
        if not grant.committed and grant.count == self.plan.steps:
            grant.checkpoint(self.step)
