"""Batches of everyone: nothing is sampled and nothing amplified."""

import dataclasses
import functools

import jax
import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms import _drawing
from dpkit.mechanisms.sampler import Batch, checked_step, repeated


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=(), meta_fields=("max_records",)
)
@dataclasses.dataclass(frozen=True)
class FullBatchSampler:
    """All records in every step.

    Privacy: a step costs what the release on all records costs, under every relation.
    The batch has `max_records` slots, whatever the number of records, which is private
    under add_remove.

    Args:
      max_records: a public upper bound on the number of records, >= 1.

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean, a string, an array or a tracer.

    Example:
      >>> FullBatchSampler(4).batch(jax.random.key(0), 0, num_records=3).mask
      array([ True,  True,  True, False])
    """

    max_records: int

    def __post_init__(self) -> None:
        records = _numbers.integer_at_least(1, max_records=self.max_records)
        object.__setattr__(self, "max_records", records)

    @property
    def max_batch_size(self) -> int:
        """One slot for each record that there may be."""
        return self.max_records

    @property
    def expected_batch_size(self) -> float:
        """All records, if there are `max_records`."""
        return float(self.max_records)

    @property
    def steps_per_epoch(self) -> int:
        """1: every step stands for itself."""
        return 1

    def supports(self, relation: Relation | str) -> bool:
        """True under every relation."""
        as_relation(relation)
        return True

    def amplify(self, event: DpEvent, relation: Relation | str) -> DpEvent:
        """The event itself: nothing is sampled."""
        as_relation(relation)
        return event

    def run_event(
        self, event: DpEvent, steps: int, relation: Relation | str
    ) -> DpEvent:
        """The event of `steps` releases on everyone."""
        return repeated(self, event, steps, relation)

    def batch(self, key: jax.Array, step: int, num_records: int) -> Batch:
        """Everyone; the key is checked and not used.

        Raises:
          TypeError: a legacy key, or a tracer.
          ValueError: more records than `max_records`.
        """
        num_records = _drawing.checked(key, num_records, self.max_records)
        checked_step(step)
        drawn = np.ones((key.size, num_records), bool)
        indices, mask = _drawing.padded(drawn, self.max_records)
        return Batch(indices.reshape(*key.shape, -1), mask.reshape(*key.shape, -1))
