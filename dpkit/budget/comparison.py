"""All accountants side by side on one event, and where they contradict each other.

A reading of a certified accountant is a fact; one that is not certified is an estimate,
and is flagged where the facts rule it out.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dpkit.accountants import PrivacyBound, Relation

_BELOW = "the estimate is below a certified lower bound"
_OUTSIDE = "the estimate is above the smallest certified upper bound"
_CONTRADICTS = "certified bounds contradict each other: one of the accountants is wrong"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What one accountant says of an event at one delta.

    Attributes:
      accountant: its name.
      delta: the delta asked about.
      bound: its answer, or None.
      unsupported: why there is none, or None.
      seconds: how long it took.
      flags: what the other readings say against this one, one sentence each.

    Example:
      >>> Answer(accountant="pure", delta=0.1, unsupported="no proof").bound is None
      True
    """

    accountant: str
    delta: float
    bound: PrivacyBound | None = None
    unsupported: str | None = None
    seconds: float = 0.0
    flags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields of the bound, or the reason why there is none; and the rest."""
        told: dict[str, Any] = {"delta": self.delta, "unsupported": self.unsupported}
        if self.bound is not None:
            told = self.bound.to_json()
        return {
            "accountant": self.accountant,
            "unsupported": None,
            **told,
            "seconds": self.seconds,
            "flags": list(self.flags),
        }


def compare(
    event: DpEvent,
    delta: float,
    *,
    relation: Relation | str,
    unit: str | None = None,
    accountants: Sequence[str] = (),
    tolerance: float = 1e-6,
    peers: bool = False,
) -> list[Answer]:
    """Asks every accountant about epsilon at delta, by itself, with its time.

    Privacy: static regime (every parameter fixed before any output is seen).

    Args:
      event: everything that is released.
      delta: as for `dpkit.accountants.epsilon`.
      relation: "add_remove", "replace_one" or "zero_out".
      unit: the privacy unit, to be shown with the answers.
      accountants: names; all that there are where none is given.
      tolerance: the relative difference that is not flagged, at least 0.
      peers: whether to ask dp-accounting's own accountants too, which can take minutes
        and whose answers are estimates.

    Returns:
      One reading for each accountant, then for each peer.

    Raises:
      ValueError: an unknown accountant, or a bad event, delta or tolerance.

    Example:
      >>> from dpkit.accountants import PureDpEvent
      >>> readings = compare(PureDpEvent(0.5), 1e-5, relation="zero_out")
      >>> [round(r.bound.upper, 9) for r in readings if r.accountant == "pure"]
      [0.5]
    """
    from dpkit.accountants import as_relation
    from dpkit.accountants.answers import checks
    from dpkit.accountants.events import validate
    from dpkit.accountants.readings.best import ACCOUNTANTS

    validate(event)
    relation = as_relation(relation)
    delta = checks.half_open_probability(delta=delta)
    tolerance = checks.non_negative(tolerance=tolerance)
    names = list(accountants) or list(ACCOUNTANTS)
    for name in names:
        checks.one_of(tuple(ACCOUNTANTS), accountants=name)
    readings = [_read(name, event, delta, relation, unit) for name in names]
    if peers:
        from dpkit.budget.peers import PEERS

        readings += [_read(name, event, delta, relation, unit) for name in PEERS]
    return flagged(readings, tolerance=tolerance)


def flagged(readings: Iterable[Answer], *, tolerance: float) -> list[Answer]:
    """The same readings, each with what the others say against it.

    Args:
      readings: of one event at one delta.
      tolerance: the relative difference that is not flagged.

    Returns:
      The readings in order.

    Example:
      >>> from dpkit.accountants import PrivacyBound
      >>> fact = PrivacyBound(delta=1e-5, lower=1.0, upper=1.1, certified=True,
      ...                     relation="zero_out")
      >>> guess = PrivacyBound(delta=1e-5, estimate=0.9, relation="zero_out")
      >>> found = [Answer(accountant="a", delta=1e-5, bound=fact),
      ...          Answer(accountant="b", delta=1e-5, bound=guess)]
      >>> flagged(found, tolerance=1e-6)[1].flags
      ('the estimate is below a certified lower bound',)
    """
    found = list(readings)
    facts = [r.bound for r in found if r.bound is not None and r.bound.certified]
    lower = max((b.lower for b in facts if b.lower is not None), default=0.0)
    upper = min((b.upper for b in facts if b.upper is not None), default=float("inf"))
    more = 1 + tolerance
    return [
        dataclasses.replace(r, flags=_flags(r.bound, lower / more, upper * more))
        for r in found
    ]


def _flags(bound: PrivacyBound | None, lower: float, upper: float) -> tuple[str, ...]:
    """What the certified interval says against one bound."""
    if bound is None:
        return ()
    flags = []
    if bound.estimate is not None and bound.estimate < lower:
        flags.append(_BELOW)
    if bound.estimate is not None and bound.estimate > upper:
        flags.append(_OUTSIDE)
    if bound.certified and (
        (bound.upper is not None and bound.upper < lower)
        or (bound.lower is not None and bound.lower > upper)
    ):
        flags.append(_CONTRADICTS)
    return tuple(flags)


def _read(
    name: str, event: DpEvent, delta: float, relation: Any, unit: str | None
) -> Answer:
    """One accountant's answer, or why it has none."""
    from dpkit.accountants import NotCertified, UnsupportedEvent, UnsupportedRelation
    from dpkit.accountants.readings.best import ACCOUNTANTS
    from dpkit.budget import peers

    ask: Any = functools.partial(peers.epsilon, peer=name)
    if name in ACCOUNTANTS:
        ask = ACCOUNTANTS[name].epsilon
    start = time.perf_counter()
    bound = unsupported = None
    try:
        bound = ask(event, delta, relation=relation)
        bound = dataclasses.replace(bound, unit=unit)
    except (UnsupportedEvent, UnsupportedRelation, NotCertified) as error:
        unsupported = str(error)
    except (ValueError, ArithmeticError) as error:
        # The arguments were checked: one reader's failure is not the others'.
        unsupported = str(error)
    return Answer(
        accountant=name,
        delta=delta,
        bound=bound,
        unsupported=unsupported,
        seconds=time.perf_counter() - start,
    )
