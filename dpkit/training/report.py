"""The report of a training run: what is its own, set in the frame of every report."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dpkit.report.plots import Axes, Line
from dpkit.report.sections import Figure, Folded, Part, Section, Table, Text
from dpkit.report.words import as_float, number

Result = Mapping[str, Any]
History = Sequence[Mapping[str, Any]]

_MOST_ROWS = 60
_SAMPLING = {
    "poisson": "in every step each {unit} enters the batch by its own coin toss",
    "full_batch": "every step uses every {unit}; nothing is gained from sampling",
}
_TIMES = (
    "The times in the ledger: this run was allowed to take longer over larger batches"
    " (constant_time = false), so they tell how many records were drawn."
)
_EVALUATION = (
    "The evaluation rows: they were declared public, and everything computed on them"
    " (each accuracy here) is published without protection."
)


def told(result: Result, history: History) -> dict[str, Any]:
    """What a run tells the frame of reports, as fields of an `Outcome`.

    Accuracies are shown only where the evaluation rows were declared public.

    Args:
      result: the run's facts, as in result.json; those that are there are shown.
      history: one mapping an evaluation: step, epoch, epsilon, test_accuracy or
        test_rmse.

    Example:
      >>> told({"delta": 1e-5, "model": "mlp", "dataset": "toy 1"}, [])["title"]
      'mlp trained on toy 1'
    """
    own = [_EVALUATION] if _scored_in_public(result) else []
    if result.get("constant_time") is False:
        own.append(_TIMES)
    return {
        "title": _title(result),
        "sections": sections(result, history),
        "shown": _scores(result),
        "released": (
            "It holds for the final parameters and for every intermediate one together:"
            " a reader may see them all. It rests on how batches were drawn: "
            f"{sampling_in_words(result)}."
        ),
        "not_covered": own,
    }


def sections(result: Result, history: History) -> list[Section]:
    """What a run adds to the frame: its curves and its parameters.

    Example:
      >>> facts = {"delta": 1e-5, "steps": 10}
      >>> [section.title for section in sections(facts, [])]
      ['The run', 'Parameters']
    """
    rows = [(label, _settled(result.get(key))) for key, label in _PARAMETERS.items()]
    parameters = Table([(name, value) for name, value in rows if value is not None])
    return [
        Section("The run", *_curves(result, history)),
        Section("Parameters", parameters),
    ]


def sampling_in_words(result: Result) -> str:
    """How batches were drawn, as the accounting assumes it.

    Example:
      >>> sampling_in_words({"sampling": "full_batch", "unit": "user"})
      'every step uses every user; nothing is gained from sampling'
    """
    unit = result.get("unit", "example")
    scheme = str(result.get("sampling", "unknown"))
    text = _SAMPLING.get(scheme.removeprefix("truncated_"), f"sampling {scheme}")
    text = text.replace("{unit}", str(unit))
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


def _title(result: Result) -> str:
    """What was trained on what."""
    model, dataset = result.get("model"), result.get("dataset")
    what = str(model) if model else "A model"
    return f"{what} trained on {dataset}" if dataset else f"{what}, trained privately"


def _scores(result: Result) -> list[tuple[str, str, str]]:
    """What the model can do, on public rows alone."""
    if not _scored_in_public(result):
        return []
    rows = []
    for name, (words, form, _) in SCORES.items():
        score = as_float(result.get(f"test_{name}"))
        if score is not None:
            rows.append((f"test {words}", form(score), "on public rows"))
    bits = as_float(result.get("test_bits_per_character"))
    if bits is not None:
        rows.append(("bits per character", f"{bits:.3f}", "on public rows"))
    return rows


def _scored_in_public(result: Result) -> bool:
    """Whether the evaluation rows were declared public."""
    return result.get("evaluation") == "public"


def _curves(result: Result, history: History) -> list[Part]:
    """Both curves, and their numbers as a table."""
    delta = number(float(result["delta"]), side="up")
    epsilon = _figure(
        history,
        "epsilon",
        f"epsilon at delta = {delta}",
        f"Privacy spent: epsilon at delta = {delta} against steps, had the run"
        " stopped there. The whole run was charged before its first step.",
    )
    if result.get("evaluation") == "none":
        return [*epsilon, Text("No rows were scored on."), *_numbers(history, delta)]
    if not _scored_in_public(result):
        declared = result.get("evaluation") or "nothing"
        text = f"Accuracies are left out: the evaluation rows were declared {declared}."
        hidden = {f"test_{name}": None for name in SCORES}
        history = [{**row, **hidden} for row in history]
        return [*epsilon, Text(text), *_numbers(history, delta)]
    curves = [
        figure
        for name, (words, _, percent) in SCORES.items()
        for figure in _figure(
            history,
            f"test_{name}",
            f"test {words}",
            f"{words.capitalize()} on the public evaluation rows against steps.",
            percent=percent,
        )
    ]
    return [*curves, *epsilon, *_numbers(history, delta)]


def _figure(
    history: History, key: str, label: str, caption: str, *, percent: bool = False
) -> list[Figure]:
    """One curve with its caption; none where the history has no such number."""
    points = [(float(row["step"]), as_float(row.get(key))) for row in history]
    known = [(x, y) for x, y in points if y is not None]
    if not known:
        return []
    (first, low), (last, high) = known[0], known[-1]
    form = _percent if percent else _upper if key == "epsilon" else number
    note = (
        f"Curve of {label} against steps: from {form(low)} at step {first:,.0f} to"
        f" {form(high)} at step {last:,.0f}. The numbers are in the table below."
    )
    axes = Axes("step", label, percent=percent, from_zero=True)
    return [Figure((Line("", known),), axes, caption, note)]


def _numbers(history: History, delta: str) -> list[Folded]:
    """The numbers behind the curves; a long run is thinned, ends kept."""
    if not history:
        return []
    every = -(-len(history) // _MOST_ROWS)
    rows = list(history[::every])
    if rows[-1] is not history[-1]:
        rows.append(history[-1])
    columns: dict[str, Callable[[float], str]] = {
        "step": lambda value: f"{value:,.0f}",
        "epoch": number,
        "epsilon": _upper,
        **{f"test_{name}": form for name, (_, form, _) in SCORES.items()},
    }
    names = {"epsilon": f"epsilon at delta = {delta}"}
    names |= {f"test_{name}": f"test {words}" for name, (words, *_) in SCORES.items()}
    used = [
        key
        for key in columns
        if any(as_float(row.get(key)) is not None for row in rows)
    ]
    cells = [[_cell(row.get(key), columns[key]) for key in used] for row in rows]
    table = Table(cells, [names.get(key, key) for key in used], right=True)
    return [Folded("The numbers behind the curves", table)]


def _cell(value: Any, form: Callable[[float], str]) -> str:
    """One cell of the history; empty where the number is not known."""
    known = as_float(value)
    return "" if known is None else form(known)


def _upper(value: float) -> str:
    """An upper bound, never shown below itself."""
    return number(value, side="up")


def _percent(value: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.2f} %"


# By the name of a score: its words, its form, and whether it is a share.
SCORES: dict[str, tuple[str, Callable[[float], str], bool]] = {
    "accuracy": ("accuracy", _percent, True),
    "rmse": ("root mean square error", number, False),
}


def score_in_words(name: str, value: float) -> str:
    """A score as people read it.

    Example:
      >>> score_in_words("accuracy", 0.5), score_in_words("rmse", 1.25)
      ('50.00 %', '1.25')
    """
    return SCORES[name][1](value)


_PARAMETERS = {
    "noise_multiplier": "noise multiplier",
    "clip_norm": "clip norm",
    "sampling": "sampling",
    "sampling_rate": "sampling rate",
    "steps": "steps",
    "expected_batch_size": "expected batch size",
    "max_batch_size": "largest batch",
    "max_records": "most records (a public bound)",
    "unit": "privacy unit",
    "relation": "relation",
    "accountant": "accountant",
    "evaluation": "evaluation rows",
    "dataset": "data set",
    "model": "model",
    "factory_sha256": "file of the model's factory, SHA-256",
    "schema_sha256": "schema, SHA-256",
    "parameters": "parameters of the model",
    "microbatch_size": "microbatch size",
    "devices": "devices",
    "seconds": "seconds of work",
}


def _settled(value: Any) -> Any:
    """A setting; one that follows a schedule, in words."""
    if not isinstance(value, list | tuple):
        return value
    return ", then ".join(f"{number(x)} for {steps:,} steps" for steps, x in value)
