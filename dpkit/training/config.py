"""The configuration of a training run, as a user writes it in TOML.

Everything here is public. Unknown keys are refused, so that a typing error can't
silently leave a default in force; what bears on the guarantee has no default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.accountants.events import as_relation

# The words, without what they stand for: reading a configuration loads no arrays.
SAMPLINGS = ("poisson", "balls_in_bins", "cyclic", "fixed_size", "full_batch")
CLIPPINGS = ("flat", "unit", "auto_s", "psac", "hard_drop")
NOISES = ("independent", "banded", "square_root", "buffered")
MODES = ("auto", "vmap", "two_pass", "microbatch")
# A number for so many steps, then the next: [[steps, value], ...].
Schedule = tuple[tuple[int, float], ...]
_SHUFFLES = ("shuffle", "shuffled", "fixed_batches", "sequential")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSection:
    """`[data]`: which data set, and whether its held-out rows are public.

    To name a data set here is to ask for it: it is fetched unless that is forbidden.
    """

    name: str
    evaluation: str
    max_records: int | None = None
    allow_download: bool = True

    def __post_init__(self) -> None:
        """Refuses an undeclared evaluation split."""
        _one_of("data.evaluation", self.evaluation, ("public", "private"))
        if self.max_records is not None:
            checks.integer_at_least(1, max_records=self.max_records)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSection:
    """`[model]`: which network; `hidden` gives an mlp's widths.

    A decoder's are those of `dpkit.models.Decoder`. With `lora_rank` only adapters of
    that rank are trained, around a frozen base: the parameters in the .npz file `base`,
    or else random ones. Without, training starts from `base`. The base must be public.
    """

    name: str
    hidden: tuple[int, ...] | None = None
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    context: int | None = None
    tied: bool | None = None
    lora_rank: int | None = None
    base: str | None = None
    scan: bool | None = None
    remat: bool | None = None
    init_seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and settings of another network."""
        for name in ("layers", "width", "heads", "context", "lora_rank"):
            value = getattr(self, name)
            if value is not None:
                checks.integer_at_least(1, **{name: value})
        for name in self.decoder:
            if self.name != "decoder":
                self._refuse_setting(name, "decoder")
        if self.hidden is not None and self.name == "decoder":
            self._refuse_setting("hidden", "mlp")
        if not 0 <= self.init_seed < 2**32:
            raise ValueError(f"init_seed={self.init_seed} must be in [0, 2**32)")

    @property
    def decoder(self) -> dict[str, Any]:
        """The settings of a decoder that are given."""
        others = ("name", "hidden", "init_seed")
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in others
        }
        return {name: value for name, value in given.items() if value is not None}

    def _refuse_setting(self, setting: str, owner: str) -> None:
        """Refuses a setting that the network doesn't have."""
        value = getattr(self, setting)
        shown = list(value) if isinstance(value, tuple) else value
        raise ValueError(
            f"{setting}={shown!r} is a setting of {owner!r}, but "
            f"model.name={self.name!r}: leave one of them out"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacySection:
    """`[privacy]`: the guarantee, by a target epsilon or by the noise.

    `clipping` says which function of the norm bounds a gradient, `clip_quantile` lets
    the clip norm follow the norms, `noise` whether noise is correlated over steps.
    `clip_norm` and `noise_multiplier` may follow a schedule.
    """

    delta: float
    relation: str
    unit: str
    sampling: str
    clip_norm: float | Schedule
    epsilon: float | None = None
    noise_multiplier: float | Schedule | None = None
    max_batch_size: int | None = None
    allow_large_delta: bool = False
    clipping: str = "flat"
    clip_quantile: float | None = None
    rows_per_unit: int | None = None
    bins: int | None = None
    noise: str = "independent"
    generator: str = "threefry"
    bands: int | None = None

    def __post_init__(self) -> None:
        """Refuses what has no guarantee."""
        as_relation(self.relation)
        checks.open_probability(delta=self.delta)
        _positive(clip_norm=self.clip_norm)
        if self.sampling in _SHUFFLES:
            raise ValueError(
                f"privacy.sampling={self.sampling!r}: shuffled or fixed batches have "
                "no Poisson guarantee and none is claimed for them; use 'poisson', or "
                "'balls_in_bins' for one pass an epoch"
            )
        _one_of("privacy.sampling", self.sampling, SAMPLINGS)
        _one_of("privacy.clipping", self.clipping, CLIPPINGS)
        _one_of("privacy.noise", self.noise, NOISES)
        _one_of("privacy.generator", self.generator, ("threefry", "chacha20"))
        _exactly_one(
            "privacy", epsilon=self.epsilon, noise_multiplier=self.noise_multiplier
        )
        if (self.unit == "example") != (self.rows_per_unit is None):
            raise ValueError(
                f"unit={self.unit!r} with rows_per_unit={self.rows_per_unit!r}: say "
                "how many rows of a unit count at most, unless each row is a unit"
            )
        for name in ("max_batch_size", "bins", "bands", "rows_per_unit"):
            if getattr(self, name) is not None:
                checks.integer_at_least(1, **{name: getattr(self, name)})
        if self.clip_quantile is not None:
            checks.open_probability(clip_quantile=self.clip_quantile)
            if self.clipping != "flat":
                raise ValueError(
                    f"clip_quantile={self.clip_quantile!r} is a setting of 'flat', but "
                    f"privacy.clipping={self.clipping!r}: leave one of them out"
                )
        if self.epsilon is not None:
            checks.positive(epsilon=self.epsilon)
        if self.noise_multiplier is not None:
            _positive(noise_multiplier=self.noise_multiplier)
        if self.clipping != "flat" and isinstance(self.clip_norm, tuple):
            raise ValueError(
                f"clip_norm={_listed(self.clip_norm)} follows a schedule, which only "
                f"'flat' can, but privacy.clipping={self.clipping!r}: give one number"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSection:
    """`[training]`: how long, how large the batches, and the optimiser.

    `expected_batch_size` may follow a schedule; `steps` are then those of all pieces.
    It may be left out where the sampling tells it: a full batch, or `privacy.bins`.
    """

    learning_rate: float
    expected_batch_size: int | Schedule | None = None
    epochs: float | None = None
    steps: int | None = None
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    average_decay: float | None = None
    evaluate_every: int | None = None
    mode: str = "auto"
    microbatch_size: int | None = None
    devices: int | None = None
    constant_time: bool = True

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        size = self.expected_batch_size
        for _, number in size if isinstance(size, tuple) else ((1, size),):
            if number is not None:
                checks.integer_at_least(1, expected_batch_size=number)
        checks.positive(learning_rate=self.learning_rate)
        checks.half_open_probability(momentum=self.momentum)
        checks.non_negative(weight_decay=self.weight_decay)
        _one_of("training.optimizer", self.optimizer, ("sgd", "adam", "adamw"))
        _one_of("training.mode", self.mode, MODES)
        _one_of("training.schedule", self.schedule, ("constant", "cosine"))
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(
                f"momentum={self.momentum!r} is a setting of 'sgd', but "
                f"training.optimizer={self.optimizer!r}: leave one of them out"
            )
        _exactly_one("training", epochs=self.epochs, steps=self.steps)
        if self.epochs is not None:
            checks.positive(epochs=self.epochs)
        for name in ("steps", "evaluate_every", "microbatch_size", "devices"):
            value = getattr(self, name)
            if value is not None:
                checks.integer_at_least(1, **{name: value})
        if self.average_decay is not None:
            checks.open_probability(average_decay=self.average_decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestSection:
    """`[test]`: fixes the secret roots. For tests alone: it voids the guarantee."""

    __test__ = False

    insecure_seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A checked configuration and the text that it was read from.

    Example:
      >>> load_config("[data]\\nnam = 'mnist'")
      Traceback (most recent call last):
        ...
      ValueError: data.nam is not known: did you mean 'name'?
    """

    data: DataSection
    model: ModelSection
    privacy: PrivacySection
    training: TrainingSection
    test: TestSection | None = None
    text: str = dataclasses.field(default="", compare=False, repr=False)

    @property
    def sha256(self) -> str:
        """A digest of the values, whatever comments and spacing surround them."""
        values = dataclasses.asdict(self)
        del values["text"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def load_config(source: str | Path) -> Config:
    """Reads a configuration from a file, or from TOML text.

    Args:
      source: a path, or text that has a line break.

    Raises:
      ValueError: one line that names the key, its value and what is allowed.

    Example:
      >>> load_config("[data]\\nname = 'digits'\\nevaluation = 'open'")
      Traceback (most recent call last):
        ...
      ValueError: data.evaluation='open' is not known: use public or private
    """
    text = _text(source)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"the configuration is not TOML: {error}") from None
    sections: dict[str, Any] = {"text": text}
    known = {f.name: f for f in dataclasses.fields(Config) if f.name != "text"}
    hints = typing.get_type_hints(Config)
    for name in table:
        if name not in known:
            raise ValueError(_unknown(name, known))
    for name, field in known.items():
        if name in table:
            sections[name] = _section(_plain(hints[name]), name, table[name])
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"[{name}] is missing from the configuration")
    return Config(**sections)


def _text(source: str | Path) -> str:
    """The TOML text."""
    if isinstance(source, str) and "\n" in source:
        return source
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"can't read the configuration {source}: {reason}") from None


def _section(kind: Any, name: str, table: Any) -> Any:
    """One section as its dataclass, every key known and of its type."""
    if not isinstance(table, dict):
        raise ValueError(f"{name}={table!r} must be a section, [{name}]")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    values = {}
    for key, value in table.items():
        if key not in fields:
            raise ValueError(_unknown(f"{name}.{key}", fields))
        values[key] = _typed(f"{name}.{key}", value, hints[key])
    for key, field in fields.items():
        if key not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"{name}.{key} is missing from the configuration")
    with naming(name):
        return kind(**values)


@contextlib.contextmanager
def naming(*sections: str) -> Iterator[None]:
    """Completes an error about `key=value` to one about `section.key=value`.

    Args:
      sections: where the key may stand; the first that has it is named.

    Raises:
      ValueError, TypeError: what the block raised, if of exactly these kinds, with the
        section in front; subclasses, on which callers branch, pass unchanged.

    Example:
      >>> with naming("training"):
      ...     raise ValueError("steps=0 must be at least 1")
      Traceback (most recent call last):
        ...
      ValueError: training.steps=0 must be at least 1
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        key = re.match(r"(\w+)=", str(error))
        hints = typing.get_type_hints(Config)
        for section in sections:
            known = {field.name for field in dataclasses.fields(_plain(hints[section]))}
            if key and key[1] in known and type(error) in (ValueError, TypeError):
                raise type(error)(f"{section}.{error}") from None
        raise


def _typed(name: str, value: Any, hint: Any) -> Any:
    """A value of the declared type; whole numbers may stand for real ones."""
    kind = _plain(hint)
    if isinstance(value, list) and _may_change(hint):
        return _schedule(name, value, kind)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{name}={value!r} must be a list of whole numbers")
        for n in value:
            checks.integer_at_least(1, **{name: n})
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        words = {str: "text", int: "a whole number", float: "a number"}
        wanted = words.get(kind, "true or false")
        if _may_change(hint):
            wanted += ", or pieces [[steps, value], ...]"
        raise ValueError(f"{name}={value!r} must be {wanted}")
    return value


def _may_change(hint: Any) -> bool:
    """Whether a schedule may stand for the number."""
    return Schedule in typing.get_args(hint)


def _schedule(name: str, pieces: list[Any], kind: Any) -> Schedule:
    """Pieces of whole numbers of steps and numbers of a kind."""
    found = []
    for piece in pieces:
        if not isinstance(piece, list) or len(piece) != 2:
            raise ValueError(f"{name}={pieces!r} must be pieces [[steps, value], ...]")
        steps = checks.integer_at_least(1, **{f"{name} steps": piece[0]})
        found.append((steps, _typed(name, piece[1], kind)))
    if not found:
        raise ValueError(f"{name}=[] must have at least one piece [steps, value]")
    return tuple(found)


def _positive(**settings: Any) -> None:
    """Refuses numbers that are not positive and finite, in schedules too."""
    for name, value in settings.items():
        pieces = value if isinstance(value, tuple) else ((1, value),)
        for _, number in pieces:
            checks.positive(**{name: number})


def _listed(schedule: Schedule) -> list[list[float]]:
    """A schedule as it is written in TOML."""
    return [list(piece) for piece in schedule]


def _plain(hint: Any) -> Any:
    """X, of X, of `X | None` or of `X | Schedule`."""
    if isinstance(hint, types.UnionType):
        return next(a for a in typing.get_args(hint) if a is not types.NoneType)
    return hint


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuses a word that is not on the list."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known: use {' or '.join(allowed)}")


def _exactly_one(section: str, **given: Any) -> None:
    """Refuses both or neither of two settings."""
    (first, value), (second, other) = given.items()
    if value is not None and other is not None:
        raise ValueError(
            f"{section}.{first}={value!r} and {section}.{second}={other!r}: give "
            "exactly one of the two"
        )
    if value is None and other is None:
        raise ValueError(
            f"{section}.{first} and {section}.{second} are both missing from the "
            "configuration: give exactly one of the two"
        )


def _unknown(name: str, known: dict[str, Any]) -> str:
    """What to say of a key that doesn't exist."""
    guess = difflib.get_close_matches(name.rpartition(".")[2], known, n=1)
    hint = f"did you mean {guess[0]!r}?" if guess else f"known: {', '.join(known)}"
    return f"{name} is not known: {hint}"
