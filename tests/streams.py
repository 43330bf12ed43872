"""The common checks of streams, and the list of all of them.

Add a kind of noise by adding a row: an instance, batches, how many steps, and what it
must refuse. `Fading` is one that exists in this file alone, to show that a plan, a
training run and an optimiser need nothing else.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.readings.best import epsilon
from dpkit.mechanisms.adaptive import AdaptiveGaussianSum
from dpkit.mechanisms.changing import ChangingSum
from dpkit.mechanisms.clipping import GaussianSum, clip_record
from dpkit.mechanisms.clips import Clip, Flat
from dpkit.mechanisms.correlated import CorrelatedSum
from dpkit.mechanisms.cyclic import CyclicSampler
from dpkit.mechanisms.factorisation import Cyclic
from dpkit.mechanisms.noise import gaussian_noise
from dpkit.mechanisms.sampling import PoissonSampler
from dpkit.mechanisms.strategies import optimal_bands
from dpkit.mechanisms.stream import Steady, Stream
from dpkit.training.plan import DPSGDPlan

POISSON = PoissonSampler(0.1, max_batch_size=12, max_records=40)
CYCLIC = CyclicSampler(bins=4, max_records=40)
SIZE = 20_000


@dataclasses.dataclass(frozen=True)
class Fading(Steady):
    """Gaussian noise that is a factor smaller in every step, by a public rule."""

    clip: Clip
    noise_multiplier: float
    max_summands: int
    factor: float = 0.9
    alike = False

    def _at(self, step: int) -> GaussianSum:
        sigma = self.noise_multiplier * self.factor**step
        return GaussianSum(None, sigma, self.max_summands, clip=self.clip)

    def run_event(self, sampler, steps, relation):
        events = [self._at(step).event(relation) for step in range(steps)]
        return ComposedDpEvent([sampler.amplify(event, relation) for event in events])

    def step_event(self, sampler, relation):
        raise ValueError("steps differ: use charge or event")

    def stddev_at(self, step):
        return self._at(0).stddev * self.factor ** jnp.asarray(step, jnp.float32)

    def init(self, total_like):
        return jnp.zeros((), jnp.int32)

    def step(self, key, total, state, statistics=(), *, generator=None):
        source = generator or "threefry"
        noise = gaussian_noise(key, total, self.stddev_at(state), generator=source)
        return jax.tree.map(jnp.add, total, noise), state + 1

    def with_noise(self, noise_multiplier):
        return dataclasses.replace(self, noise_multiplier=noise_multiplier)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Row:
    """A stream, the batches and the steps that it is for.

    Attributes:
      refused: (sampler, steps) that it must refuse.
      multiplier: from the noise of a step over its clip norm to the noise multiplier
        of all that a step publishes.
      written: whether a plan with it can be written down.
      together: of outputs (steps, n), the same whose noise has deviation `stddev_at`.
    """

    name: str
    stream: Any
    sampler: Any
    steps: int
    refused: tuple[tuple[Any, int], ...]
    multiplier: Callable[[float], float] = lambda ratio: ratio
    written: bool = True
    together: Callable[[np.ndarray], np.ndarray] = lambda outputs: outputs

    def __repr__(self) -> str:
        return self.name

    def plan(self) -> DPSGDPlan:
        """A plan that holds it."""
        return DPSGDPlan(
            sampler=self.sampler,
            stream=self.stream,
            steps=self.steps,
            expected_batch_size=self.sampler.expected_batch_size,
        )

    @functools.cache  # noqa: B019 (rows live as long as the tests)
    def compiled(self) -> Any:
        """The step as one program."""
        return jax.jit(self.stream.step)

    def outputs(self, step: Any, seed: int = 0) -> tuple[Any, list[Any]]:
        """What is published of empty batches, (steps, SIZE), and the states."""
        nothing = {"a": jnp.zeros(SIZE), "b": jnp.zeros(())}
        state = self.stream.init(nothing)
        states, found = [state], []
        for t in range(self.steps):
            stats = self.stream.statistics(jnp.zeros(4), state)
            key = jax.random.fold_in(jax.random.key(seed), t)
            noisy, state = step(key, nothing, state, stats)
            found.append(noisy["a"])
            states.append(state)
        return np.asarray(found, np.float64), states


def cost(event: Any, relation: Relation) -> float:
    """The certified epsilon at 1e-5."""
    upper = epsilon(event, 1e-5, relation=relation, lower=False).upper
    assert upper is not None
    return upper


def check_contract(row: Row) -> None:
    """Every member is there; frozen, comparable, hashable; what moves has a limit."""
    stream = row.stream
    assert isinstance(row.stream, Stream)
    assert dataclasses.replace(stream) == stream
    assert hash(dataclasses.replace(stream)) == hash(stream) and hash(stream.clipping)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stream.noise_multiplier = 0.0
    state = stream.init({"a": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert bool(jax.tree.leaves(stream.limit(state))) == stream.clip_moves
    assert set(stream.generators) <= {"threefry", "chacha20"}


def check_event(row: Row, *, every: bool = False) -> None:
    """The run costs what its steps cost, by the noise and clip norms as they are.

    The noise is larger than the event says by n 2^-18, for rounding. Each number of
    steps has a relation of its own; or `every` one, which takes twice as long.
    """
    both = Relation.ADD_REMOVE, Relation.ZERO_OUT
    for number, steps in enumerate((row.steps, row.steps - 1, 1)):
        multipliers = []
        for t in range(steps):
            ratio = float(row.stream.stddev_at(t)) / float(row.stream.clip_at(t))
            multipliers.append(row.multiplier(ratio))
        for relation in both if every else both[number % 2 :][:1]:
            claimed = row.stream.run_event(row.sampler, steps, relation)
            events = [GaussianDpEvent(sigma) for sigma in multipliers]
            if not isinstance(row.stream, CorrelatedSum):
                events = [row.sampler.amplify(event, relation) for event in events]
                as_run: Any = ComposedDpEvent(events)
            else:
                as_run = events[0]
            said, true = (cost(event, relation) for event in (claimed, as_run))
            assert true <= said * (1 + 1e-6), f"{steps}: {true} > {said}"
            assert said <= true * 1.002, f"{steps}: {said} is more than {true}"
    if row.stream.alike:
        row.stream.step_event(row.sampler, "add_remove")
    else:
        with pytest.raises(ValueError, match="use charge"):
            row.stream.step_event(row.sampler, "add_remove")


def check_steps(row: Row) -> None:
    """Eager = jit; the same key the same noise, another key another everywhere."""
    eager, _ = row.outputs(row.stream.step)
    jitted, states = row.outputs(row.compiled())
    np.testing.assert_allclose(eager, jitted, rtol=1e-5, atol=1e-6)
    assert row.outputs(row.compiled())[0].tobytes() == jitted.tobytes()
    other, _ = row.outputs(row.compiled(), seed=1)
    assert (other != jitted)[:, :50].all()  # of so many two may be one by chance
    assert (other != jitted).mean() > 0.999
    assert len({jax.tree.structure(state) for state in states}) == 1
    with pytest.raises(TypeError, match="key="):
        row.stream.step(np.zeros(2, np.uint32), {"a": jnp.zeros(2)}, states[0], 0.0)


def check_stddev(row: Row) -> None:
    """Empty batches keep the noise, of the deviation that is stated, in every step.

    Chi-squared with 20,000 degrees of freedom: 6 deviations, false alarm 2e-9 a step.
    """
    outputs, states = row.outputs(row.compiled())
    for t, noise in enumerate(row.together(outputs)):
        stated = float(row.stream.stddev_at(t))
        if row.stream.clip_moves:  # where only the start is known beforehand
            stated *= float(row.stream.limit(states[t]) / row.stream.clip_at(t))
        ratio = float((noise**2).mean()) / stated**2
        assert abs(ratio - 1) < 6 * math.sqrt(2 / SIZE), f"step {t}: {ratio}"
        assert float(jnp.asarray(row.stream.stddev_at(jnp.int32(t)))) == pytest.approx(
            float(row.stream.stddev_at(t)), rel=1e-6
        )
    for t, other in enumerate(outputs[1:]):  # fresh: false alarm 2e-9 a pair
        if row.name != "correlated":
            correlation = np.corrcoef(outputs[t], other)[0, 1]
            assert abs(correlation) < 6 / math.sqrt(SIZE)


def check_null_records(row: Row) -> None:
    """A record of zeros, or one that is not finite, changes nothing."""
    state = row.stream.init({"a": jnp.zeros(3)})
    clip = row.stream.clip_for(state)
    for value in (0.0, math.nan, math.inf):
        record = {"a": jnp.array([0.0, value, 0.0]), "b": jnp.zeros(())}
        clipped = clip_record(record, clip)
        assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(clipped))
    one, padded = (
        row.stream.statistics(jnp.array(norms), state)
        for norms in ([0.3, 7.0, 0.0, 0.0], [0.3, 7.0])
    )
    assert jax.tree.map(float, one) == jax.tree.map(float, padded)


def check_plan(row: Row) -> None:
    """A plan holds it; scaled, it costs less; written down and read it is the same."""
    plan = row.plan()
    for relation in ("add_remove", "zero_out"):
        _, count = plan.charge(relation)
        assert count in (1, row.steps)
        assert plan.scaled(2.0).event(relation) != plan.event(relation)
    add_remove = Relation.ADD_REMOVE
    small, large = (p.event(add_remove) for p in (plan.scaled(2.0), plan))
    assert cost(small, add_remove) < cost(large, add_remove)
    ratio = plan.scaled(2.0).stddev(1) / plan.stddev(1)
    assert ratio == pytest.approx(2.0, rel=0.05 if row.name == "adaptive" else 1e-6)
    if not row.written:
        with pytest.raises(ValueError, match="has no words"):
            plan.to_json()
        return
    if row.name == "changing" or row.name == "changing_clip":
        pieces = [
            DPSGDPlan(sampler=row.sampler, stream=one, steps=steps,
                      expected_batch_size=row.sampler.expected_batch_size)
            for steps, one in row.stream.parts
        ]  # fmt: skip
        plan = DPSGDPlan.of_pieces(pieces)
    read = DPSGDPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert read.stream == plan.stream and read.sampler == plan.sampler
    assert read.event("add_remove") == plan.event("add_remove")


def check_refusals(row: Row) -> None:
    """Batches, and numbers of steps, that its noise is not for."""
    row.stream.check(row.sampler, row.steps)
    for sampler, steps in row.refused:
        with pytest.raises((ValueError, TypeError), match=r"\w+="):
            row.stream.check(sampler, steps)


CHECKS = (
    check_contract,
    check_event,
    check_steps,
    check_stddev,
    check_null_records,
    check_plan,
    check_refusals,
)
LARGE = PoissonSampler(0.1, max_batch_size=13, max_records=40)
PARTS = GaussianSum(1.0, 2.0, 12), GaussianSum(1.0, 1.0, 12), GaussianSum(0.5, 1.0, 12)
BANDS = optimal_bands(8, 3, Cyclic(4))


def _adaptive() -> Row:
    """The count of the bits, of sensitivity 1/2, is published beside the sum."""
    plan = DPSGDPlan.create(
        max_records=40,
        expected_batch_size=4,
        max_batch_size=12,
        clip_norm=1.0,
        noise_multiplier=1.5,
        quantile=0.5,
        steps=4,
    )
    stream: AdaptiveGaussianSum = plan.stream
    bits = 1 / (4 * stream.bit_stddev**2)
    return Row(
        "adaptive",
        stream,
        plan.sampler,
        4,
        ((LARGE, 4),),
        multiplier=lambda ratio: (1 / ratio**2 + bits) ** -0.5,
    )


def _correlated() -> Row:
    """Two epochs of four steps: a record is in step i and i + 4."""
    matrix = np.array(
        [[BANDS.coefficients(8)[i - j] if i >= j else 0.0 for j in range(8)]
         for i in range(8)]
    )  # fmt: skip
    moved = max(np.linalg.norm(matrix[:, i] + matrix[:, i + 4]) for i in range(4))
    return Row(
        "correlated",
        CorrelatedSum(
            1.0, 2.0, steps=8, participation=Cyclic(4), strategy=BANDS,
            max_summands=CYCLIC.max_batch_size,
        ),
        CYCLIC,
        8,
        ((CYCLIC, 7), (POISSON, 8), (CyclicSampler(bins=5, max_records=40), 8)),
        multiplier=lambda ratio: ratio / float(moved),
        together=lambda outputs: matrix @ outputs,
    )  # fmt: skip


ROWS = [
    Row("gaussian", GaussianSum(1.0, 1.5, 12), POISSON, 4, ((LARGE, 4),)),
    Row(
        "changing",
        ChangingSum(((2, PARTS[0]), (2, PARTS[1]))),
        POISSON,
        4,
        ((LARGE, 4), (POISSON, 5), (POISSON, 3)),
    ),
    Row(
        "changing_clip",
        ChangingSum(((1, PARTS[0]), (3, PARTS[2]))),
        POISSON,
        4,
        ((LARGE, 4), (POISSON, 5)),
    ),
    _adaptive(),
    _correlated(),
    Row("fading", Fading(Flat(1.0), 1.5, 12), POISSON, 4, ((LARGE, 4),), written=False),
]
