r"""Balls in bins: in every epoch each record has one random step of its own.

One pass over the data each epoch, as people think of training, with an event of its
own that is often tighter than Poisson sampling's. Shuffling and cutting into batches of
one size is another thing, for which that event claims too little.

Sources: Chua et al., "Balls-and-Bins Sampling for DP-SGD", 2024, arXiv:2412.16802;
Feldman & Shenfeld, "Privacy amplification by random allocation", 2025,
arXiv:2502.08202.
"""

import dataclasses
import functools

import jax
import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent, NonPrivateDpEvent

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events.allocation import (
    MOST_STEPS,
    RandomAllocationDpEvent,
    TruncatedAllocationDpEvent,
)
from dpkit.mechanisms import _drawing
from dpkit.mechanisms.sampler import Batch, checked_step, refuse_relation, refuse_step

_ALLOWED = (Relation.ADD_REMOVE, Relation.ZERO_OUT)
_RANKS = 0x52414E4B


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(),
    meta_fields=("bins", "max_batch_size", "max_records"),
)
@dataclasses.dataclass(frozen=True)
class BallsInBinsSampler:
    r"""Each record in one step of every epoch, drawn uniformly and afresh.

    In each epoch a record goes to step U mod t, U uniform on 64 bits and drawn again
    from the largest multiple of t on, so that all steps are exactly as likely. Of more
    than `max_batch_size` in one step, a uniformly random subset of that size stays; the
    others sit this epoch out. They are never moved to another step.

    Privacy: each record's step is independent of all other records, epochs and
    outputs, which is what random allocation asks for. A run with limited batches and
    one without, on the same draws, differ only if some step overflows: with probability
    at most T Psi, T all steps, Psi = P[Binomial(N, 1/t) > B], on each of two
    neighbours. The event says so and the accountants add T (1 + e^epsilon) Psi to
    delta; `choose_max_batch_size` with rate 1/t finds a B for which that is little.
    There is no proof for replace_one.

    Args:
      bins: t, the steps of an epoch, from 1 to 2^20.
      max_batch_size: B, slots of a batch, at least max_records / t.
      max_records: N >= 1, a public upper bound on the number of records.

    Raises:
      ValueError: a number out of range, or a batch too small for what is expected.
      TypeError: a boolean, a string, an array or a tracer.

    Example:
      >>> sampler = BallsInBinsSampler(bins=4, max_batch_size=8, max_records=8)
      >>> sampler.run_event(GaussianDpEvent(1.0), 10, "add_remove")
      RandomAllocationDpEvent(noise_multiplier=1.0, steps_per_epoch=4, selected=1,
                              epochs=2, last_steps=2, partition='fresh')
      >>> key = jax.random.key(0)
      >>> epoch = [sampler.batch(key, step, 6) for step in range(4)]
      >>> sorted(i for b in epoch for i in b.indices[b.mask].tolist())
      [0, 1, 2, 3, 4, 5]

    Reference: Chua et al., "Balls-and-Bins Sampling for DP-SGD", 2024,
    arXiv:2412.16802.
    """

    bins: int
    max_batch_size: int
    max_records: int

    def __post_init__(self) -> None:
        bins = _numbers.integer_at_least(1, bins=self.bins)
        if bins > MOST_STEPS:
            raise ValueError(f"bins={bins}: needed at most {MOST_STEPS}")
        records = _numbers.integer_at_least(1, max_records=self.max_records)
        size = _numbers.integer_at_least(1, max_batch_size=self.max_batch_size)
        if size * bins < records:
            raise ValueError(
                f"max_batch_size={size}: needed at least max_records / bins = "
                f"{records / bins:g}; use choose_max_batch_size"
            )
        object.__setattr__(self, "bins", bins)
        object.__setattr__(self, "max_records", records)
        object.__setattr__(self, "max_batch_size", size)

    @property
    def truncates(self) -> bool:
        """Whether a step can ever have too many records for its slots."""
        return self.max_batch_size < self.max_records

    @property
    def expected_batch_size(self) -> float:
        """N / t: records in a step on average, if there are `max_records`."""
        return self.max_records / self.bins

    @property
    def steps_per_epoch(self) -> int:
        """t."""
        return self.bins

    def supports(self, relation: Relation | str) -> bool:
        """True under add_remove and zero_out."""
        return as_relation(relation) in _ALLOWED

    def amplify(self, event: DpEvent, relation: Relation | str) -> DpEvent:
        """Refused: the steps of an epoch have one event; use `run_event`."""
        refuse_relation(self, relation, event, _ALLOWED)
        if isinstance(event, NonPrivateDpEvent):
            return event
        return refuse_step(self, event)

    def run_event(
        self, event: DpEvent, steps: int, relation: Relation | str
    ) -> DpEvent:
        """The event of the first `steps` steps; an epoch may have only started.

        Args:
          event: what a release costs on a batch that is not sampled; a Gaussian.
          steps: T >= 1.
          relation: "add_remove" or "zero_out".

        Returns:
          RandomAllocationDpEvent, TruncatedAllocationDpEvent of `max_records` where
          batches can be truncated, or NonPrivateDpEvent if that is the event.

        Raises:
          UnsupportedRelation: replace_one.
          UnsupportedEvent: an event that is not a Gaussian.
        """
        refuse_relation(self, relation, event, _ALLOWED)
        steps = _numbers.integer_at_least(1, steps=steps)
        if isinstance(event, NonPrivateDpEvent):
            return event
        if not isinstance(event, GaussianDpEvent):
            raise UnsupportedEvent(
                "BallsInBinsSampler", event, "random allocation needs a GaussianDpEvent"
            )
        epochs, last = divmod(steps, self.bins)
        noise = event.noise_multiplier
        if not self.truncates:
            return RandomAllocationDpEvent(
                noise, self.bins, epochs=epochs, last_steps=last
            )
        return TruncatedAllocationDpEvent(
            noise, self.bins, self.max_records, self.max_batch_size, epochs, last
        )

    def batch(self, key: jax.Array, step: int, num_records: int) -> Batch:
        """The batch of one step: who drew it in its epoch.

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
        epoch, place = divmod(checked_step(step), self.bins)
        branch = _drawing.folded(key, epoch)
        drawn = allocated(branch, num_records, self.bins) == place
        crowded = np.flatnonzero(drawn.sum(axis=1) > self.max_batch_size)
        if len(crowded):
            # Who stays is drawn independently of who came, afresh for every step.
            places = _drawing.folded(_drawing.folded(branch, _RANKS), place)
            order = _drawing.uniforms(places, num_records)
            for row in crowded:
                _drawing.keep_smallest(drawn[row], order[row], self.max_batch_size)
        indices, mask = _drawing.padded(drawn, self.max_batch_size)
        return Batch(indices.reshape(*key.shape, -1), mask.reshape(*key.shape, -1))


def allocated(keys: jax.Array, num_records: int, bins: int) -> np.ndarray:
    """The bin of every record, int64 (number of keys, num_records), exactly uniform.

    Example:
      >>> allocated(jax.random.key(0), 5, bins=3)
      array([[0, 2, 0, 0, 0]])
    """
    words = _drawing.uniforms(_drawing.folded(keys, 0), num_records)
    attempt = 1
    # 2^64 is rarely a multiple of t: what is above its last multiple is drawn again.
    while (above := words > last_word(bins)).any():
        again = _drawing.uniforms(_drawing.folded(keys, attempt), num_records)
        words = np.where(above, again, words)
        attempt += 1
    return bin_of(words, bins)


def bin_of(words: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each word that is not drawn again: its remainder.

    Example:
      >>> bin_of(np.array([0, 5, 2**64 - 2], np.uint64), 4)
      array([0, 1, 2])
    """
    return (words % np.uint64(bins)).astype(np.int64)


def last_word(bins: int) -> np.uint64:
    """The largest word that is kept: one below the last multiple of the bins.

    Example:
      >>> int(last_word(4)) == 2**64 - 1, int(last_word(3)) == 2**64 - 2
      (True, True)
    """
    return np.uint64(2**64 // bins * bins - 1)
