"""Configurations, as users write them in TOML and jobs declare them as structs.

A job declares a struct with a section a field (`JobConfig`), and each section declares
its settings, their types, limits and meaning (`Settings`). The rest follows from that:
reading, one clear line for each mistake, the schema for editors and the page of the
reference. Everything in a configuration is public. Unknown keys are refused, so that a
typing error can't silently leave a default in force.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta, inspect

from dpkit.accountants.answers import checks

Positive = Annotated[float, Meta(gt=0)]
Whole = Annotated[int, Meta(ge=1)]
Chance = Annotated[float, Meta(gt=0, lt=1)]
# A number for so many steps, then the next: [[steps, value], ...].
Pieces = tuple[tuple[Whole, Positive], ...]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of a configuration.

    Attributes:
      INSTEAD: what to say of a key, or of a `key=value`, that people try.

    Example:
      >>> class Look(Settings, frozen=True, kw_only=True):
      ...     bins: Whole
      >>> Look(bins=3).bins
      3
    """

    INSTEAD: ClassVar[Mapping[str, str]] = {}


class Share(Settings, frozen=True, kw_only=True):
    """The part of a ledger's budget that one run may take.

    Example:
      >>> Share(epsilon=1.0, delta=1e-6).epsilon
      1.0
    """

    epsilon: Annotated[Positive, Meta(description="The most that the run may cost.")]
    delta: Annotated[
        float, Meta(ge=0, lt=1, description="The delta at which it is counted.")
    ]


class LedgerSection(Settings, frozen=True, kw_only=True):
    """`[ledger]`: a ledger that several runs share. Left out, the run makes its own.

    Example:
      >>> LedgerSection(url="team.db").share is None
      True
    """

    url: Annotated[
        str | None,
        Meta(
            description="A file, or postgresql://USER@HOST/DATABASE?ledger=NAME; the "
            "password belongs into PGPASSWORD or a password file. `--ledger` does the "
            "same."
        ),
    ] = None
    label: Annotated[
        str | None,
        Meta(description="What the ledger calls the entries of this run."),
    ] = None
    author: Annotated[
        str | None,
        Meta(description="Who charges, in free text, for whoever reads the ledger."),
    ] = None
    share: Annotated[
        Share | None,
        Meta(
            description="The run's part of the ledger's budget; left out, all that it "
            "asks for."
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuses a password, which would be copied into the run's folder."""
        if self.url is not None and re.search(r"://[^/@]*:[^/]*@", self.url):
            raise ValueError(
                "url holds a password, and a configuration is shown to others: put it "
                "into PGPASSWORD or a password file"
            )
        for name in ("url", "label", "author"):
            if getattr(self, name) is not None:
                checks.text(**{name: getattr(self, name)})


class TestSection(Settings, frozen=True, kw_only=True):
    """`[test]`: fixes the secret roots. For tests alone: it voids the guarantee."""

    __test__ = False

    insecure_seed: Annotated[int, Meta(description="Anybody can take the noise away.")]


class JobConfig(Settings, frozen=True, kw_only=True, dict=True):
    """What the configurations of all jobs have in common.

    Example:
      >>> JobConfig().ledger is None
      True
    """

    ledger: LedgerSection | None = None
    test: TestSection | None = None

    @property
    def share(self) -> Share | None:
        """The run's part of a shared ledger, if it says so."""
        return None if self.ledger is None else self.ledger.share

    @property
    def folder(self) -> Path:
        """Where its file is, from which relative paths in it are meant."""
        return self.__dict__.get("folder") or Path()

    @property
    def text(self) -> str:
        """What was read, or else the values as TOML."""
        return self.__dict__.get("text") or to_toml(msgspec.to_builtins(self))

    @property
    def sha256(self) -> str:
        """A digest of the values, whatever comments and spacing surround them.

        How the ledger is reached, and by whom, is no part of it: its identity is
        checked itself.
        """
        values = msgspec.to_builtins(self)
        if values["ledger"] is not None:
            del values["ledger"]["url"], values["ledger"]["author"]
            if not any(values["ledger"].values()):
                values["ledger"] = None
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


C = TypeVar("C", bound=JobConfig)


def load(
    kind: type[C],
    source: str | Path,
    changes: Sequence[str] = (),
    *,
    folder: Path | None = None,
) -> C:
    """Reads a configuration from a file, or from TOML text.

    Args:
      kind: the job's struct.
      source: a path, or text that has a line break.
      changes: settings in the place of the text's, `section.key=value` each, the value
        as in TOML; quotes around text may be left out.
      folder: from where paths in text are meant; None: the working directory.

    Raises:
      ValueError: one line that names the key, its value and what is allowed.

    Example:
      >>> load(JobConfig, "[test]\\ninsecure_sed = 1")
      Traceback (most recent call last):
        ...
      ValueError: test.insecure_sed is not known: did you mean 'insecure_seed'?
    """
    text = _text(source)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"the configuration is not TOML: {error}") from None
    for change in changes:
        _set(table, change)
    config = _converted(kind, table)
    config.__dict__["text"] = to_toml(table) if changes else text
    config.__dict__["folder"] = Path(source).parent if text is not source else folder
    return config


def checked(config: C) -> C:
    """The configuration, after the checks that reading one makes; for one made by hand.

    Raises:
      ValueError: as for `load`.

    Example:
      >>> checked(JobConfig()) == JobConfig()
      True
    """
    again = _converted(type(config), msgspec.to_builtins(config))
    again.__dict__.update(config.__dict__)
    return again


def to_toml(values: Mapping[str, Any]) -> str:
    """Values as TOML; None is left out.

    Example:
      >>> to_toml({"a": {"b": [1, 2.0], "c": {"d": "x"}, "e": None}})
      '[a]\\nb = [1, 2.0]\\nc = { d = "x" }\\n'
    """
    given = [(k, v) for k, v in values.items() if not isinstance(v, Mapping)]
    lines = [f"{_key(k)} = {_toml(v)}" for k, v in given if v is not None]
    for name, table in values.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(name)}]"] if lines else [f"[{_key(name)}]"]
            inside = ((k, v) for k, v in table.items() if v is not None)
            lines += [f"{_key(k)} = {_toml(v)}" for k, v in inside]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def naming(kind: type[JobConfig], *sections: str) -> Iterator[None]:
    """Completes an error about `key=value` to one about `section.key=value`.

    Args:
      kind: the job's struct.
      sections: where the key may stand; the first that has it is named.

    Raises:
      ValueError, TypeError: what the block raised, if of exactly these kinds, with the
        section in front; subclasses, on which callers branch, pass unchanged.

    Example:
      >>> with naming(JobConfig, "test"):
      ...     raise ValueError("insecure_seed=0 is no seed")
      Traceback (most recent call last):
        ...
      ValueError: test.insecure_seed=0 is no seed
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        key = re.match(r"(\w+)([=.:]| is missing)", str(error))
        known = sections_of(kind)
        for section in sections:
            names = {field.name for field in known[section].fields}
            if key and key[1] in names and type(error) in (ValueError, TypeError):
                raise type(error)(f"{section}.{error}") from None
        raise


def one_of_two(**given: Any) -> None:
    """Refuses both or neither of two settings.

    Example:
      >>> one_of_two(epochs=None, steps=2)
    """
    (first, value), (second, other) = given.items()
    if (value is None) != (other is None):
        return
    state = f"{first}={value!r} and {second}={other!r}"
    if value is None:
        state = f"{first} and {second} are both missing from the configuration"
    raise ValueError(f"{state}: give exactly one of the two")


def sections_of(kind: type[JobConfig]) -> dict[str, inspect.StructType]:
    """The sections of a configuration by name, with their settings.

    Example:
      >>> list(sections_of(JobConfig))
      ['ledger', 'test']
    """
    return {
        field.name: _struct(field.type)
        for field in _struct(inspect.type_info(kind)).fields
    }


def in_words(kind: inspect.Type) -> str:
    """What values a setting takes.

    Example:
      >>> in_words(inspect.type_info(Whole))
      'a whole number of at least 1'
    """
    match kind:
        case inspect.Metadata():
            return in_words(kind.type)
        case inspect.UnionType():
            kinds = [k for k in kind.types if not isinstance(k, inspect.NoneType)]
            return ", or ".join(map(in_words, kinds))
        case inspect.LiteralType():
            return " or ".join(map(str, kind.values))
        case inspect.IntType() | inspect.FloatType():
            return _number_in_words(kind)
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType():
            return "text"
        case inspect.VarTupleType(item_type=inspect.TupleType(item_types=(first, _))):
            steps = isinstance(first, inspect.IntType)
            return (
                f"{'pieces [[steps, value]' if steps else 'pairs [[low, high]'}, ...]"
            )
        case inspect.TupleType():
            return (
                f"{len(kind.item_types)} of them, each {in_words(kind.item_types[0])}"
            )
        case inspect.DictType():
            return "a table, { name = … }"
        case inspect.VarTupleType():
            return f"a list, of which each is {in_words(kind.item_type)}"
        case inspect.StructType():
            return "{ " + ", ".join(field.name for field in kind.fields) + " }"
    return "as in the reference"


def _number_in_words(kind: inspect.IntType | inspect.FloatType) -> str:
    """A number's limits."""
    noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    low = kind.gt if kind.ge is None else kind.ge
    high = kind.lt if kind.le is None else kind.le
    if low is not None and high is not None:
        left, right = "(" if kind.ge is None else "[", ")" if kind.le is None else "]"
        return f"{noun} in {left}{low}, {high}{right}"
    if kind.gt is not None:
        return f"{noun} above {kind.gt}"
    return noun if kind.ge is None else f"{noun} of at least {kind.ge}"


def _text(source: str | Path) -> str:
    """The TOML text."""
    if isinstance(source, str) and "\n" in source:
        return source
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"can't read the configuration {source}: {reason}") from None


def _set(table: dict[str, Any], change: str) -> None:
    """Puts one `section.key=value` into the table."""
    name, sign, text = change.partition("=")
    *path, key = name.strip().split(".")
    if not sign or not path:
        raise ValueError(f"set={change!r} must be section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ValueError(f"set={change!r}: {part} is no section")
    table[key] = value


def _converted(kind: type[C], table: dict[str, Any]) -> C:
    """The table as the struct, or one line about the first mistake."""
    _refuse_endless(table, "")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_explained(kind, table, error)) from None


def _refuse_endless(value: Any, name: str) -> None:
    """No setting may be infinite, or no number."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_endless(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_endless(inner, name)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value!r} must be finite")


def _explained(kind: type[JobConfig], table: Any, error: Exception) -> str:
    """What to say of a table that doesn't convert."""
    text, _, at = str(error).partition(" - at `$.")
    value, names = table, []
    owner, wanted = None, inspect.type_info(kind)
    for part in re.findall(r"\w+", at):
        value = value[int(part) if part.isdigit() else part]
        if not part.isdigit():
            names.append(part)
            owner = _struct(wanted)
            wanted = next(f.type for f in owner.fields if f.name == part)
    name = ".".join(names)
    if error.__cause__ is not None:  # by a check of our own, in __post_init__
        return f"{name}.{error.__cause__}" if name else str(error.__cause__)
    quoted = re.search(r"field `(\w+)`", text)
    if quoted:
        return _about_key(_struct(wanted), name, quoted[1], "unknown" in text)
    if isinstance(_plain(wanted), inspect.StructType):
        return f"{name}={_shown(value)} must be a section, [{name}]"
    hint = owner and _instead(owner).get(f"{names[-1]}={value}")
    if hint:
        return f"{name}={value!r}: {hint}"
    if isinstance(_plain(wanted), inspect.LiteralType) and isinstance(value, str):
        return f"{name}={_shown(value)} is not known: use {in_words(wanted)}"
    return f"{name}={_shown(value)} must be {in_words(wanted)}"


def _about_key(struct: inspect.StructType, name: str, key: str, unknown: bool) -> str:
    """What to say of a key that doesn't exist, or is missing."""
    whole = f"{name}.{key}" if name else key
    if unknown:
        return f"{whole} is not known: {_guess(struct, key)}"
    kind = next(field.type for field in struct.fields if field.name == key)
    if isinstance(_plain(kind), inspect.StructType) and not name:
        return f"[{key}] is missing from the configuration"
    return f"{whole} is missing from the configuration: it must be {in_words(kind)}"


def _guess(struct: inspect.StructType, key: str) -> str:
    """What was meant by an unknown key, out of the section's own."""
    names = [field.name for field in struct.fields]
    meant = _instead(struct).get(key)
    near = [meant] if meant else difflib.get_close_matches(key, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def _plain(kind: inspect.Type) -> inspect.Type:
    """X, of X, of `X | None` and of a described X."""
    if isinstance(kind, inspect.Metadata):
        return _plain(kind.type)
    if isinstance(kind, inspect.UnionType):
        kinds = [k for k in kind.types if not isinstance(k, inspect.NoneType)]
        return _plain(kinds[0]) if len(kinds) == 1 else kind
    return kind


def _struct(kind: inspect.Type) -> inspect.StructType:
    """The section that a type stands for."""
    plain = _plain(kind)
    if not isinstance(plain, inspect.StructType):
        raise TypeError(f"a configuration is made of sections, not of {kind}")
    return plain


def _instead(struct: inspect.StructType) -> Mapping[str, str]:
    """What a section says of keys that people try."""
    return getattr(struct.cls, "INSTEAD", {})


def _shown(value: Any) -> str:
    """A value in a message; a URL may hold a password, and is not repeated."""
    text = repr(value)
    return "…" if "://" in text else text if len(text) <= 80 else f"{text[:79]}…"


def _key(name: str) -> str:
    """A key as TOML, in quotes if it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    """One value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, Mapping):
        given = ((k, v) for k, v in value.items() if v is not None)
        inside = ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in given)
        return f"{{ {inside} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
