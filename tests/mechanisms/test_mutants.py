"""Broken mechanisms: each must fail the common check that is there to catch it.

The unbroken ones pass the same checks in test_conformance.py. Keys are fixed; with
others, the audits here miss a mutant with a probability below 1e-3, and flag an honest
mechanism with a probability of at most 1e-5 for every pair.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.readings import pld
from dpkit.mechanisms.adaptive import AdaptiveGaussianSum
from dpkit.mechanisms.clipping import GaussianSum
from dpkit.mechanisms.clips import Flat
from dpkit.mechanisms.noise import gaussian_noise
from dpkit.mechanisms.sampling import PoissonSampler
from tests.conformance import (
    ROWS,
    Row,
    Step,
    check_audit,
    check_bound,
    check_exact,
    check_keys,
    check_law,
    check_leaves,
)

BY_NAME = {row.name: row for row in ROWS}
PLAIN = BY_NAME["gaussian_sum-add_remove"]
REPLACED = BY_NAME["gaussian_sum-replace_one"]
SAMPLED = BY_NAME["poisson-add_remove"]
ADAPTIVE = BY_NAME["adaptive-add_remove"]
ADAPTIVE_FIELDS = dataclasses.fields(AdaptiveGaussianSum)
TRUNCATED = BY_NAME["truncated-add_remove"]


def mechanism(cls):
    """Register a subclass of GaussianSum, with its static fields."""
    register = functools.partial(
        jax.tree_util.register_dataclass,
        data_fields=(),
        meta_fields=("clip", "noise_multiplier", "max_summands"),
    )
    return register(dataclasses.dataclass(frozen=True, init=False)(cls))


def mutated(row: Row, cls: type) -> Row:
    """The row with its mechanism replaced by one of class `cls`, same fields."""
    own = row.mechanism
    mechanism = cls(
        clip=own.clip,
        noise_multiplier=own.noise_multiplier,
        max_summands=own.max_summands,
    )
    return dataclasses.replace(row, mechanism=mechanism)


@mechanism
class TooQuiet(GaussianSum):
    """Noise 10 % too small."""

    @property
    def stddev(self):
        return 0.9 * super().stddev


@mechanism
class Unclipped(GaussianSum):
    """Records as they are."""

    def contribute(self, key, record):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), record)


@mechanism
class ClippedByLeaf(GaussianSum):
    """Every leaf clipped by itself: the norm of all is larger."""

    def contribute(self, key, record):
        clip = super().contribute
        return {name: clip(key, leaf) for name, leaf in record.items()}


@mechanism
class ZeroTimesNan(GaussianSum):
    """A factor of 0 for records that aren't finite: 0 * NaN is NaN."""

    def contribute(self, key, record):
        norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(record)))
        factor = jnp.where(
            jnp.isfinite(norm), jnp.minimum(1.0, self.clip_norm / norm), 0
        )
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), record)


@mechanism
class OneKeyForAllLeaves(GaussianSum):
    """The same noise on every leaf."""

    def privatize(self, key, total):
        def noisy(leaf):
            return leaf + gaussian_noise(jax.random.clone(key), leaf, self.stddev)

        return jax.tree.map(noisy, total)


@mechanism
class OneKeyForAllReleases(GaussianSum):
    """Noise that is reused by every release."""

    def privatize(self, key, total):
        return super().privatize(jax.random.key(0), total)


@mechanism
class CoarseTails(GaussianSum):
    """Noise rounded to a grid of half its standard deviation."""

    def privatize(self, key, total):
        grid = self.stddev / 2
        noise = gaussian_noise(key, total, self.stddev)
        return jax.tree.map(lambda x, z: x + jnp.round(z / grid) * grid, total, noise)


@mechanism
class CountsAloud(GaussianSum):
    """Publishes, unperturbed, how many records there are."""

    def __call__(self, key, records):
        output = super().__call__(key, records)
        count = jnp.float32(jax.tree.leaves(records)[0].shape[0])
        return output | {"count": count}


@mechanism
class HalvedForReplacement(GaussianSum):
    """A mechanism that halves its multiplier itself; accountants do that."""

    def event(self, relation):
        halved = relation == Relation.REPLACE_ONE
        return GaussianDpEvent(self.noise_multiplier / (2 if halved else 1))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("clip_norm",),
    meta_fields=[
        field.name
        for field in dataclasses.fields(AdaptiveGaussianSum)
        if field.name != "clip_norm"
    ],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class UncentredCount(AdaptiveGaussianSum):
    """Counts with bits of 0 and 1, at the price of bits of -1/2 and 1/2."""

    def bits(self, norms, mask=None):
        return (super().bits(norms, mask) > 0).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Understated(Flat):
    """Clips to twice the radius that it tells."""

    @property
    def radius(self):
        return self.clip_norm / 2


def with_clip(row: Row, clip: Flat) -> Row:
    """The row with another clip, and the radius that this clip tells."""
    mechanism = dataclasses.replace(row.mechanism, clip=clip)
    return dataclasses.replace(row, mechanism=mechanism, radius=clip.radius)


UNDERSTATED = with_clip(PLAIN, Understated(4.0))
UNCENTRED = dataclasses.replace(
    ADAPTIVE,
    mechanism=UncentredCount(
        **{f.name: getattr(ADAPTIVE.mechanism, f.name) for f in ADAPTIVE_FIELDS}
    ),
)


@dataclasses.dataclass(frozen=True)
class RealisedStep(Step):
    """Divides by how many were really drawn."""

    def divide_by(self, mask):
        return jnp.maximum(mask.sum().astype(jnp.float32), 1.0)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RealisedBatch(Row):
    """A row whose step divides by the realised batch size."""

    def step(self):
        return RealisedStep(self.mechanism, self.statistic, self.divisor)


@dataclasses.dataclass(frozen=True)
class FirstByIndex(PoissonSampler):
    """Cuts a batch that is too large by the order of the records."""

    def _select(self, uniforms):
        drawn = uniforms < np.uint64(self.sampling_rate * 2.0**64)
        first = drawn & (np.cumsum(drawn, axis=1) <= self.max_batch_size)
        return super()._select(np.where(first, uniforms, np.uint64(2**64 - 1)))


@dataclasses.dataclass(frozen=True)
class OneDrawForAll(PoissonSampler):
    """Draws once, and takes the same batch ever after."""

    def draw(self, key, num_records):
        return super().draw(jnp.broadcast_to(key[0], key.shape), num_records)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [pytest.param(PLAIN, marks=pytest.mark.guard), TRUNCATED], ids=repr
)
def test_noise_too_small(row):
    with pytest.raises(AssertionError, match="Finding"):
        check_audit(mutated(row, TooQuiet))


@pytest.mark.parametrize(
    "cls",
    [
        TooQuiet,
        pytest.param(CoarseTails, marks=[pytest.mark.slow, pytest.mark.guard]),
    ],
)
def test_noise_of_another_law(cls):
    with pytest.raises(AssertionError, match="worst, side 0"):
        check_law(mutated(PLAIN, cls))


@pytest.mark.parametrize("cls", [Unclipped, ClippedByLeaf, ZeroTimesNan])
def test_contributions_past_the_bound(cls):
    with pytest.raises(AssertionError, match=r" > 2\.0"):
        check_bound(mutated(PLAIN, cls))


def test_a_clip_that_tells_too_small_a_radius():
    with pytest.raises(AssertionError, match=r" > 2\.0"):
        check_bound(UNDERSTATED)


def test_a_count_that_is_not_centred():
    with pytest.raises(AssertionError, match=r" > 2\.06"):
        check_bound(UNCENTRED)


@pytest.mark.slow
@pytest.mark.parametrize("row", [UNDERSTATED, UNCENTRED], ids=["radius", "count"])
def test_both_are_seen_from_outside_too(row):
    with pytest.raises(AssertionError, match="Finding"):
        check_audit(row)


@pytest.mark.slow
def test_clipping_switched_off_is_seen_from_outside_too():
    with pytest.raises(AssertionError, match="Finding"):
        check_audit(mutated(PLAIN, Unclipped))


def test_one_noise_key_for_all_leaves():
    with pytest.raises(AssertionError, match=r"two leaves: variance ratio 0\.0"):
        check_leaves(mutated(PLAIN, OneKeyForAllLeaves))


@pytest.mark.slow
def test_one_noise_key_for_all_releases():
    with pytest.raises(AssertionError, match=r"two releases: variance ratio 0\.0"):
        check_leaves(mutated(PLAIN, OneKeyForAllReleases))
    with pytest.raises(AssertionError, match="without noise"):
        check_keys(mutated(PLAIN, OneKeyForAllReleases))


@pytest.mark.slow
def test_an_accountant_that_forgets_the_factor_two_of_replacement():
    def forgetful(epsilon):
        event = REPLACED.event()
        return pld.delta_of(event, epsilon, relation="add_remove", lower=False).upper

    with pytest.raises(AssertionError, match="Finding"):
        check_audit(REPLACED, claim=forgetful)


def test_a_mechanism_that_takes_the_factor_two_upon_itself():
    with pytest.raises(AssertionError, match="loose"):
        check_exact(mutated(REPLACED, HalvedForReplacement))


@pytest.mark.slow
def test_division_by_the_realised_batch_size():
    fields = {f.name: getattr(SAMPLED, f.name) for f in dataclasses.fields(SAMPLED)}
    with pytest.raises(AssertionError, match=r"against a crowd: .*Finding"):
        check_audit(RealisedBatch(**fields))


@pytest.mark.parametrize(
    "cls",
    [pytest.param(x, marks=pytest.mark.slow) for x in (FirstByIndex, OneDrawForAll)],
)
def test_batches_of_another_law(cls):
    assert TRUNCATED.sampler is not None
    sampler = cls(**dataclasses.asdict(TRUNCATED.sampler))
    with pytest.raises(AssertionError, match="rivals for slots, side"):
        check_law(dataclasses.replace(TRUNCATED, sampler=sampler))


def test_a_published_count():
    with pytest.raises(AssertionError, match="without noise"):
        check_keys(mutated(PLAIN, CountsAloud))
