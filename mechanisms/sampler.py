r"""What every sampler is: it draws the batches of a run and says what the run costs.

    sampler.batch(key, step, num_records) -> Batch     the batch of one step
    sampler.run_event(event, steps, relation)          the cost of all steps together

Both come from the same fields, so that they can't disagree. `event` is what one release
costs on a batch that is not sampled; `steps` counts from the first step of the run. A
batch is a function of (key, step) alone, so a resumed run draws what the interrupted
one did. Its size is static: index arrays padded to `max_batch_size`, with a mask. Empty
batches are real: release and charge them like any other. How many records were drawn is
private and never leaves the batch.

| sampler | batches | relations | event of a run |
|---|---|---|---|
| `PoissonSampler` | each record with probability q, afresh | add_remove, zero_out | T Poisson-sampled steps |
| the same, B < N | at most B of them | add_remove, zero_out | T truncated steps |
| `FixedSizeSampler` | b of N records, afresh | replace_one | T steps without replacement |
| `BallsInBinsSampler` | each record in one random step of an epoch | add_remove, zero_out | random allocation |
| `CyclicSampler` | one partition, its parts in turn | all | no amplification: one release an epoch |
| `FullBatchSampler` | everyone | all | T releases |

Where steps are independent draws (`steps_per_epoch` is 1), `amplify` gives the event of
one step; else only whole runs have an event.
"""  # noqa: E501 (a table)

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from dp_accounting import DpEvent, SelfComposedDpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, as_relation


class Batch(NamedTuple):
    """One draw, or several with an axis in front: indices of records, and which count.

    Private, both of them: `mask.sum()` is the realised batch size.

    Example:
      >>> from dpkit.mechanisms import PoissonSampler
      >>> batch = PoissonSampler(0.5, 8, 8).draw(jax.random.key(0), num_records=6)
      >>> batch.indices.dtype, batch.mask.dtype, batch.indices.shape
      (dtype('int32'), dtype('bool'), (8,))
    """

    indices: np.ndarray
    """int32 (max_batch_size,): ascending record numbers, then zeros as padding."""
    mask: np.ndarray
    """bool (max_batch_size,): False where the slot is padding."""


@runtime_checkable
class Sampler(Protocol):
    """Draws the batches of a run, and knows what a run on them costs.

    A frozen dataclass, registered as a pytree with static fields only.

    Example:
      >>> from dpkit.mechanisms import FullBatchSampler
      >>> isinstance(FullBatchSampler(100), Sampler)
      True
    """

    @property
    def max_batch_size(self) -> int:
        """Slots of a batch."""
        ...

    @property
    def max_records(self) -> int:
        """A public number that the data set never exceeds."""
        ...

    @property
    def expected_batch_size(self) -> float:
        """Records in a batch on average, if there are `max_records`."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps that belong together; 1 where each is a draw of its own."""
        ...

    def supports(self, relation: Relation | str) -> bool:
        """Whether there is a proof under the relation."""
        ...

    def amplify(self, event: DpEvent, relation: Relation | str) -> DpEvent:
        """What one release on one batch costs; refused where steps belong together."""
        ...

    def run_event(
        self, event: DpEvent, steps: int, relation: Relation | str
    ) -> DpEvent:
        """What the releases of the first `steps` steps cost together."""
        ...

    def batch(self, key: jax.Array, step: int, num_records: int) -> Batch:
        """The batch of one step, a function of (key, step); drawn on the host."""
        ...


def repeated(
    sampler: Sampler, event: DpEvent, steps: int, relation: Relation | str
) -> DpEvent:
    """The event of steps that are draws of their own: `steps` times the amplified one.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> from dpkit.mechanisms import FullBatchSampler
      >>> repeated(FullBatchSampler(9), GaussianDpEvent(1.0), 5, "zero_out")
      SelfComposedDpEvent(event=GaussianDpEvent(noise_multiplier=1.0), count=5)
    """
    steps = checks.integer_at_least(1, steps=steps)
    return SelfComposedDpEvent(sampler.amplify(event, relation), steps)


def refuse_relation(
    sampler: object,
    relation: Relation | str,
    event: DpEvent,
    allowed: tuple[Relation, ...],
) -> Relation:
    """The relation, if it is among those with a proof.

    Raises:
      UnsupportedRelation: another one.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> both = (Relation.ADD_REMOVE, Relation.ZERO_OUT)
      >>> refuse_relation(None, "zero_out", GaussianDpEvent(1.0), both)
      <Relation.ZERO_OUT: 'zero_out'>
    """
    relation = as_relation(relation)
    if relation not in allowed:
        raise UnsupportedRelation(type(sampler).__name__, relation, event, allowed)
    return relation


def refuse_step(sampler: object, event: DpEvent) -> DpEvent:
    """Refuse to price one step where a record's steps of an epoch belong together.

    Raises:
      UnsupportedEvent: always.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> refuse_step(None, GaussianDpEvent(1.0))
      Traceback (most recent call last):
      dpkit.accountants.answers.errors.UnsupportedEvent: ...
    """
    raise UnsupportedEvent(
        type(sampler).__name__,
        event,
        "the steps of an epoch belong together and have one event; use run_event",
    )


def checked_step(step: int) -> int:
    """A step number: an integer >= 0, never a tracer.

    Example:
      >>> checked_step(3)
      3
    """
    return checks.integer_at_least(0, step=step)
