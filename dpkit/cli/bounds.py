"""Bounds as facts to print: an uncertified number is always called an estimate."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.accountants import DeltaBound, PrivacyBound


def bound_in_words(bound: "PrivacyBound") -> list[tuple[str, str | None]]:
    """A bound on epsilon as facts to print.

    Example:
      >>> from dpkit.accountants import PrivacyBound
      >>> bound = PrivacyBound(delta=1e-5, upper=2.0, certified=True,
      ...   method_upper="pld", relation="add_remove", unit="example")
      >>> bound_in_words(bound)[0]
      ('epsilon', '≤ 2, certified upper bound (pld)')
    """
    from dpkit.report.guarantee import stated
    from dpkit.report.words import number

    return [
        ("epsilon", stated(bound)),
        ("at least", number(bound.lower, side="down") if bound.lower else None),
        ("delta", number(bound.delta, side="up")),
        *_rest(bound),
    ]


def delta_in_words(bound: "DeltaBound") -> list[tuple[str, str | None]]:
    """A bound on delta as facts to print.

    Example:
      >>> from dpkit.accountants import DeltaBound
      >>> bound = DeltaBound(epsilon=1.0, upper=2e-6, certified=True,
      ...   method_upper="pld", relation="add_remove", unit="example")
      >>> delta_in_words(bound)[0]
      ('delta', '≤ 2e-6, certified upper bound (pld)')
    """
    from dpkit.report.guarantee import stated
    from dpkit.report.words import number

    return [
        ("delta", stated(bound)),
        ("at least", number(bound.lower, side="down") if bound.lower else None),
        ("epsilon", number(bound.epsilon, side="up")),
        *_rest(bound),
    ]


def refuse_uncertified(certified: bool) -> None:
    """Raise NotCertified where what was printed is an estimate.

    Example:
      >>> refuse_uncertified(True)
    """
    from dpkit.accountants import NotCertified

    if not certified:
        raise NotCertified(
            "no accountant certifies an epsilon for this run: what was printed is an"
            " estimate"
        )


def _rest(bound: Any) -> list[tuple[str, str | None]]:
    """What every bound says besides its numbers."""
    return [
        ("relation", str(bound.relation)),
        ("unit", bound.unit),
        ("regime", bound.regime),
        *(("warning", text) for text in bound.warnings),
    ]
