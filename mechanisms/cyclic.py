"""A partition of the data, drawn once, whose parts are taken in turn.

Nothing is amplified: this is the order in which correlated noise, whose sensitivity
depends on how far a record's steps are apart, is at its best.

Source: Choquette-Choo et al., "(Amplified) Banded Matrix Factorization: A unified
approach to private training", 2023, arXiv:2306.08153.
"""

import dataclasses
import functools

import jax
import numpy as np
from dp_accounting import DpEvent, SelfComposedDpEvent

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms import _drawing
from dpkit.mechanisms.sampler import Batch, checked_step, refuse_step


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(),
    meta_fields=("bins", "max_records"),
)
@dataclasses.dataclass(frozen=True)
class CyclicSampler:
    r"""Step s takes part s mod t of a partition into t parts, the same in every epoch.

    `max_records` places are put in random order by 64-bit uniforms of the key alone;
    place r of that order belongs to part r mod t, and record i has place i. So the
    partition never changes during a run, nor when it is resumed with the same key, and
    no part holds more than ceil(max_records / t) records: nothing is ever truncated.

    Privacy: a record is in one step of each epoch, at least t steps apart, and in
    which one doesn't depend on other records: without it the rest keep their parts.
    Given the partition, a run of T steps is ceil(T / t) releases about the record, one
    an epoch, and others that are the same on both of two neighbours. That holds under
    every relation, whatever is released, and whoever knows the partition. Nothing is
    amplified. With correlated noise use the stream's own event, for a participation
    that is `separation` steps apart and happens `participations(steps)` times.

    Args:
      bins: t >= 1, the steps of an epoch.
      max_records: N >= t, a public upper bound on the number of records.

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean, a string, an array or a tracer.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> sampler = CyclicSampler(bins=4, max_records=8)
      >>> sampler.run_event(GaussianDpEvent(1.0), 10, "replace_one")
      SelfComposedDpEvent(event=GaussianDpEvent(noise_multiplier=1.0), count=3)
      >>> key = jax.random.key(0)
      >>> first, again = sampler.batch(key, 1, 8), sampler.batch(key, 5, 8)
      >>> bool((first.indices == again.indices).all()), int(first.mask.sum())
      (True, 2)

    Reference: Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", 2023,
    arXiv:2306.08153.
    """

    bins: int
    max_records: int

    def __post_init__(self) -> None:
        bins = _numbers.integer_at_least(1, bins=self.bins)
        records = _numbers.integer_at_least(1, max_records=self.max_records)
        if bins > records:
            raise ValueError(
                f"bins={bins}: needed at most max_records={records}; the other steps "
                "would always be empty"
            )
        object.__setattr__(self, "bins", bins)
        object.__setattr__(self, "max_records", records)

    @property
    def max_batch_size(self) -> int:
        """ceil(N / t), the largest part."""
        return -(-self.max_records // self.bins)

    @property
    def expected_batch_size(self) -> float:
        """N / t: records in a part on average, if there are `max_records`."""
        return self.max_records / self.bins

    @property
    def steps_per_epoch(self) -> int:
        """t."""
        return self.bins

    @property
    def separation(self) -> int:
        """t: a record's steps are exactly that far apart."""
        return self.bins

    def participations(self, steps: int) -> int:
        """ceil(steps / t): in how many of the first `steps` steps a record can be."""
        return -(-_numbers.integer_at_least(1, steps=steps) // self.bins)

    def supports(self, relation: Relation | str) -> bool:
        """True under every relation."""
        as_relation(relation)
        return True

    def amplify(self, event: DpEvent, relation: Relation | str) -> DpEvent:
        """Refused: a step costs a record nothing or everything; use `run_event`."""
        as_relation(relation)
        return refuse_step(self, event)

    def run_event(
        self, event: DpEvent, steps: int, relation: Relation | str
    ) -> DpEvent:
        """The event of `steps` releases with independent randomness: one an epoch.

        Args:
          event: what a release costs on a batch that is not sampled, of any kind.
          steps: T >= 1; an epoch that has only started counts whole.
          relation: any.
        """
        as_relation(relation)
        return SelfComposedDpEvent(event, self.participations(steps))

    def batch(self, key: jax.Array, step: int, num_records: int) -> Batch:
        """The batch of one step: its part of the partition.

        Args:
          key: a typed key of JAX, secret, the same for all steps; or an array of keys.
          step: its number in the run, from 0.
          num_records: from 0 to `max_records`; private under add_remove.

        Returns:
          Indices and mask, as of every sampler.

        Raises:
          TypeError: a legacy key, or a tracer.
          ValueError: more records than `max_records`.
        """
        num_records = _drawing.checked(key, num_records, self.max_records)
        part = checked_step(step) % self.bins
        # Of all places, also those without a record: a record's part must not depend
        # on how many others there are.
        order = _drawing.uniforms(_drawing.folded(key, 0), self.max_records)
        ranks = np.argsort(np.argsort(order, axis=1, kind="stable"), axis=1)
        drawn = ranks[:, :num_records] % self.bins == part
        indices, mask = _drawing.padded(drawn, self.max_batch_size)
        return Batch(indices.reshape(*key.shape, -1), mask.reshape(*key.shape, -1))
