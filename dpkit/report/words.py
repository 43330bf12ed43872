"""Words and numbers of reports: rounded to the safe side, relations in plain English.

Reference: Kairouz, Oh, Viswanath, "The Composition Theorem for Differential Privacy",
2015, arXiv:1311.0776, Theorem 2.1 (what a test can reach).
"""

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from typing import Any

_DIFFER = {
    "add_remove": "one {unit} is in one of them and missing from the other",
    "replace_one": "one {unit} of the first is any other {unit} in the second",
    "zero_out": "one {unit} of the first is an empty record in the second",
}
_SHORT = {
    "add_remove": "add or remove one {unit}",
    "replace_one": "replace one {unit}",
    "zero_out": "zero out one {unit}",
}


def number(value: float, *, digits: int = 4, side: str = "nearest") -> str:
    """A number in at most `digits` significant digits, rounded to the side asked for.

    Args:
      value: the number; infinities are written as words.
      digits: significant digits, at least 1.
      side: "up" for an upper bound, "down" for a lower one, else "nearest".

    Returns:
      The text: plain between 1e-4 and 1e7, scientific outside.

    Example:
      >>> number(2.99941, side="up"), number(2.99941, side="down"), number(1e-5)
      ('3', '2.999', '1e-5')
    """
    if not math.isfinite(value):
        return {math.inf: "infinite", -math.inf: "minus infinity"}.get(value, "unknown")
    rounding = {"up": ROUND_CEILING, "down": ROUND_FLOOR}.get(side, ROUND_HALF_EVEN)
    rounded = Context(prec=digits, rounding=rounding).create_decimal(repr(value))
    if not rounded:
        return "0"
    if 1e-4 <= abs(rounded) < 1e7:
        text = f"{rounded:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = f"{rounded.normalize():e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def as_float(value: Any) -> float | None:
    """A number out of JSON, where infinity is a string; None where there is none.

    Example:
      >>> as_float("inf"), as_float(2), as_float(None)
      (inf, 2.0, None)
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(result) else result


def relation_in_short(relation: str, unit: str) -> str:
    """The relation as a few words for a heading.

    Example:
      >>> relation_in_short("add_remove", "example")
      'add or remove one example'
    """
    text = _SHORT.get(relation, f"relation {relation}, {{unit}}")
    return text.replace("{unit}", unit)


def neighbours(relation: str, unit: str) -> str:
    """What makes two data sets neighbours under this relation.

    Example:
      >>> neighbours("replace_one", "user")
      'one user of the first is any other user in the second'
    """
    text = _DIFFER.get(relation, f"they are neighbours under the relation {relation}")
    return text.replace("{unit}", unit)


def most_recognised(epsilon: float, delta: float, false_positives: float) -> float:
    """The largest true positive rate of any test of membership, at most 1.

    min(e^eps x + delta, 1 - e^-eps (1 - delta - x)): the trade-off curve of
    (epsilon, delta), read at the false positive rate x.

    Args:
      epsilon: at least 0; may be infinite.
      delta: in [0, 1].
      false_positives: x in [0, 1].

    Example:
      >>> round(most_recognised(1.0, 0.0, 0.01), 4)
      0.0272
    """
    if epsilon > 700:  # exp would overflow, and the bound says nothing long before
        return 1.0
    steep = math.exp(epsilon) * false_positives + delta
    flat = 1 - math.exp(-epsilon) * (1 - delta - false_positives)
    return max(0.0, min(1.0, steep, flat))


def largest_advantage(epsilon: float, delta: float) -> float:
    """The largest difference of true and false positive rates of any test.

    (e^eps - 1 + 2 delta) / (e^eps + 1): where the two lines of the trade-off curve of
    (epsilon, delta) meet.

    Args:
      epsilon: at least 0; may be infinite.
      delta: in [0, 1].

    Example:
      >>> largest_advantage(0.0, 0.25), round(largest_advantage(1.0, 0.0), 6)
      (0.25, 0.462117)
    """
    if epsilon > 700:
        return 1.0
    # Symmetric in form, so that nothing cancels at a small epsilon.
    return min(1.0, math.tanh(epsilon / 2) + 2 * delta / (math.exp(epsilon) + 1))


def event_in_words(event: Mapping[str, Any]) -> str:
    """An event as its kind and parameters; long lists are cut short.

    Args:
      event: as `dpkit.accountants.to_json` writes it.

    Example:
      >>> event_in_words({"kind": "repeat", "v": 1, "count": 3,
      ...                 "child": {"kind": "laplace", "v": 1, "scale": "2.0"}})
      '3 of laplace(scale 2.0)'
    """
    if event.get("kind") == "repeat":
        return f"{event['count']:,} of {event_in_words(event['child'])}"
    return in_short(event)


def in_short(value: Any) -> str:
    """A value out of JSON as text: events by kind and parameters, long lists cut.

    Example:
      >>> in_short([1, 2, 3, 4, 5])
      '[1, 2, 3, 4, … 5 in all]'
    """
    if isinstance(value, Mapping):
        if value.get("kind") == "repeat":
            return event_in_words(value)
        inside = [
            f"{name} {in_short(item)}"
            for name, item in value.items()
            if name not in ("kind", "v")
        ]
        return f"{value.get('kind', '')}({', '.join(inside)})"
    if isinstance(value, list):
        short = ", ".join(in_short(item) for item in value[:4])
        return f"[{short}]" if len(value) <= 4 else f"[{short}, … {len(value)} in all]"
    return str(value)
