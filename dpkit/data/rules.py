"""What every row of a table keeps, as is publicly known: rules of a schema.

| rule | holds |
|---|---|
| `{"forbid": {"sex": "M", "pregnant": "yes"}}` | not all of it is so at once |
| `{"require": "start <= end"}` | also <, >=, >, ==; where either is missing, it holds |
| `{"implies": {"if": {"age": 0}, "then": {"job": "no"}}}` | what follows from it |
| `{"together": ["start", "end"]}` | both are missing, or neither |

A moment before or at a date may be any time of that day. Rules shape what is made up;
a private record that breaks one is counted as it is. They are public knowledge: one
read off the table would be a release.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.data.schema import Datetime

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook

_MOST = 2**24  # cells of a rule
_DAY = 86400.0
_SIGNS = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_TRIES = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Forbidden:
    """Combinations of codes that no row may have.

    Args:
      columns: by number, growing.
      mask: bool, shaped by the columns' sizes; True where it is impossible.

    Example:
      >>> int(Forbidden((0, 1), np.eye(2, dtype=bool)).mask.sum())
      2
    """

    columns: tuple[int, ...]
    mask: np.ndarray


def compiled(book: Codebook) -> tuple[Forbidden, ...]:
    """The rules of a codebook's schema, one mask for each set of columns.

    Raises:
      ValueError: a rule that is none, of unknown columns or values, or that leaves a
        column without any value.
    """
    masks: dict[tuple[int, ...], np.ndarray] = {}
    for rule in book.schema.rules:
        for columns, mask in _masks(book, rule):
            sizes = [book.sizes[n] for n in columns]
            whole = masks.setdefault(columns, np.zeros(sizes, bool))
            whole |= mask
            if whole.all():
                names = ", ".join(book.names[n] for n in columns)
                raise ValueError(f"rules leave no value for {names}")
    return tuple(Forbidden(columns, mask) for columns, mask in masks.items())


def _masks(
    book: Codebook, rule: Mapping[str, Any]
) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """The masks of one rule."""
    if not isinstance(rule, Mapping) or len(rule) != 1:
        raise ValueError(f"rules has {rule!r}: needed one of {', '.join(_KINDS)}")
    ((kind, said),) = rule.items()
    if kind not in _KINDS:
        raise ValueError(f"rules has {kind!r}: needed one of {', '.join(_KINDS)}")
    try:
        return _KINDS[kind](book, said)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"rules: {dict(rule)!r} can't be read ({error})") from None


def _forbid(book: Codebook, said: Mapping[str, Any]) -> list[Any]:
    """All of some values at once."""
    return [_product(book, {name: _these(book, name, v) for name, v in said.items()})]


def _implies(book: Codebook, said: Mapping[str, Any]) -> list[Any]:
    """The one without the other; a missing value breaks nothing."""
    if set(said) != {"if", "then"}:
        raise ValueError(f"rules: implies needs if and then, not {sorted(said)}")
    given = {name: _these(book, name, v) for name, v in said["if"].items()}
    found = []
    for name, values in said["then"].items():
        others = ~_these(book, name, values)
        if book.schema.columns[name].nullable:
            others[-1] = False
        found.append(_product(book, given | {name: others & given.get(name, True)}))
    return found


def _together(book: Codebook, said: Sequence[str]) -> list[Any]:
    """One missing, and the other not."""
    first, second = said
    lost = []
    for name in (first, second):
        if not book.schema.columns[name].nullable:
            raise ValueError(f"rules: together needs nullable columns; {name!r} isn't")
        lost.append(_these(book, name, [None]))
    return [
        _product(book, {first: lost[0], second: ~lost[1]}),
        _product(book, {first: ~lost[0], second: lost[1]}),
    ]


def _require(book: Codebook, said: str) -> list[Any]:
    """Pairs of bins in which no two values stand as they should."""
    left, sign, right = parsed(book, said)
    (least, most), (low, high) = _ends(book, left), _ends(book, right)
    high = high + _of_day(book, left, right)
    most = most + _of_day(book, right, left)
    compare = _SIGNS[sign]
    if sign == "==":
        fits = (least[:, None] <= high) & (low <= most[:, None])
    elif sign in ("<=", "<"):
        fits = compare(least[:, None], high)
    else:
        fits = compare(most[:, None], low)
    lost = np.isnan(least)[:, None] | np.isnan(low)
    return [_turned(book, (left, right), ~(fits | lost))]


_KINDS = {
    "forbid": _forbid,
    "require": _require,
    "implies": _implies,
    "together": _together,
}


def parsed(book: Codebook, said: str) -> tuple[str, str, str]:
    """A comparison as left, sign, right; both ordered columns.

    Raises:
      ValueError: another text.
    """
    for sign in _SIGNS:
        left, found, right = (part.strip() for part in said.partition(sign))
        if not found:
            continue
        for name in (left, right):
            if name not in book.names or not book.ordered[book.names.index(name)]:
                raise ValueError(
                    f"rules: {said!r} needs columns of numbers or moments; {name!r} "
                    "is none"
                )
        if left == right:
            raise ValueError(f"rules: {said!r} needs two different columns")
        return left, sign, right
    raise ValueError(f"rules: require={said!r} must be such as 'start <= end'")


def _these(book: Codebook, name: str, values: Any) -> np.ndarray:
    """Which codes of a column are among values."""
    listed = values if isinstance(values, list | tuple) else [values]
    codes = [book.code(name, value) for value in listed]
    chosen = np.zeros(book.sizes[book.names.index(name)], bool)
    chosen[codes] = True
    return chosen


def _product(book: Codebook, chosen: Mapping[str, np.ndarray]) -> Any:
    """The mask in which all of some codes come together."""
    if math.prod(len(one) for one in chosen.values()) > _MOST:
        raise ValueError(f"rules: {', '.join(chosen)} have more than {_MOST} cells")
    mask = np.ones((), bool)
    for one in chosen.values():
        mask = mask[..., None] & one
    return _turned(book, tuple(chosen), mask)


def _turned(book: Codebook, names: tuple[str, ...], mask: np.ndarray) -> Any:
    """Columns by growing number, and the mask in their order."""
    numbers = [book.names.index(name) for name in names]
    order = np.argsort(numbers)
    return tuple(sorted(numbers)), mask.transpose(order)


def _ends(book: Codebook, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of each code; NaN for missing."""
    ranges = book.ranges(name)
    if book.schema.columns[name].nullable:
        ranges = np.concatenate([ranges, [[np.nan, np.nan]]])
    return ranges[:, 0], ranges[:, 1]


def _of_day(book: Codebook, moments: str, dates: str) -> float:
    """What a date on one side allows a moment on the other: the rest of its day."""
    column, other = book.schema.columns[dates], book.schema.columns[moments]
    if not isinstance(column, Datetime) or not isinstance(other, Datetime):
        return 0.0
    return _DAY - 1 if len(column.high) == 10 and len(other.high) > 10 else 0.0


def kept(
    book: Codebook,
    codes: np.ndarray,
    numbers: dict[str, np.ndarray],
    draw: Callable[[str, np.ndarray], np.ndarray],
) -> None:
    """Draws numbers again, inside their bins, until comparisons of columns hold.

    Args:
      book: public.
      codes: (n, d), which no rule forbids.
      numbers: values by column, changed in place.
      draw: of a column, numbers inside the bins of codes.
    """
    said = [rule["require"] for rule in book.schema.rules if "require" in rule]
    comparisons = [parsed(book, one) for one in said]
    for attempt in range(_TRIES if comparisons else 0):
        wrong = np.zeros(len(codes), bool)
        for left, sign, right in comparisons:
            wrong |= ~_holds(book, numbers, left, sign, right)
        if not wrong.any():
            return
        involved = set(itertools.chain(*((a, b) for a, _, b in comparisons)))
        for name in involved:
            at = codes[wrong, book.names.index(name)]
            numbers[name][wrong] = draw(name, at)
        if attempt == _TRIES - 2:
            for comparison in comparisons:
                _pushed(book, codes, numbers, wrong, comparison)
            return


def _holds(
    book: Codebook, numbers: Mapping[str, np.ndarray], left: str, sign: str, right: str
) -> np.ndarray:
    """Where a comparison holds, or either side is missing."""
    first, second = numbers[left], numbers[right]
    slack = _of_day(book, left, right) - _of_day(book, right, left)
    with np.errstate(invalid="ignore"):
        fine = _SIGNS[sign](first, second + slack)
    return fine | np.isnan(first) | np.isnan(second)


def _pushed(
    book: Codebook,
    codes: np.ndarray,
    numbers: dict[str, np.ndarray],
    wrong: np.ndarray,
    comparison: tuple[str, str, str],
) -> None:
    """The ends of bins at which a comparison holds, where no draw kept it."""
    left, sign, right = comparison
    wrong = wrong & ~_holds(book, numbers, left, sign, right)
    if not wrong.any():
        return
    low, high = (left, right) if sign in ("<=", "<", "==") else (right, left)
    least = _ends(book, low)[0][codes[wrong, book.names.index(low)]]
    most = _ends(book, high)[1][codes[wrong, book.names.index(high)]]
    if sign == "==":
        other = _ends(book, high)[0][codes[wrong, book.names.index(high)]]
        least = most = np.maximum(least, other)
    numbers[low][wrong], numbers[high][wrong] = least, most
