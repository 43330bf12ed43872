"""The guarantee in plain words, and numbers that are rounded to the safe side.

Every sentence here is a consequence of (epsilon, delta)-differential privacy as it is
defined: for each event S, P(S) <= exp(epsilon) Q(S) + delta, for the laws P and Q of
everything released on two neighbouring data sets.

Reference: Dwork, Roth, "The Algorithmic Foundations of Differential Privacy", 2014,
Definition 2.4; Kairouz, Oh, Viswanath, "The Composition Theorem for Differential
Privacy", 2015, arXiv:1311.0776, Theorem 2.1 (what a test can reach).
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
_SAMPLING = {
    "poisson": "in every step each {unit} enters the batch by its own coin toss",
    "full_batch": "every step uses every {unit}; nothing is gained from sampling",
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
    return _SHORT.get(relation, f"relation {relation}, {{unit}}").format(unit=unit)


def neighbours(relation: str, unit: str) -> str:
    """What makes two data sets neighbours under this relation.

    Example:
      >>> neighbours("replace_one", "user")
      'one user of the first is any other user in the second'
    """
    text = _DIFFER.get(relation, "they are neighbours under the relation {relation}")
    return text.format(unit=unit, relation=relation)


def sampling_in_words(result: Mapping[str, Any]) -> str:
    """How batches were drawn, as the accounting assumes it.

    Example:
      >>> sampling_in_words({"sampling": "full_batch", "unit": "user"})
      'every step uses every user; nothing is gained from sampling'
    """
    unit = result.get("unit", "example")
    scheme = str(result.get("sampling", "unknown"))
    text = _SAMPLING.get(scheme.removeprefix("truncated_"), f"sampling {scheme}")
    text = text.format(unit=unit)
    rate = as_float(result.get("sampling_rate"))
    if "poisson" in scheme and rate is not None:
        text += f" (probability {number(rate)})"
    limit = as_float(result.get("max_batch_size"))
    if "poisson" in scheme and limit is not None:
        text += (
            f"; were a draw larger than {limit:.0f}, a uniformly random part of that"
            " size would be used, and the accounting includes this"
        )
    return text


def most_recognised(epsilon: float, delta: float, false_positives: float) -> float:
    """The largest true positive rate of any test of membership, at most 1.

    min(e^eps x + delta, 1 - e^-eps (1 - delta - x)): the trade-off curve of
    (epsilon, delta), read at the false positive rate x.

    Args:
      epsilon: at least 0; may be infinite.
      delta: in [0, 1].
      false_positives: x in [0, 1].

    Returns:
      The bound, in [0, 1].

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

    Returns:
      The bound, in [0, 1].

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

    Returns:
      One line.

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


def headline(result: Mapping[str, Any]) -> str:
    """The guarantee in one line: epsilon, delta, relation, unit and its warrant.

    A number that is not certified carries the word "estimate".

    Example:
      >>> headline({"epsilon": 2.5, "certified": True, "delta": 1e-5, "unit": "user",
      ...           "relation": "add_remove", "accountant": "pld"})
      'epsilon ≤ 2.5 at delta = 1e-5, to add or remove one user (certified: pld)'
    """
    epsilon, delta = as_float(result["epsilon"]), float(result["delta"])
    relation = relation_in_short(str(result["relation"]), str(result["unit"]))
    seed = _FIXED_SEED if result.get("insecure_seed") else ""
    if epsilon is None or math.isinf(epsilon):
        return f"no privacy: epsilon is infinite, to {relation}"
    tail = f"at delta = {number(delta, side='up')}, to {relation}"
    if result.get("certified"):
        warrant = f"(certified: {result.get('accountant', 'unknown')})"
        return f"{seed}epsilon ≤ {number(epsilon, side='up')} {tail} {warrant}"
    return f"{seed}epsilon ≈ {number(epsilon)} (an estimate, not certified) {tail}"


def guarantee(result: Mapping[str, Any]) -> list[str]:
    """The guarantee as paragraphs that a reader without the mathematics can follow.

    Args:
      result: the run's result, as in result.json.

    Returns:
      Paragraphs of plain text, unescaped.

    Example:
      >>> words = guarantee({"epsilon": 1.0, "certified": True, "delta": 1e-5,
      ...   "unit": "example", "relation": "add_remove", "accountant": "pld"})
      >>> words[0]
      'Take any two data sets where one example is in one of them and missing from the
      other.'
    """
    epsilon, delta = as_float(result["epsilon"]), float(result["delta"])
    unit, relation = str(result["unit"]), str(result["relation"])
    if epsilon is None or math.isinf(epsilon):
        return ["This run gives no differential privacy: its epsilon is infinite."]
    return [
        f"Take any two data sets where {neighbours(relation, unit)}.",
        _ratio(result, epsilon, delta),
        _test(relation, unit, epsilon, delta),
        _released(result),
    ]


def not_covered(result: Mapping[str, Any]) -> list[str]:
    """What the guarantee does not speak about, one sentence an entry.

    Args:
      result: the run's result, as in result.json.

    Returns:
      Sentences of plain text, unescaped.

    Example:
      >>> rows = not_covered({"evaluation": "private", "unit": "example"})
      >>> any("search" in row for row in rows)
      True
    """
    unit = str(result.get("unit", "example"))
    rows = [
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
    if result.get("constant_time") is False:
        rows.insert(0, _TIMES)
    if result.get("evaluation") != "private":
        rows.insert(0, _EVALUATION)
    return rows


_FIXED_SEED = "no privacy: a fixed seed; with secret randomness, "
_TIMES = (
    "The times in the ledger: this run was allowed to take longer over larger batches"
    " (constant_time = false), so they tell how many records were drawn."
)
_EVALUATION = (
    "The evaluation rows: they were declared public, and everything computed on them"
    " (each accuracy here) is published without protection."
)


def _ratio(result: Mapping[str, Any], epsilon: float, delta: float) -> str:
    """The definition, in words."""
    certified = bool(result.get("certified"))
    warrant = (
        f"This is a certified upper bound, by {_warrant(result)}."
        if certified
        else "This epsilon is an estimate: no accountant has certified it."
    )
    odds = number(math.exp(min(epsilon, 700)), digits=3, side="up")
    shown = number(epsilon, side="up" if certified else "nearest")
    return (
        "Whatever one might look for in what was released, it is at most"
        f" exp(epsilon) = {odds} times as likely with one data set as with the other,"
        f" plus delta: epsilon = {shown}, delta = {number(delta, side='up')}. {warrant}"
    )


def _warrant(result: Mapping[str, Any]) -> str:
    """Who stands behind a certified number."""
    who = str(result["accountant"])
    return f"the {who}" if who.startswith("ledger") else f"the accountant {who}"


def _test(relation: str, unit: str, epsilon: float, delta: float) -> str:
    """What that means for a test of membership."""
    power = 100 * most_recognised(epsilon, delta, 0.01)
    question = {
        "add_remove": f"whether a given {unit} was in the data",
        "zero_out": f"whether a given {unit} was in the data or left empty",
    }.get(relation, f"which of two given {unit}s was in the data")
    return (
        f"So a test that decides {question}, and is wrong in 1 % of the cases where"
        f" the answer is no, is right in at most {number(power, side='up')} %"
        " of the cases where it is yes, whatever else its author knows."
    )


def _released(result: Mapping[str, Any]) -> str:
    """What the guarantee is about, and how the batches were drawn."""
    if "released" in result:
        return str(result["released"])
    text = (
        "It holds for the final parameters and for every intermediate one together:"
        " a reader may see them all. It rests on how batches were drawn: "
    )
    return text + sampling_in_words(result) + "."
