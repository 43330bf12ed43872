"""Random allocation of records to the steps of an epoch, with or without a limit."""

import functools
import math
from collections.abc import Callable

from dp_accounting import DpEvent

from dpkit.accountants.events.allocation import Part, parts, released
from dpkit.accountants.pairs import curve as renyi
from dpkit.accountants.pairs import noise as noises
from dpkit.accountants.pairs import profiles
from dpkit.accountants.pairs.allocation import law as allocated
from dpkit.accountants.pairs.allocation import renyi as tables
from dpkit.accountants.pairs.curve import Curve, Table, sum_of
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.laws.base import Law
from dpkit.accountants.pairs.profiles import Profile, Side

_FINENESS = 1 / 100
_SMALLEST_TAIL = 1e-220  # what its grid can hold; the rest counts as infinite loss


class RandomAllocation(Law, kinds=("random_allocation",)):
    """Draws of one step of some; of several steps, only from above."""

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """Each independent draw; where no grid holds its law, a plain Gaussian."""
        return [
            (self._profile(part, free_delta), part.count) for part in parts(self.event)
        ]

    def _profile(self, part: Part, free_delta: float) -> Profile:
        """One random step of some."""
        noise, steps, last = part[:3]
        if steps == 1:
            return noises.gaussian(noise)
        tail = min(1e-16, max(free_delta, _SMALLEST_TAIL))
        try:
            upper = pair_of(noise, steps, last, tail, allocated.upper)
        except ArithmeticError:
            side = Side(noises.gaussian(noise).forward.above)  # nothing from below
            return Profile(side, side)
        if self.event.selected > 1:
            return profiles.between(upper, None)
        return profiles.between(
            upper, lambda: pair_of(noise, steps, last, tail, allocated.lower)
        )

    def curve(self) -> Curve:
        """The sum over the draws, each at most as if the record's step were known."""
        terms: list[tuple[Curve, int]] = []
        for noise, steps, last_steps, count in parts(self.event):
            gaussian = functools.partial(renyi.gaussian, noise_multiplier=noise)
            if steps == 1:
                terms.append((gaussian, count))
                continue
            values = tables.values(noise, steps, last_steps or steps)
            table = Table(tables.orders(noise, steps), values)
            terms.append((renyi.smaller(table, gaussian), count))
        return sum_of(terms)

    def shift(self) -> float:
        """A record that is in at most k steps moves them by sqrt(k) together."""
        event = self.event
        most = event.epochs * event.selected + min(event.selected, event.last_steps)
        return math.sqrt(most) / event.noise_multiplier


class TruncatedAllocation(Law, kinds=("truncated_random_allocation",)):
    """Known only through the allocation without a limit."""

    def lacks(self, view: str) -> str:
        """Everything."""
        return "its correction depends on epsilon: ask for epsilon at delta"

    def unlimited(self) -> tuple[list[tuple[DpEvent, int]], float]:
        """Plain random allocation; any of the steps can overflow."""
        event = self.event
        over = noises.overflow_probability(
            event.dataset_size, 1 / event.steps_per_epoch, event.max_batch_size
        )
        return released(event.plain), event.steps * over


@functools.lru_cache(maxsize=16)
def pair_of(
    noise: float,
    steps: int,
    last: int | None,
    tail: float,
    make: Callable[..., allocated.AllocationLaw],
) -> FinitePair:
    """A law of random allocation as a pair, its rounding on the safe side.

    All deltas are sums over masses of q, whose errors are relative.
    """
    found = make(noise, steps, _FINENESS, tail, last)
    scale = 1 + found.rounding
    if make is allocated.lower:
        scale = 1 / scale
    return FinitePair(
        found.p * scale, found.q * scale, (found.infinite_p, found.infinite_q)
    )
