r"""The certified privacy loss of random allocation: one random step in each epoch.

A record that is in one of t steps, chosen uniformly, has the dominating pair
P = (1/t) sum_i N(e_i, s^2 I), Q = N(0, s^2 I), steps may depend on earlier outputs. Its
likelihood ratio is A = (W_1 + ... + W_t) / t with independent lognormals W_i of mean 1
under Q, and

    D(P || Q)(e) = E_Q[(A - e^e)+],    D(Q || P)(e) = E_Q[(1 - e^e A)+]

are both expectations of convex functions of A. So a discrete law that is above that of
A in convex order (same mean, E f no smaller for every convex f) dominates in both
directions at once and composes, and one that is below is dominated. Sums of independent
terms keep the order, so that the sum is built by doubling. If only s < t steps of an
epoch ran, A = 1 - s/t + (W_1 + ... + W_s) / t.

Relations: add_remove and zero_out.

Reference: for the pair, Feldman & Shenfeld, "Privacy amplification by random
allocation", 2025, arXiv:2502.08202, and Chua et al., "Balls-and-Bins Sampling for
DP-SGD", 2024, arXiv:2412.16802.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.accountants.pairs.allocation.atoms import Atoms
from dpkit.accountants.pairs.allocation.cells import Cells
from dpkit.accountants.pairs.allocation.span import Range
from dpkit.accountants.pairs.arrays import Array

FINENESS = 1 / 50
LEAST_NOISE = 0.1
MOST_NOISE = 1e4
_BALANCE = 1e-11
_LEAST = 1e-290
_UNDERFLOW = 1e-280  # more than all masses below the least together
_LARGEST_TAIL = 1e-9
_SLACKS = 1.25 ** np.arange(6)


@dataclasses.dataclass(frozen=True)
class AllocationLaw:
    """A discrete pair with its losses and its masses of infinite loss.

    Since p is the value of A times q, every hockey stick sum is one of positive terms
    in q, and has their relative error: an upper delta of n copies is to be multiplied
    by (1 + rounding)^n, a lower one divided.
    """

    p: Array  # masses with the record, (n,)
    q: Array  # masses without it, (n,)
    loss: Array  # log(p / q), increasing, (n,)
    infinite_p: float  # mass of p where q has none
    infinite_q: float  # mass of q where p has none
    step: float  # about how far apart neighbouring losses are
    rounding: float  # a bound on the relative error of each mass


def upper(
    noise_multiplier: float,
    steps: int,
    fineness: float = FINENESS,
    tail: float = 1e-16,
    last_steps: int | None = None,
) -> AllocationLaw:
    """A pair that dominates one epoch, in both directions.

    Losses lie above the true ones by a part that shrinks with the square of `fineness`.

    Args:
      noise_multiplier: s in [0.1, 1e4].
      steps: t, at least 1.
      fineness: grid step over the standard deviation of the loss, in (0, 0.1].
      tail: the infinite loss that may be added, in (0, 1e-9].
      last_steps: s < t if only the first s steps of the epoch ran; None for all.

    Returns:
      The law; `infinite_p` is at most 20 `tail`, `infinite_q` 0.1 `tail`.

    Raises:
      ValueError: an argument out of its range.
      ArithmeticError: noise that no grid can hold, or a result that fails its checks.

    Example:
      >>> law = upper(1.0, 29)
      >>> e = 1.0  # D_remove(1) is between 8.03041e-5 and 8.03130e-5
      >>> bool(8.0304e-5 < np.maximum(law.p - np.exp(e) * law.q, 0).sum() < 8.05e-5)
      True
    """
    ran = _checked(noise_multiplier, steps, fineness, tail, last_steps)
    share = steps / ran
    zero = lost = math.inf
    for slack in _SLACKS:
        span = Range(noise_multiplier, ran, fineness, tail * share, float(slack))
        law: Atoms = _sum(Atoms, span)
        top = math.exp(float(law.log_values[-1]))
        zero, lost = law.zero + _UNDERFLOW, (law.lost + _UNDERFLOW * top) / steps
        if zero <= 1e3 * span.low_tail and lost <= 20 * tail:
            return _dominating(law, span, steps, zero, lost)
    raise ArithmeticError(
        f"random allocation of {steps} steps at noise_multiplier={noise_multiplier!r}: "
        f"the grid leaves a mass of {zero:.3g} below and a mean of {lost:.3g} above, "
        f"too much for tail={tail:g}; use another accountant"
    )


def lower(
    noise_multiplier: float,
    steps: int,
    fineness: float = FINENESS,
    tail: float = 1e-16,
    last_steps: int | None = None,
) -> AllocationLaw:
    """A pair that one epoch dominates, in both directions: for lower bounds.

    The pair of the module is attained by a record that always contributes as much as
    it may, so what is below it is below the worst case. Arguments and errors are those
    of `upper`; `tail` is how far out the grid reaches. There is no infinite loss.

    Example:
      >>> law = lower(1.0, 29)
      >>> bool(np.maximum(law.p - np.exp(1.0) * law.q, 0).sum() < 8.0314e-5)
      True
    """
    ran = _checked(noise_multiplier, steps, fineness, tail, last_steps)
    span = Range(noise_multiplier, ran, fineness, tail * steps / ran)
    law: Cells = _sum(Cells, span)
    kept = law.mass > _LEAST
    q, moment = law.mass[kept], law.moment[kept]
    p = (steps - ran) / steps * q + moment / steps
    order = np.argsort(p / q, kind="stable")
    p, q = p[order], q[order]
    _check_balance(noise_multiplier, steps, float(p.sum()), float(q.sum()))
    loss = np.log(p) - np.log(q)
    return AllocationLaw(p, q, loss, 0.0, 0.0, law.step, law.rounding)


def _sum(kind: Any, span: Range) -> Any:
    """The law of W_1 + ... + W_t, as atoms or cells.

    t is halved down to 1. From there, sums are doubled, and one more W is added to
    each that is odd.
    """
    sizes = [span.steps]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    level = len(sizes) - 1
    step = span.step(level)
    law = kind.single(span.noise, step, *span.indices(1, step))
    for parts in reversed(sizes[:-1]):
        level -= 1
        step = span.step(level)
        law = law.doubled(step, *span.indices(parts - parts % 2, step))
        if parts % 2:
            coarse = span.stride(parts, step) * step
            one = kind.single(span.noise, coarse, *span.indices(1, coarse))
            law = law.plus(one, *span.indices(parts, step))
    return law


def _dominating(
    law: Atoms, span: Range, steps: int, zero: float, lost: float
) -> AllocationLaw:
    """Atoms as a pair: p = x q, x the value of A."""
    kept = law.mass > _LEAST
    q, logs = law.mass[kept], law.log_values[kept]
    if span.steps == steps:
        loss, infinite = logs - math.log(steps), zero
        p = np.exp(loss) * q
    else:
        rest = (steps - span.steps) / steps
        q = np.concatenate([[zero], q])
        values = np.concatenate([[rest], rest + np.exp(logs) / steps])
        loss, infinite, p = np.log(values), 0.0, values * q
    _check_balance(span.noise, steps, float(p.sum()) + lost, float(q.sum()) + infinite)
    return AllocationLaw(p, q, loss, lost, infinite, law.step, law.rounding)


def _check_balance(noise: float, steps: int, p: float, q: float) -> None:
    """Both sides sum to 1: the second sum is the mean of A."""
    off = max(abs(p - 1), abs(q - 1))
    if not off <= _BALANCE:
        raise ArithmeticError(
            f"random allocation of {steps} steps at noise_multiplier={noise!r}: its "
            f"law misses sums of 1 by {off:.3g}, more than {_BALANCE:g}"
        )


def _checked(
    noise: float, steps: int, fineness: float, tail: float, last_steps: int | None
) -> int:
    """How many steps ran; refuses what the law can't be made for."""
    if not LEAST_NOISE <= checks.noise(noise_multiplier=noise) <= MOST_NOISE:
        raise ArithmeticError(
            f"noise_multiplier={noise!r} must be in [{LEAST_NOISE:g}, {MOST_NOISE:g}] "
            "for the law of random allocation; use another accountant"
        )
    steps = checks.integer_at_least(1, steps=steps)
    if not 0 < checks.positive(fineness=fineness) <= 0.1:
        raise ValueError(f"fineness={fineness!r} must be in (0, 0.1]")
    if not 0 < checks.positive(tail=tail) <= _LARGEST_TAIL:
        raise ValueError(f"tail={tail!r} must be in (0, {_LARGEST_TAIL:g}]")
    if last_steps is None:
        return steps
    if not checks.integer_at_least(1, last_steps=last_steps) < steps:
        raise ValueError(f"last_steps={last_steps} must be below steps={steps}")
    return last_steps
