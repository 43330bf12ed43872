"""The card of a trained model: Markdown, headed by the block that model hubs read.

Made of what is released alone: result.json, the layout of the rows, the report's words.
A name out of a configuration or a schema stays text wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dpkit.data.layout import CODES, NUMBERS, Layout
from dpkit.jobs.result import NO_CLAIM, guarantee
from dpkit.report import not_covered
from dpkit.report.guarantee import KNOWN_SEED, Guarantee
from dpkit.report.sections import Table
from dpkit.report.words import as_float
from dpkit.training.report import SCORES

Result = Mapping[str, Any]

_TASKS = (
    "image-classification",
    "tabular-classification",
    "tabular-regression",
    "text-classification",
    "text-generation",
)
_SCORES = [*SCORES, "bits_per_character"]
_NO_PRIVACY = f"**{KNOWN_SEED}.** What follows would hold had the noise been secret."
_LOAD = """```python
import dpkit

run = dpkit.load_run("the folder of this file"{factory})
run.predict("new.csv")  # a table, or arrays by name; run.params has the parameters
```"""
_FACTORY = (
    "The model is made by a function that is not in this folder; nothing of a folder is"
    " run. Give the function itself, or module:function as you know it."
)


def card(result: Result, said: Mapping[str, Any], layout: Layout) -> str:
    """The card of a run.

    Args:
      result: as in result.json.
      said: what the report says of the run: `dpkit.training.report.told`.
      layout: of the rows.

    Returns:
      The text of README.md. The same input gives the same text.

    Example:
      >>> from dpkit.training.report import told
      >>> result = {"epsilon": 1.5, "certified": True, "delta": 1e-5, "unit": "user",
      ...           "relation": "add_remove", "accountant": "pld", "model": "mlp",
      ...           "dataset": "toy 1", "evaluation": "public", "test_accuracy": 0.5}
      >>> text = card(result, told(result, []), Layout.images((8, 8, 1), 10, 16.0))
      >>> text.splitlines()[1:3], "**Epsilon ≤ 1.5 at delta" in text
      (['library_name: "dpkit"', 'pipeline_tag: "image-classification"'], True)
    """
    claimed = guarantee(result, said["released"])
    unit = str(result.get("unit", "example"))
    parts = [
        "---\n" + "".join(_yaml(_metadata(result, said, claimed, layout))) + "---",
        f"# {_plain(said['title'])}",
        *_guaranteed(result, claimed),
        "## What is not covered",
        _points(not_covered(unit, *said["not_covered"])),
        "## How to load it",
        *_loading(result),
    ]
    for section in said["sections"]:
        tables = [part for part in section.parts if isinstance(part, Table)]
        parts += [f"## {section.title}", *map(_table, tables)] if tables else []
    return "\n\n".join(parts) + "\n"


def _metadata(
    result: Result, said: Mapping[str, Any], claimed: Guarantee | None, layout: Layout
) -> dict[str, Any]:
    """What a hub reads; a tag of privacy only where there is a certified guarantee."""
    holds = claimed and claimed.certified and claimed.finite and not claimed.insecure
    task, title = _task(layout), str(said["title"])
    told: dict[str, Any] = {"library_name": "dpkit"}
    if task is not None:
        told["pipeline_tag"] = task
    told["tags"] = ["dpkit", "jax", *(["differential-privacy"] if holds else [])]
    scores = [
        {"type": name, "value": value}
        for name in _SCORES
        if (value := as_float(result.get(f"test_{name}"))) is not None
    ]
    if scores and task is not None and result.get("evaluation") == "public":
        name = str(result["dataset"])
        found = {
            "task": {"type": task},
            "dataset": {"type": name, "name": name},
            "metrics": scores,
        }
        told["model-index"] = [{"name": title, "results": [found]}]
    return told


def _task(layout: Layout) -> str | None:
    """What hubs call that which the model does; None where they have no word."""
    kinds = {
        "tabular"
        if name in (NUMBERS, CODES)
        else "image"
        if name in layout.scales
        else "text"
        if name in layout.symbols
        else "array"
        for name in layout.inputs
    }
    does = "classification" if layout.classes else "regression"
    if layout.target is None:
        does = "generation"
    task = f"{kinds.pop()}-{does}" if len(kinds) == 1 else ""
    return task if task in _TASKS else None


def _guaranteed(result: Result, claimed: Guarantee | None) -> Iterator[str]:
    """The guarantee in words, and what it can be checked against."""
    if claimed is None:
        yield from ("## No claim about privacy", NO_CLAIM)
        return
    if claimed.insecure:
        yield _NO_PRIVACY
    yield "## The guarantee"
    yield f"**{_plain(claimed.headline[0].upper() + claimed.headline[1:])}.**"
    yield from map(_plain, claimed.sentences())
    shown = {
        "certified": "yes" if claimed.certified else "no",
        "accountant": claimed.method,
        "data set": result.get("dataset"),
        "ledger": result.get("ledger"),
        "ledger head": result.get("ledger_head"),
        "run": result.get("run_id"),
        "parameters, SHA-256": result.get("params_sha256"),
    }
    known = [(name, value) for name, value in shown.items() if value is not None]
    yield _table(Table([*claimed.facts(), *known]))


def _loading(result: Result) -> Iterator[str]:
    """How to load the model."""
    factory = result.get("factory")
    given = "" if factory is None else ', factory="module:function"'
    yield _LOAD.replace("{factory}", given)
    if factory is not None:
        yield f"{_FACTORY} In the configuration it was called {_plain(str(factory))}."
    yield (
        "`params.npz` and `params.safetensors` hold the same parameters, by names"
        ' joined by "/"; `dpkit.load_params` nests them as Flax\'s own `apply` takes'
        " them. Using the model costs no privacy of those it was trained on; rows that"
        " are predicted have no protection by it."
    )


def _points(texts: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {_plain(text)}" for text in texts)


def _table(table: Table) -> str:
    """A table of names and values, or with heads."""
    heads = table.heads or ("", "")
    rows = [heads, ["---"] * len(heads), *([_cell(x) for x in r] for r in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Any) -> str:
    """One cell."""
    return _plain(f"{value:.8g}" if isinstance(value, float) else str(value))


def _plain(text: str) -> str:
    """A text on one line in which nothing is Markdown or HTML."""
    joined = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"([\\`*_\[\]<>&|~#$]|:(?=//))", r"\\\1", " ".join(joined.split()))


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Nested dicts and lists of texts and numbers as lines of YAML."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, Mapping | Sequence) and not isinstance(inner, str):
                yield f"{indent}{name}:\n"
                yield from _yaml(inner, f"{indent}  ")
            else:
                yield f"{indent}{name}: {_scalar(inner)}\n"
        return
    for item in value:
        if isinstance(item, str):
            yield f"{indent}- {_scalar(item)}\n"
            continue
        lines = "".join(_yaml(item, f"{indent}  "))
        yield f"{indent}- {lines[len(indent) + 2 :]}"


def _scalar(value: str | float) -> str:
    """A number, or a text in quotes, as every reader of YAML takes it."""
    if not isinstance(value, str):
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    safe = (c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped)
    return f'"{"".join(safe)}"'
