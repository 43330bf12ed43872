"""Losses of users and of several views as mechanisms: what is charged is honest."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.clipping import GaussianSum
from dpkit.mechanisms.protocol import BoundedSum
from dpkit.training.examples import augmented, per_user
from tests import conformance
from tests.bare import clipped_grad
from tests.oracles.mixture import Mixture, gaussian


def linear(w, x, key):
    """Its gradient is the record itself."""
    return jnp.vdot(w["a"], x["a"]) + jnp.vdot(w["b"], x["b"])


def of_user(w, stack, key):
    """Of a user's records; those that start with a zero are padding."""
    mask = stack["a"][:, 0] != 0
    return per_user(linear, 3)(w, (stack, mask), key)


def dropped(key, x):
    """A view that is all there, or nothing."""
    there = jax.random.bernoulli(key).astype(jnp.float32)
    return jax.tree.map(lambda leaf: leaf * there.astype(leaf.dtype), x)


LOSSES = {"user": of_user, "views": augmented(linear, dropped, 4)}
SUM = GaussianSum(2.0, 1.25)
POINT = {"a": jnp.zeros(2), "b": jnp.zeros(2)}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class OfLoss(BoundedSum):
    """Clipped gradients of a loss, and noise, as a mechanism."""

    name: str
    stddev = SUM.stddev

    def event(self, relation):
        return SUM.event(relation)

    def contribute(self, key, record):
        return self.clipped(key, jax.tree.map(lambda leaf: leaf[None], record))

    def clipped(self, key, records):
        gradient = clipped_grad(LOSSES[self.name], clip_norm=2.0)
        keys = jax.random.split(key, len(records["a"]))
        return gradient(POINT, records, keys=keys)[0]

    def __call__(self, key, records):
        model_key, noise_key = jax.random.split(key)
        return SUM.privatize(noise_key, self.clipped(model_key, records))


def user(*values):
    """One user, with records along e1."""
    return jax.tree.map(lambda leaf: leaf[None], conformance.along(*values))


def nobody(records):
    return jax.tree.map(lambda leaf: leaf[:0], records)


def law_of_views(value):
    """K of 4 views are there: value * K / 4, clipped to 2."""
    moves = tuple(max(-2.0, min(2.0, value * k / 4)) for k in range(5))
    weights = tuple(math.comb(4, k) / 16 for k in range(5))
    return Mixture(moves, weights, SUM.stddev)


def pairs_of(name, relation):
    """A loss's neighbours, of the largest effect and of a small one, with laws."""
    if name == "user":
        # Means of -6 and 6, clipped to 2, of two records, and of one.
        worst, small = user(6.0, 6.0, 6.0), user(0.75, 0.0, 0.25)
        across, none = user(-6.0, -6.0, -6.0), user(0.0, 0.0, 0.0)
        law = {"worst": gaussian(2.0, SUM.stddev), "small": gaussian(0.5, SUM.stddev)}
        opposite = gaussian(-2.0, SUM.stddev)
    else:
        worst, small = conformance.along(1e3), conformance.along(1.0)
        across, none = conformance.along(-1e3), conformance.along(0.0)
        law = {"worst": law_of_views(1e3), "small": law_of_views(1.0)}
        opposite = law_of_views(-1e3)
    silence = gaussian(0.0, SUM.stddev)
    other, side = {
        "add_remove": (nobody(worst), silence),
        "zero_out": (none, silence),
        "replace_one": (across, opposite),
    }[relation]
    return tuple(
        conformance.Pair(title, other, records, (side, law[title]))
        for title, records in (("worst", worst), ("small", small))
    )


@pytest.mark.slow
@pytest.mark.parametrize("relation", ["add_remove", "zero_out", "replace_one"])
@pytest.mark.parametrize("name", LOSSES)
def test_users_and_views_pass_the_common_checks(name, relation):
    """Those of every mechanism; the worst user costs all that is charged."""
    row = conformance.Row(
        name=f"{name}-{relation}",
        mechanism=OfLoss(name),
        relation=Relation(relation),
        pairs=pairs_of(name, relation),
        statistic=lambda output: output["a"][0],
        radius=2.0,
        # All views of the worst example are dropped at times.
        tight=name == "user",
    )
    for check in (
        conformance.check_event,
        conformance.check_exact,
        conformance.check_audit,
        conformance.check_law,
        conformance.check_bound,
        conformance.check_isolation,
        conformance.check_leaves,
    ):
        check(row)
