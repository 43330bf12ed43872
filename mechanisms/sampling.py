r"""Draw batches, and say how much the drawing amplifies privacy.

A sampler draws the batch *and* wraps the event of what is done with it, from the same
fields, so that the two can't disagree. Batches have a static size: index arrays padded
to `max_batch_size`, with a mask. How many records were really drawn is private and
never leaves the batch.

Poisson sampling takes each record independently with probability q, afresh for every
draw. Empty batches are real: release and charge them like any other.

Sources: Abadi et al., "Deep Learning with Differential Privacy", 2016; Ganesh et al.,
"Tighter Privacy Analysis for Truncated Poisson Sampling", 2025, arXiv:2508.15089.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
from dp_accounting import (
    DpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    PoissonSampledDpEvent,
    TruncatedSubsampledGaussianDpEvent,
)

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms import _drawing
from dpkit.mechanisms.sampler import Batch, checked_step, refuse_relation, repeated

__all__ = ["Batch", "PoissonSampler", "choose_max_batch_size"]

_DIRECTED = (Relation.ADD_REMOVE, Relation.ZERO_OUT)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(),
    meta_fields=("sampling_rate", "max_batch_size", "max_records"),
)
@dataclasses.dataclass(frozen=True)
class PoissonSampler:
    r"""Each record with probability q, at most `max_batch_size` of them.

    Record i is drawn iff u_i < floor(q 2^64), u_i uniform on 64 bits and fresh for
    every draw. If more than `max_batch_size` are drawn, those with the smallest u stay:
    a uniformly random subset, whatever the order of the records.

    Privacy: the true rate floor(q 2^64) / 2^64 is at most q, so the event's q is an
    upper bound. Batches that are never truncated (`max_batch_size >= max_records`)
    amplify as plain Poisson sampling. Otherwise the event says that truncation happens:
    records compete for slots, so that adding one may push another out. `max_records`
    bounds the number of records; under add_remove the number itself is private, which
    is why it is an argument of `draw` and not a field, and an accountant must cover
    every number up to `max_records` (fewer records can leak more than the most); under
    zero_out let `max_records` be the number itself. There is no proof here for
    replace_one.

    Args:
      sampling_rate: q in (0, 1].
      max_batch_size: slots of a batch, >= 1 and at least q max_records, the batch
        expected at most. `choose_max_batch_size` finds one that is rarely passed.
      max_records: a public upper bound on the number of records, >= 1.

    Raises:
      ValueError: a number out of range, or a batch too small for what is expected.
      TypeError: a boolean, a string, an array or a tracer.

    Example:
      >>> sampler = PoissonSampler(0.5, max_batch_size=8, max_records=8)
      >>> sampler.amplify(GaussianDpEvent(1.0), "add_remove")
      PoissonSampledDpEvent(sampling_probability=0.5,
                            event=GaussianDpEvent(noise_multiplier=1.0))
      >>> batch = sampler.draw(jax.random.key(0), num_records=6)
      >>> batch.indices.shape, batch.mask.shape
      ((8,), (8,))

    Reference: Ganesh et al., "Tighter Privacy Analysis for Truncated Poisson Sampling",
    2025, arXiv:2508.15089.
    """

    sampling_rate: float
    max_batch_size: int
    max_records: int

    def __post_init__(self) -> None:
        rate = _numbers.rate(sampling_rate=self.sampling_rate)
        size = _numbers.integer_at_least(1, max_batch_size=self.max_batch_size)
        records = _numbers.integer_at_least(1, max_records=self.max_records)
        object.__setattr__(self, "sampling_rate", rate)
        object.__setattr__(self, "max_batch_size", size)
        object.__setattr__(self, "max_records", records)
        # A hair of slack, so that q = b / N admits b slots whatever q N rounds to.
        if size < rate * records * (1 - 1e-9):
            raise ValueError(
                f"max_batch_size={size}: needed at least sampling_rate * max_records = "
                f"{rate * records:g}; use choose_max_batch_size"
            )

    @property
    def truncates(self) -> bool:
        """Whether a batch can ever be too large for its slots."""
        return self.max_batch_size < self.max_records

    @property
    def threshold(self) -> int:
        """floor(q 2^64): a record is drawn iff its 64-bit uniform is below."""
        return math.floor(self.sampling_rate * 2.0**64)

    @property
    def expected_batch_size(self) -> float:
        """q N: records in a batch on average, if there are `max_records`."""
        return self.sampling_rate * self.max_records

    @property
    def steps_per_epoch(self) -> int:
        """1: every step is a draw of its own."""
        return 1

    def supports(self, relation: Relation | str) -> bool:
        """True under add_remove and zero_out."""
        return as_relation(relation) in _DIRECTED

    def run_event(
        self, event: DpEvent, steps: int, relation: Relation | str
    ) -> DpEvent:
        """The event of `steps` releases, each on a batch of its own."""
        return repeated(self, event, steps, relation)

    def amplify(self, event: DpEvent, relation: Relation | str) -> DpEvent:
        """The event of one release made on one drawn batch.

        Args:
          event: what the release costs on a batch that is not sampled.
          relation: "add_remove" or "zero_out".

        Returns:
          PoissonSampledDpEvent, or TruncatedSubsampledGaussianDpEvent of `max_records`
          where batches can be truncated; NonPrivateDpEvent stays what it is.

        Raises:
          UnsupportedRelation: replace_one.
          UnsupportedEvent: batches can be truncated and the event is not a Gaussian.
        """
        refuse_relation(self, relation, event, _DIRECTED)
        if isinstance(event, NonPrivateDpEvent):
            return event
        if not self.truncates:
            return PoissonSampledDpEvent(self.sampling_rate, event)
        if not isinstance(event, GaussianDpEvent):
            raise UnsupportedEvent(
                "PoissonSampler",
                event,
                "truncated batches are proved for GaussianDpEvent alone; "
                "let max_batch_size be max_records",
            )
        return TruncatedSubsampledGaussianDpEvent(
            dataset_size=self.max_records,
            sampling_probability=self.sampling_rate,
            truncated_batch_size=self.max_batch_size,
            noise_multiplier=event.noise_multiplier,
        )

    def draw(self, key: jax.Array, num_records: int) -> Batch:
        """Draw a batch, on the host.

        Privacy: a draw covers one release; take a fresh key for every step, and keep
        the key, the indices and the mask secret.

        Args:
          key: a typed key of JAX; or an array of n keys, for n independent draws.
          num_records: how many records there are, from 0 to `max_records`; private
            under add_remove.

        Returns:
          Indices and mask, with an axis of length n in front where `key` has one. The
          same on every machine for the same key. Padding points at record 0.

        Raises:
          TypeError: a legacy key, or a tracer.
          ValueError: more records than `max_records`.
        """
        num_records = _drawing.checked(key, num_records, self.max_records)
        batch = self._select(_drawing.uniforms(key, num_records))
        return Batch(*(leaf.reshape(*key.shape, -1) for leaf in batch))

    def batch(self, key: jax.Array, step: int, num_records: int) -> Batch:
        """The batch of one step: `draw` with the key folded with the step."""
        return self.draw(_drawing.folded(key, checked_step(step)), num_records)

    def _select(self, uniforms: np.ndarray) -> Batch:
        """The batch of every row of uint64 uniforms (num_draws, num_records)."""
        drawn = np.ones_like(uniforms, bool)
        if self.sampling_rate < 1:
            drawn = uniforms < np.uint64(self.threshold)
        for row in np.flatnonzero(drawn.sum(axis=1) > self.max_batch_size):
            _drawing.keep_smallest(drawn[row], uniforms[row], self.max_batch_size)
        return Batch(*_drawing.padded(drawn, self.max_batch_size))


def choose_max_batch_size(
    sampling_rate: float,
    max_records: int,
    *,
    steps: int,
    epsilon: float,
    delta: float,
) -> int:
    r"""The smallest batch whose truncation costs at most delta / 1000.

    The least B >= q N with T (1 + e^epsilon) Psi(B) <= delta / 1000, where
    Psi(B) = P[Binomial(N, q) > B].

    Privacy: T steps with and without truncation differ with probability at most T Psi
    on either neighbour, so (epsilon, delta) for Poisson sampling implies
    (epsilon, delta + T (1 + e^epsilon) Psi) for the truncated one, for any mechanism,
    under add_remove and zero_out, and for any number of records up to N. This function
    only chooses; the event that `PoissonSampler.amplify` gives is what is charged.

    Args:
      sampling_rate: q in (0, 1].
      max_records: N >= 1, the public upper bound on the number of records.
      steps: T >= 1.
      epsilon: the budget, > 0.
      delta: the budget's delta, in (0, 1).

    Returns:
      B, from 1 to N (at N nothing is ever truncated).

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean, a string, an array or a tracer.

    Example:
      >>> choose_max_batch_size(
      ...     256 / 60_000, 60_000, steps=14_062, epsilon=3.0, delta=1e-5
      ... )
      384

    Reference: Ganesh et al., "Tighter Privacy Analysis for Truncated Poisson Sampling",
    2025, arXiv:2508.15089; the coupling is folklore.
    """
    rate = _numbers.rate(sampling_rate=sampling_rate)
    records = _numbers.integer_at_least(1, max_records=max_records)
    steps = _numbers.integer_at_least(1, steps=steps)
    epsilon = _numbers.positive(epsilon=epsilon)
    allowed = math.log(_numbers.open_probability(delta=delta) / 1000)
    allowed -= math.log(steps) + math.log1p(math.exp(-epsilon)) + epsilon
    low, high = max(1, math.ceil(rate * records * (1 - 1e-9))), records
    while low < high:
        middle = (low + high) // 2
        if _log_binomial_tail(middle, records, rate) <= allowed:
            high = middle
        else:
            low = middle + 1
    return high


def _log_binomial_tail(size: int, records: int, rate: float) -> float:
    """log P[Binomial(records, rate) > size], for size < records."""
    from scipy.special import betainc

    tail = float(betainc(size + 1, records - size, rate))
    return math.log(tail) if tail > 0 else -math.inf
