"""Epsilon with its warrant, worded once for every report and every command.

A certified upper bound is rounded up and says who certifies it; any other number
carries the word "estimate"; delta, relation and unit are always named. Every sentence
is a consequence of (epsilon, delta)-differential privacy as it is defined: for each
event S, P(S) <= exp(epsilon) Q(S) + delta, for the laws P and Q of everything released
on two neighbouring data sets.

Reference: Dwork, Roth, "The Algorithmic Foundations of Differential Privacy", 2014,
Definition 2.4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dpkit.report.words import (
    as_float,
    most_recognised,
    neighbours,
    number,
    relation_in_short,
)

if TYPE_CHECKING:
    from dpkit.accountants import DeltaBound, PrivacyBound

NOT_SECRET = "had the noise been secret; it was not, so there is NO PRIVACY"
KNOWN_SEED = (
    "NO PRIVACY: test.insecure_seed fixes the noise, and anybody can take it away"
)


def stated(bound: PrivacyBound | DeltaBound) -> str:
    """The number that a bound gives, with its warrant.

    Returns:
      A certified upper bound rounded up; else the largest number known, as an estimate.

    Example:
      >>> from dpkit.accountants import PrivacyBound
      >>> stated(PrivacyBound(delta=0.1, estimate=1.5, relation="zero_out"))
      '≈ 1.5, an estimate, not certified'
    """
    known = bound.upper if bound.upper is not None else bound.estimate
    if known is None:
        return "no answer"
    return _in_one(*_worded(known, bound.certified, bound.method_upper))


def _worded(value: float, certified: bool, method: str | None) -> tuple[str, str]:
    """A number as it may be shown, and its warrant."""
    if math.isinf(value):
        return "infinite", "no guarantee"
    if not certified:
        return f"≈ {number(value)}", "an estimate, not certified"
    return f"≤ {number(value, side='up')}", f"certified upper bound ({method})"


def _in_one(value: str, warrant: str) -> str:
    """A number and its warrant in one text."""
    return f"{value}: {warrant}" if value == "infinite" else f"{value}, {warrant}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarantee:
    """A bound on epsilon, ready to be stated.

    Attributes:
      epsilon: the certified upper bound, else an estimate; inf: no guarantee.
      certified: whether a proof stands behind `epsilon`.
      delta: the delta at which it holds.
      relation: the neighbouring relation.
      unit: what one record stands for.
      method: the accountant, or the ledger's filter, behind `epsilon`.
      insecure: what came from a known seed ("the noise of this run"); empty: nothing.
      released: what the guarantee speaks about, in a sentence or two.
      warnings: what a reader must know, one sentence each.

    Example:
      >>> Guarantee(epsilon=2.50001, certified=True, delta=1e-5, unit="user",
      ...           relation="add_remove", method="pld").value
      '≤ 2.501'
    """

    epsilon: float
    certified: bool
    delta: float
    relation: str
    unit: str
    method: str | None
    insecure: str = ""
    released: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, bound: PrivacyBound, **told: str) -> Guarantee:
        """What an accountant or a ledger answered.

        Args:
          bound: the answer; none at all is an infinite epsilon.
          **told: insecure, released, unit, as for `read`.

        Example:
          >>> from dpkit.accountants import PrivacyBound
          >>> bound = PrivacyBound(delta=0.1, estimate=1.5, relation="zero_out")
          >>> Guarantee.of(bound).value
          '≈ 1.5'
        """
        return cls.read(bound.to_json(), **told)

    @classmethod
    def read(
        cls,
        told: Mapping[str, Any],
        *,
        insecure: str = "",
        released: str = "",
        unit: str = "example",
    ) -> Guarantee:
        """The same, of a bound that was written as JSON.

        Args:
          told: by `PrivacyBound.to_json`.
          insecure: what came from a known seed; empty: nothing.
          released: what the guarantee speaks about.
          unit: what one record stands for, where the bound doesn't say.

        Raises:
          KeyError: a needed fact is missing.

        Example:
          >>> told = {"upper": "inf", "certified": True, "delta": 0.0,
          ...         "relation": "zero_out"}
          >>> Guarantee.read(told).value
          'infinite'
        """
        known = as_float(told["upper"])
        if known is None:
            known = as_float(told.get("estimate"))
        return cls(
            epsilon=math.inf if known is None else known,
            certified=told["certified"] is True,
            delta=float(told["delta"]),
            relation=str(told["relation"]),
            unit=str(told.get("unit") or unit),
            method=told.get("method_upper") or told.get("method_estimate"),
            insecure=insecure,
            released=released,
            warnings=tuple(told.get("warnings", ())),
        )

    @property
    def value(self) -> str:
        """Epsilon as it may be shown, rounded up where it is certified."""
        return _worded(self.epsilon, self.certified, self.method)[0]

    @property
    def warrant(self) -> str:
        """What stands behind the number."""
        worded = _worded(self.epsilon, self.certified, self.method)[1]
        return NOT_SECRET if self.insecure and self.finite else worded

    @property
    def finite(self) -> bool:
        """Whether anything is guaranteed at all."""
        return math.isfinite(self.epsilon)

    @property
    def headline(self) -> str:
        """The guarantee in one line: epsilon, delta, relation, unit and warrant.

        Example:
          >>> Guarantee(epsilon=2.5, certified=True, delta=1e-5, unit="user",
          ...           relation="add_remove", method="pld").headline
          'epsilon ≤ 2.5 at delta = 1e-5, to add or remove one user (certified: pld)'
        """
        relation = relation_in_short(self.relation, self.unit)
        if not self.finite:
            return f"no privacy: epsilon is infinite, to {relation}"
        seed = _FIXED_SEED if self.insecure else ""
        tail = f"at delta = {number(self.delta, side='up')}, to {relation}"
        if self.certified:
            return f"{seed}epsilon {self.value} {tail} (certified: {self.method})"
        return f"{seed}epsilon {self.value} (an estimate, not certified) {tail}"

    def facts(self) -> list[tuple[str, str]]:
        """Names and values for a terminal: epsilon with its warrant, and its terms.

        Example:
          >>> Guarantee(epsilon=2.5, certified=True, delta=1e-5, unit="user",
          ...           relation="add_remove", method="pld").facts()[0]
          ('epsilon', '≤ 2.5, certified upper bound (pld)')
        """
        return [
            ("epsilon", _in_one(self.value, self.warrant)),
            ("delta", number(self.delta, side="up")),
            ("relation", self.relation),
            ("unit", self.unit),
            *(("warning", text) for text in self.warnings),
        ]

    def sentences(self) -> list[str]:
        """The guarantee as paragraphs that a reader without the mathematics can follow.

        Example:
          >>> Guarantee(epsilon=1.0, certified=True, delta=0.0, unit="user",
          ...           relation="zero_out", method="pld").sentences()[0]
          'Take any two data sets where one user of the first is an empty record in the
          second.'
        """
        if not self.finite:
            return ["This gives no differential privacy: its epsilon is infinite."]
        told = [
            f"Take any two data sets where {neighbours(self.relation, self.unit)}.",
            self._ratio(),
            self._test(),
            self.released,
            *self.warnings,
        ]
        return [text for text in told if text]

    def _ratio(self) -> str:
        """The definition, in words."""
        if self.certified:
            who = str(self.method)
            who = f"the {who}" if who.startswith("ledger") else f"the accountant {who}"
            warrant = f"This is a certified upper bound, by {who}."
        else:
            warrant = "This epsilon is an estimate: no accountant has certified it."
        odds = number(math.exp(min(self.epsilon, 700)), digits=3, side="up")
        shown = number(self.epsilon, side="up" if self.certified else "nearest")
        return (
            "Whatever one might look for in what was released, it is at most"
            f" exp(epsilon) = {odds} times as likely with one data set as with the"
            f" other, plus delta: epsilon = {shown}, delta ="
            f" {number(self.delta, side='up')}. {warrant}"
        )

    def _test(self) -> str:
        """What that means for a test of membership."""
        power = 100 * most_recognised(self.epsilon, self.delta, 0.01)
        unit = self.unit
        question = {
            "add_remove": f"whether a given {unit} was in the data",
            "zero_out": f"whether a given {unit} was in the data or left empty",
        }.get(self.relation, f"which of two given {unit}s was in the data")
        return (
            f"So a test that decides {question}, and is wrong in 1 % of the cases where"
            f" the answer is no, is right in at most {number(power, side='up')} %"
            " of the cases where it is yes, whatever else its author knows."
        )


def not_covered(unit: str, *more: str) -> list[str]:
    """What no guarantee speaks about, one sentence an entry.

    Args:
      unit: what one record stands for.
      *more: what this one leaves open besides; said first.

    Example:
      >>> any("search" in row for row in not_covered("example"))
      True
    """
    return [
        *more,
        "Hyper-parameter search: settings chosen by trying several on the same data"
        " cost privacy that this run cannot see, unless the ledger holds every try.",
        "Preparation that looked at the private rows: cleaning, scaling,"
        " vocabularies or category lists computed from them.",
        "The choices of whoever set this run up: the model, the clip norm, the number"
        " of steps, if they were made with these rows in view.",
        "Floating-point arithmetic: the proof is about real numbers; the noise is"
        " drawn in finite precision, which a determined attack could exploit.",
        "Time, memory and messages of the machine while it ran.",
        f"More than one {unit} a person: the guarantee is about one {unit}; somebody"
        " who holds several is protected less.",
        "What is true of the population: a conclusion that would be drawn from the"
        f" data without any one {unit} may be drawn with it.",
        "Other releases from the same data, unless they are on the same ledger.",
    ]


_FIXED_SEED = "no privacy: a fixed seed; with secret randomness, "
