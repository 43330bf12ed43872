"""The page: facts of a run set as one HTML file, without scripts or anything remote.

Every text that comes from a run (names, configuration, versions) is escaped, and the
page forbids itself every connection by a content policy, so that a report can be
passed on and opened without care.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from dpkit.report.markup import document, listed, numbers, paragraphs, section, table
from dpkit.report.plots import curve
from dpkit.report.words import (
    as_float,
    guarantee,
    headline,
    not_covered,
    number,
    relation_in_short,
)

Result = Mapping[str, Any]
History = Sequence[Mapping[str, Any]]

_MOST_ROWS = 60


def render(result: Result, history: History, config_text: str) -> str:
    """The report of a run as one self-contained HTML page.

    Accuracies are shown only where the evaluation rows were declared public.

    Args:
      result: the run's facts, as in result.json. Needed: epsilon, certified, delta,
        relation, unit, accountant; whatever else is there is shown.
      history: one mapping an evaluation: step, epoch, epsilon, test_accuracy.
      config_text: the configuration as the user wrote it.

    Returns:
      The page. The same input gives the same text.

    Raises:
      KeyError: one of the needed facts is missing.

    Example:
      >>> facts = {"epsilon": 1.0, "certified": True, "delta": 1e-5, "unit": "example",
      ...          "relation": "add_remove", "accountant": "pld"}
      >>> render(facts, [], "").startswith("<!DOCTYPE html>")
      True
    """
    result = dict(result)
    if result.get("evaluation") == "private":
        result["test_accuracy"] = result["test_bits_per_character"] = None
        history = [{**row, "test_accuracy": None} for row in history]
    body = "\n".join(
        [
            _alarm(result),
            _header(result),
            _facts(result),
            _guarantee(result),
            _curves(result, history),
            _limits(result),
            _parameters(result),
            _evidence(result),
            section("Configuration", f"<pre>{escape(config_text)}</pre>"),
        ]
    )
    return document(_title(result), body)


def _title(result: Result) -> str:
    """What was trained on what."""
    model, dataset = result.get("model"), result.get("dataset")
    what = str(model) if model else "A model"
    return f"{what} trained on {dataset}" if dataset else f"{what}, trained privately"


def _alarm(result: Result) -> str:
    """What must be read first: a fixed seed, or no guarantee at all."""
    if result.get("insecure_seed"):
        return (
            '<div class="alarm" role="alert"><strong>Insecure seed: no privacy'
            "</strong><p>The noise of this run came from a fixed seed"
            " (<code>insecure_seed</code>), so whoever knows the seed can take it away."
            " Every statement below is about the same run with secret randomness."
            " Nothing from this run may be published as private.</p></div>"
        )
    if result.get("certified"):
        return ""
    return (
        '<div class="alarm" role="alert"><strong>Not certified</strong><p>No accountant'
        " has proven an upper bound for this run: its epsilon is infinite or an"
        " estimate.</p></div>"
    )


def _header(result: Result) -> str:
    """Title and date."""
    kind = "Privacy report"
    if result.get("insecure_seed"):
        kind += " of an insecure test run"
    return (
        f'<header>\n<p class="kicker">{kind}</p>\n<h1>{escape(_title(result))}</h1>\n'
        f'<p class="dateline">{escape(_dateline(result))}</p>\n</header>'
    )


def _dateline(result: Result) -> str:
    """When the run took place and how long it took, as far as that is known."""
    parts = []
    started, finished = result.get("started"), result.get("finished")
    if started:
        parts.append(f"started {_moment(str(started))}")
    if finished:
        parts.append(f"finished {_moment(str(finished))}")
    seconds = as_float(result.get("seconds"))
    if seconds is not None:
        parts.append(f"{_duration(seconds)} of work")
    return " · ".join(parts)


def _moment(text: str) -> str:
    """A time as people write it; a text that is no time stays as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment:%Y-%m-%d %H:%M}{zone}"


def _duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n} {name}" for n, name in parts if n) or "less than 1 s"


def _facts(result: Result) -> str:
    """The numbers that people look for first."""
    unit, relation = str(result["unit"]), str(result["relation"])
    rows = [
        ("epsilon", *_epsilon(result)),
        (
            "delta",
            number(float(result["delta"]), side="up"),
            "added to every probability",
        ),
        ("relation", relation, relation_in_short(relation, unit)),
    ]
    accuracy = as_float(result.get("test_accuracy"))
    if accuracy is not None:
        rows.insert(0, ("test accuracy", f"{100 * accuracy:.2f} %", "on public rows"))
    bits = as_float(result.get("test_bits_per_character"))
    if bits is not None:
        rows.insert(1, ("bits per character", f"{bits:.3f}", "on public rows"))
    return numbers(rows)


def _epsilon(result: Result) -> tuple[str, str]:
    """Epsilon as shown, and its warrant."""
    epsilon = as_float(result["epsilon"])
    if epsilon is None or math.isinf(epsilon):
        return "infinite", "no guarantee"
    if not result.get("certified"):
        return f"≈ {number(epsilon)}", "an estimate, not certified"
    warrant = f"certified upper bound ({result['accountant']})"
    if result.get("insecure_seed"):
        warrant = "had the noise been secret; it was not"
    return f"≤ {number(epsilon, side='up')}", warrant


def _guarantee(result: Result) -> str:
    """The guarantee in words, the headline first."""
    text = headline(result)
    for sign in "=≤≈":
        text = text.replace(f" {sign} ", f"\N{NO-BREAK SPACE}{sign}\N{NO-BREAK SPACE}")
    lead = f'<p class="lead">{escape(text[0].upper() + text[1:])}.</p>\n'
    title = "The guarantee"
    if result.get("insecure_seed"):
        title = "The guarantee that secret randomness would have given"
    return section(title, lead + paragraphs(guarantee(result)))


def _curves(result: Result, history: History) -> str:
    """Both curves, and their numbers as a table."""
    delta = number(float(result["delta"]), side="up")
    figures = [
        _figure(
            history,
            "epsilon",
            f"epsilon at delta = {delta}",
            f"Privacy spent: epsilon at delta = {delta} against steps, had the run"
            " stopped there. The whole run was charged before its first step.",
        )
    ]
    if result.get("evaluation") == "private":
        text = "Accuracies are left out: the evaluation rows were declared private."
        figures.append(f"<p>{text}</p>")
    else:
        figures.insert(
            0,
            _figure(
                history,
                "test_accuracy",
                "test accuracy",
                "Accuracy on the public evaluation rows against steps.",
                percent=True,
            ),
        )
    inside = f'<div class="curves">\n{"".join(figures)}\n</div>\n'
    return section("The run", inside + _history_table(history, delta))


def _figure(
    history: History, key: str, label: str, caption: str, *, percent: bool = False
) -> str:
    """One curve with its caption; nothing where the history has no such number."""
    points = [(float(row["step"]), as_float(row.get(key))) for row in history]
    known = [(x, y) for x, y in points if y is not None]
    if not known:
        return ""
    (first, low), (last, high) = known[0], known[-1]
    form = _percent if percent else _upper
    note = (
        f"Curve of {label} against steps: from {form(low)} at step {first:,.0f} to"
        f" {form(high)} at step {last:,.0f}. The numbers are in the table below."
    )
    drawing = curve(
        known, name=key.replace("_", ""), label=label, note=note, percent=percent
    )
    return (
        f"<figure>\n{drawing}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"
    )


def _upper(value: float) -> str:
    """An upper bound, never shown below itself."""
    return number(value, side="up")


def _history_table(history: History, delta: str) -> str:
    """The numbers behind the curves; a long run is thinned, ends kept."""
    if not history:
        return ""
    every = -(-len(history) // _MOST_ROWS)
    rows = list(history[::every])
    if rows[-1] is not history[-1]:
        rows.append(history[-1])
    columns: dict[str, Callable[[float], str]] = {
        "step": lambda value: f"{value:,.0f}",
        "epoch": number,
        "epsilon": _upper,
        "test_accuracy": _percent,
    }
    used = {k: v for k, v in columns.items() if any(_has(row, k) for row in rows)}
    names = {"epsilon": f"epsilon at delta = {delta}", "test_accuracy": "test accuracy"}
    head = "".join(f'<th scope="col">{names.get(k, k)}</th>' for k in used)
    lines = "\n".join(
        "<tr>" + "".join(_cell(row, key, form) for key, form in used.items()) + "</tr>"
        for row in rows
    )
    return (
        "<details><summary>The numbers behind the curves</summary>\n"
        f'<div class="scroll"><table class="right"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div></details>"
    )


def _has(row: Mapping[str, Any], key: str) -> bool:
    """Whether the row knows this number."""
    return as_float(row.get(key)) is not None


def _cell(row: Mapping[str, Any], key: str, form: Callable[[float], str]) -> str:
    """One cell of the history; empty where the number is not known."""
    value = as_float(row.get(key))
    return f"<td>{'' if value is None else escape(form(value))}</td>"


def _percent(value: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.2f} %"


def _limits(result: Result) -> str:
    """What the guarantee leaves open."""
    return section("What is not covered", listed(not_covered(result)))


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
    "parameters": "parameters of the model",
    "microbatch_size": "microbatch size",
    "devices": "devices",
    "seconds": "seconds of work",
}


def _parameters(result: Result) -> str:
    """Everything that enters the accounting, and the rest that was chosen."""
    rows = [(label, _settled(result.get(key))) for key, label in _PARAMETERS.items()]
    return section("Parameters", table((k, v) for k, v in rows if v is not None))


def _settled(value: Any) -> Any:
    """A setting; one that follows a schedule, in words."""
    if not isinstance(value, list | tuple):
        return value
    return ", then ".join(f"{number(x)} for {steps:,} steps" for steps, x in value)


def _evidence(result: Result) -> str:
    """What ties the page to the ledger, the parameters and the code."""
    text = (
        "<p>The ledger was charged for the whole run before its first step. Its"
        " entries are chained by hashes: <code>dpkit ledger verify</code> finds an"
        " entry that was edited or cut off, and a ledger that was rewritten as a whole"
        " has another head than this one.</p>\n"
    )
    hashes = {
        "ledger_head": "ledger head",
        "run_id": "run",
        "params_sha256": "parameters, SHA-256",
        "config_sha256": "configuration, SHA-256",
    }
    rows = [(name, result[key]) for key, name in hashes.items() if result.get(key)]
    versions = result.get("versions") or {}
    rows += [(f"version of {name}", value) for name, value in versions.items()]
    return section("Evidence", text + table(rows))
