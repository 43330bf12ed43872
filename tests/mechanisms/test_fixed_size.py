"""Batches of one size without replacement: exact size, one relation, right factor."""

import jax
import pytest
from dp_accounting import (
    GaussianDpEvent,
    LaplaceDpEvent,
    NonPrivateDpEvent,
    SampledWithoutReplacementDpEvent,
)

from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.readings import pld, rdp
from dpkit.mechanisms import FixedSizeSampler

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_every_batch_has_the_size_and_no_padding():
    sampler = FixedSizeSampler(expected_batch_size=7, max_records=20)
    batch = sampler.batch(jax.random.split(jax.random.key(0), 30), 0, 20)
    assert batch.indices.shape == (30, 7)
    assert batch.mask.all()
    assert len({tuple(row) for row in batch.indices.tolist()}) > 25
    everyone = FixedSizeSampler(20, 20).batch(jax.random.key(0), 0, 20)
    assert everyone.indices.tolist() == list(range(20))


def test_the_number_of_records_is_the_one_of_the_event():
    with pytest.raises(ValueError, match="num_records=19: needed exactly 20"):
        FixedSizeSampler(7, 20).batch(jax.random.key(0), 0, 19)


def test_events():
    gaussian = GaussianDpEvent(2.0)
    sampler = FixedSizeSampler(256, 60_000)
    assert sampler.amplify(gaussian, "replace_one") == SampledWithoutReplacementDpEvent(
        60_000, 256, gaussian
    )
    assert FixedSizeSampler(9, 9).amplify(gaussian, "replace_one") == gaussian
    none = NonPrivateDpEvent()
    assert sampler.amplify(none, "replace_one") == none
    with pytest.raises(UnsupportedEvent, match="Gaussian"):
        sampler.amplify(LaplaceDpEvent(1.0), "replace_one")


def test_noise_of_two_radii_counts_as_noise_of_one_when_a_record_is_replaced():
    # b=256, N=60000, T=1000, delta=1e-5, std = 2C: the Rényi accountant must say
    # 1.4844, and not .5727, which forgets that replacing moves the sum by 2C.
    event = FixedSizeSampler(256, 60_000).run_event(
        GaussianDpEvent(2.0), 1000, "replace_one"
    )
    upper = rdp.epsilon(event, 1e-5, relation="replace_one").upper
    assert upper is not None and upper == pytest.approx(1.4844, abs=1e-4)


@pytest.mark.slow
def test_renyi_is_never_below_the_loss_distributions():
    event = FixedSizeSampler(256, 60_000).run_event(
        GaussianDpEvent(2.0), 1000, "replace_one"
    )
    best = pld.epsilon(event, 1e-5, relation="replace_one", lower=False).upper
    loose = rdp.epsilon(event, 1e-5, relation="replace_one").upper
    assert best is not None and loose is not None and 0.2 < best < loose
