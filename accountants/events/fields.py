"""One field of an event: how it is checked, and how JSON holds it.

Numbers that are physical parameters are written as the shortest decimal string that
reads back to the same float; counts and sizes are plain integers. On reading, plain
numbers are accepted too, as people write them in a config file.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation

REQUIRED = object()
_DECIMAL = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Field:
    """A field's check (a function of name and value) and its JSON form.

    `attribute` is where an event holds it, if not under its name in JSON.
    """

    check: Callable[[str, Any], Any]
    decimal: bool = False
    default: Any = REQUIRED
    attribute: str = ""

    def at(self, attribute: str) -> "Field":
        """The same field under another attribute."""
        return dataclasses.replace(self, attribute=attribute)

    def decode(self, name: str, given: Mapping[str, Any]) -> Any:
        """The checked value of a field of an event in JSON, or its default."""
        if name in given:
            value = given[name]
            return self.check(name, _parse(name, value) if self.decimal else value)
        if self.default is REQUIRED:
            raise ValueError(f"field {name} is missing")
        return self.default


def encode(value: Any) -> Any:
    """A checked value as JSON: floats become decimal strings, all else stays."""
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, Relation):
        return str(value)
    return repr(value) if isinstance(value, float) else value


def check_all(fields: Mapping[str, Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """All values, checked and coerced, under their names."""
    return {name: field.check(name, values[name]) for name, field in fields.items()}


def number(check: Callable[..., float], default: Any = REQUIRED) -> Field:
    """A physical parameter that `check` (a function of one keyword) accepts."""
    return Field(lambda name, value: check(**{name: value}), True, default)


def plain(check: Callable[..., Any]) -> Field:
    """What `check` (a function of one keyword) accepts, and JSON holds as it is."""
    return Field(lambda name, value: check(**{name: value}))


def count(minimum: int = 1) -> Field:
    """A count or a size of at least `minimum`."""
    return plain(functools.partial(checks.count, minimum))


def numbers(check: Callable[..., float]) -> Field:
    """A non-empty list of numbers that `check` accepts, kept as a tuple."""

    def check_list(name: str, value: Any) -> tuple[float, ...]:
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise TypeError(f"{name} must be a list of numbers, not {value!r}")
        if len(value) == 0:
            raise ValueError(f"{name} must not be empty")
        return tuple(check(**{f"{name}[{i}]": item}) for i, item in enumerate(value))

    return Field(check_list, decimal=True)


def _parse(name: str, value: Any) -> Any:
    """Decimal strings turned into floats, in lists as well."""
    if isinstance(value, list):
        return [_parse(f"{name}[{i}]", item) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    if value == "inf":
        return float("inf")
    if not _DECIMAL.fullmatch(value):
        raise ValueError(f"{name}={value!r} must be a decimal number")
    return float(value)
