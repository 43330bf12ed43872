r"""Batches of one size, drawn without replacement, afresh for every step.

The number of records must be public, so this is for replace_one, where a batch of b
among N has any one record with probability b / N.

Source: Wang, Balle, Kasiviswanathan, "Subsampled Rényi Differential Privacy and
Analytical Moments Accountant", 2019, arXiv:1808.00087.
"""

import dataclasses
import functools

import jax
import numpy as np
from dp_accounting import (
    DpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    SampledWithoutReplacementDpEvent,
)

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms import _drawing
from dpkit.mechanisms.sampler import Batch, checked_step, refuse_relation, repeated

_ALLOWED = (Relation.REPLACE_ONE,)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(),
    meta_fields=("expected_batch_size", "max_records"),
)
@dataclasses.dataclass(frozen=True)
class FixedSizeSampler:
    r"""A uniformly random `expected_batch_size` of `max_records` records in every step.

    The batch is the b records with the smallest of N uniforms of 64 bits, fresh for
    every step.

    Privacy: under replace_one the data sets have the same, public number of records
    and differ in one of them, which a batch holds with probability b / N. The event
    has the noise over the contribution radius, as everywhere here; that replacing a
    record moves a sum by two radii is applied by the accountants. Nothing is proven
    under add_remove, where the number is private, or under zero_out.

    Args:
      expected_batch_size: b, from 1 to max_records; every batch has exactly that many.
      max_records: N >= 1, public: exactly how many records there are.

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean, a string, an array or a tracer.

    Example:
      >>> sampler = FixedSizeSampler(expected_batch_size=256, max_records=60_000)
      >>> sampler.amplify(GaussianDpEvent(2.0), "replace_one")
      SampledWithoutReplacementDpEvent(source_dataset_size=60000, sample_size=256,
                                       event=GaussianDpEvent(noise_multiplier=2.0))

    Reference: Wang, Balle, Kasiviswanathan, "Subsampled Rényi Differential Privacy and
    Analytical Moments Accountant", 2019, arXiv:1808.00087, Theorem 9.
    """

    expected_batch_size: int
    max_records: int

    def __post_init__(self) -> None:
        size = _numbers.integer_at_least(
            1, expected_batch_size=self.expected_batch_size
        )
        records = _numbers.integer_at_least(1, max_records=self.max_records)
        if size > records:
            raise ValueError(
                f"expected_batch_size={size}: needed at most max_records={records}; a "
                "record is in a batch at most once"
            )
        object.__setattr__(self, "expected_batch_size", size)
        object.__setattr__(self, "max_records", records)

    @property
    def max_batch_size(self) -> int:
        """b."""
        return self.expected_batch_size

    @property
    def steps_per_epoch(self) -> int:
        """1: every step is a draw of its own."""
        return 1

    def supports(self, relation: Relation | str) -> bool:
        """True under replace_one."""
        return as_relation(relation) in _ALLOWED

    def amplify(self, event: DpEvent, relation: Relation | str) -> DpEvent:
        """The event of one release made on one batch.

        Args:
          event: what the release costs on a batch that is not sampled; a Gaussian.
          relation: "replace_one".

        Returns:
          SampledWithoutReplacementDpEvent; the event itself where everyone is drawn,
          and NonPrivateDpEvent stays what it is.

        Raises:
          UnsupportedRelation: add_remove or zero_out.
          UnsupportedEvent: an event that is not a Gaussian.
        """
        refuse_relation(self, relation, event, _ALLOWED)
        if (
            isinstance(event, NonPrivateDpEvent)
            or self.expected_batch_size == self.max_records
        ):
            return event
        if not isinstance(event, GaussianDpEvent):
            raise UnsupportedEvent(
                "FixedSizeSampler", event, "batches of one size need a GaussianDpEvent"
            )
        return SampledWithoutReplacementDpEvent(
            self.max_records, self.expected_batch_size, event
        )

    def run_event(
        self, event: DpEvent, steps: int, relation: Relation | str
    ) -> DpEvent:
        """The event of `steps` releases, each on a batch of its own."""
        return repeated(self, event, steps, relation)

    def batch(self, key: jax.Array, step: int, num_records: int) -> Batch:
        """The batch of one step.

        Args:
          key: a typed key of JAX, secret; or an array of keys.
          step: its number, from 0.
          num_records: must be the sampler's own.

        Returns:
          Indices and mask, as of every sampler.

        Raises:
          TypeError: a legacy key, or a tracer.
          ValueError: another number of records.
        """
        _drawing.checked(key, num_records, self.max_records)
        if num_records != self.max_records:
            raise ValueError(
                f"num_records={num_records}: needed exactly {self.max_records}, the "
                "public number that the event was computed for"
            )
        key = _drawing.folded(key, checked_step(step))
        order = _drawing.uniforms(key, num_records)
        drawn = np.ones_like(order, bool)
        if self.expected_batch_size < num_records:
            for row, values in zip(drawn, order, strict=True):
                _drawing.keep_smallest(row, values, self.expected_batch_size)
        indices, mask = _drawing.padded(drawn, self.expected_batch_size)
        return Batch(indices.reshape(*key.shape, -1), mask.reshape(*key.shape, -1))
