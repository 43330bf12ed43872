"""A training run in a few numbers, expanded into the events that it releases.

Each rule here is a known trap. With B the expected batch size and N the most records,
the sampling rate is B / N; the number of steps is ceil(epochs · N / B), which is not
epochs · ceil(N / B); and how batches are drawn has no default: shuffled batches must
not be accounted as Poisson sampling, whose epsilon is smaller.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

_KEYS = (
    "max_records",
    "expected_batch_size",
    "epochs",
    "steps",
    "noise_multiplier",
    "sampling",
    "max_batch_size",
    "clip_norm",
    "max_examples_per_unit",
)
# Words of other tools for the same numbers; they are read too.
_ALSO = {
    "max_records": "dataset_size",
    "expected_batch_size": "batch_size",
    "max_batch_size": "max_batch",
}
_REFUSED = ("shuffle", "shuffled", "cyclic", "balls_in_bins")
_SCHEMES = ("poisson", "truncated_poisson", "fixed_size", "fixed_batches", "full_batch")
_WORDS = {
    "poisson": "every {unit} enters every batch by its own coin toss",
    "truncated_poisson": "every {unit} enters every batch by its own coin toss; of a"
    " draw larger than max_batch_size a uniformly random part is used; max_records is"
    " a public upper bound",
    "fixed_size": "every batch is a uniformly random subset of fixed size",
    "fixed_batches": "every pass uses every {unit} once, in batches that don't depend"
    " on the data; nothing is gained from sampling",
    "full_batch": "every step uses every {unit}; nothing is gained from sampling",
}


def expand(
    data: Mapping[str, Any], relation: str
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The events of a DP-SGD run, and what they assume.

    Args:
      data: max_records (or dataset_size); expected_batch_size (or batch_size); epochs
        or steps; noise_multiplier (noise standard deviation over the clip norm, before
        any division by the batch size); sampling: "poisson", "truncated_poisson" (with
        max_batch_size), "fixed_size" (or "wor"), "fixed_batches" or "full_batch";
        perhaps clip_norm, which does not enter, and max_examples_per_unit (poisson,
        add_remove or zero_out): how many examples, clipped one by one, a unit can have.
      relation: "add_remove", "replace_one" or "zero_out".

    Returns:
      Events as JSON, each with its count, and the assumptions, one sentence each.

    Raises:
      ValueError: a missing, unknown or bad value.
      UnsupportedRelation: fixed batches under add_remove.

    Example:
      >>> run = {"max_records": 60000, "expected_batch_size": 256, "epochs": 15,
      ...        "noise_multiplier": 1.1, "sampling": "poisson"}
      >>> expand(run, "add_remove")[0][0]["count"]
      3516
    """
    from dpkit.accountants.answers import checks

    if not isinstance(data, Mapping):
        raise ValueError("dpsgd must be a table of names and values")
    for name in data:
        if name not in _KEYS and name not in _ALSO.values():
            raise ValueError(f"dpsgd: unknown key {name!r}; known: {', '.join(_KEYS)}")
    size = _whole(data, "max_records")
    batch = _whole(data, "expected_batch_size")
    if batch > size:
        words = _word(data, "expected_batch_size"), _word(data, "max_records")
        raise ValueError(f"{words[0]}={batch} is more than {words[1]}={size}")
    for name in ("noise_multiplier", "sampling"):
        if name not in data:
            raise ValueError(f"dpsgd: {name} is missing; it has no default")
    if "clip_norm" in data:
        checks.positive(clip_norm=data["clip_norm"])
    scheme = _scheme(data)
    noise = checks.positive(noise_multiplier=data["noise_multiplier"])
    run = _Run(data, relation, size, batch, _steps(data, size, batch))
    item = {"noise_multiplier": noise, "count": run.steps} | getattr(run, scheme)()
    return [item], run.assumed(scheme)


class _Run:
    """The parts of the shorthand, checked; one method for each way to sample."""

    def __init__(
        self, data: Mapping[str, Any], relation: str, size: int, batch: int, steps: int
    ):
        self.data = data
        self.relation = relation
        self.size = size
        self.batch = batch
        self.steps = steps
        self.rate = batch / size

    def poisson(self) -> dict[str, Any]:
        """Independent coin tosses; several examples a unit are a mixture of shifts."""
        from dpkit.accountants.answers import checks

        if "max_examples_per_unit" not in self.data:
            return {"kind": "poisson_gaussian", "sampling_rate": self.rate}
        most = checks.integer_at_least(
            1, max_examples_per_unit=self.data["max_examples_per_unit"]
        )
        shifts, chances = _shifts(most, self.rate)
        return {"kind": "mixture_gaussian", "shifts": shifts, "probabilities": chances}

    def truncated_poisson(self) -> dict[str, Any]:
        """Coin tosses with a largest batch; one as large as the data never cuts."""
        most = _whole(self.data, "max_batch_size", at_least=self.batch)
        if most >= self.size:
            return self.poisson()
        return {
            "kind": "truncated_poisson_gaussian",
            "sampling_rate": self.rate,
            "dataset_size": self.size,
            "max_batch_size": most,
        }

    def fixed_size(self) -> dict[str, Any]:
        """Random subsets of a fixed size."""
        return {
            "kind": "wor_gaussian",
            "batch_size": self.batch,
            "dataset_size": self.size,
        }

    def fixed_batches(self) -> dict[str, Any]:
        """One full use of the data a pass, as parallel composition of its batches.

        Adding a record would move the batches, so it is not covered. A last batch may
        be short or dropped: so a pass has at least floor(N / B) steps.
        """
        from dpkit.accountants import UnsupportedRelation

        if str(self.relation) == "add_remove":
            raise UnsupportedRelation(
                "dpsgd", self.relation, "fixed_batches", ["zero_out", "replace_one"]
            )
        if "epochs" in self.data:
            passes = math.ceil(_epochs(self.data))
        else:
            passes = -(-self.steps // (self.size // self.batch))
        return {"kind": "gaussian", "count": passes}

    def full_batch(self) -> dict[str, Any]:
        """All of the data in every step."""
        if self.batch != self.size:
            raise ValueError(
                f"expected_batch_size={self.batch}: with sampling full_batch it must be"
                f" max_records={self.size}"
            )
        return {"kind": "gaussian"}

    def assumed(self, scheme: str) -> tuple[str, ...]:
        """What the events take for granted."""
        several = self.data.get("max_examples_per_unit")
        rows = [_WORDS[scheme].format(unit="record")]
        if several is not None:
            rows.append(
                f"no unit has more than {several} examples, each clipped by itself"
            )
        rows.append(
            "each example's contribution is clipped by itself; noise_multiplier is the"
            " noise over the clip norm, before any division by the batch size"
        )
        return tuple(rows)


def _word(data: Mapping[str, Any], name: str) -> str:
    """The word under which a number is given: its own, or the one of other tools."""
    other = _ALSO[name]
    if name in data and other in data:
        raise ValueError(
            f"dpsgd: {name} and {other} are two words for one number: give one"
        )
    return other if other in data else name


def _whole(data: Mapping[str, Any], name: str, *, at_least: int = 1) -> int:
    """A whole number that must be given, under either of its words."""
    from dpkit.accountants.answers import checks

    word = _word(data, name)
    if word not in data:
        raise ValueError(
            f"dpsgd: {name} is missing; it has no default ({_ALSO[name]} is read too)"
        )
    return checks.integer_at_least(at_least, **{word: data[word]})


def _scheme(data: Mapping[str, Any]) -> str:
    """How batches are drawn; options of other schemes are refused."""
    scheme = "fixed_size" if data["sampling"] == "wor" else data["sampling"]
    if scheme in _REFUSED:
        raise ValueError(
            f"sampling={scheme!r} must not be accounted as Poisson sampling, whose"
            " epsilon is smaller; batches in a fixed or shuffled order are"
            " fixed_batches, random allocation is an event of its own"
        )
    if scheme not in _SCHEMES:
        raise ValueError(f"sampling={scheme!r} must be one of {', '.join(_SCHEMES)}")
    for name, needed in (
        (_word(data, "max_batch_size"), "truncated_poisson"),
        ("max_examples_per_unit", "poisson"),
    ):
        if name in data and scheme != needed:
            raise ValueError(f"{name}: it goes with sampling {needed} alone")
    return scheme


def _steps(data: Mapping[str, Any], size: int, batch: int) -> int:
    """The number of updates, from steps or from epochs."""
    from dpkit.accountants.answers import checks

    if ("epochs" in data) == ("steps" in data):
        raise ValueError("dpsgd: give either epochs or steps, and not both")
    if "steps" in data:
        return checks.integer_at_least(1, steps=data["steps"])
    return math.ceil(_epochs(data) * size / batch)


def _epochs(data: Mapping[str, Any]) -> Fraction:
    """The passes over the data: the decimal number that was written, exactly."""
    from dpkit.accountants.answers import checks

    return Fraction(repr(checks.positive(epochs=data["epochs"])))


def _shifts(most: int, rate: float) -> tuple[list[float], list[float]]:
    """How many of a unit's examples are drawn: binomial, each count a shift."""
    from scipy import stats

    counts = range(most + 1)
    chances = [float(stats.binom.pmf(count, most, rate)) for count in counts]
    kept = [(float(n), p) for n, p in zip(counts, chances, strict=True) if p > 0]
    # What was rounded away goes to the largest shift: never too little.
    kept[-1] = (kept[-1][0], kept[-1][1] + max(0.0, 1.0 - math.fsum(chances)))
    return [n for n, _ in kept], [p for _, p in kept]
