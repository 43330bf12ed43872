"""The reference of a job's configuration: a schema for editors, a page for people."""

from __future__ import annotations

import inspect as documentation
import json
import re
from typing import Any

import msgspec
from msgspec import inspect

from dpkit.jobs.config import JobConfig, in_words, sections_of


def schema(kind: type[JobConfig], name: str) -> str:
    """The JSON Schema of a configuration.

    Example:
      >>> json.loads(schema(JobConfig, "toy"))["title"]
      'dpkit toy'
    """
    found = msgspec.json.schema(kind)
    for struct in found["$defs"].values():
        told = struct.get("description", "")
        struct["description"] = told.partition("\n\nExample")[0]
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**title, "title": f"dpkit {name}", **found}, indent=2) + "\n"


def markdown(kind: type[JobConfig], name: str) -> str:
    """The page of the reference: a table for each section.

    Example:
      >>> print(markdown(JobConfig, "toy").splitlines()[0])
      # The configuration of `dpkit toy`
    """
    lines = [
        f"# The configuration of `dpkit {name}`",
        "",
        f"Made by `dpkit schema {name} --markdown`. `dpkit schema {name} >"
        f" {name}.schema.json` gives the same",
        "to editors that complete TOML. Unknown keys, `inf` and `nan` are refused.",
    ]
    sections = sections_of(kind)
    for title in sorted(sections, key=lambda name: name in ("ledger", "test")):
        lines += _section(title, sections[title])
    return "\n".join(lines) + "\n"


def _section(title: str, struct: inspect.StructType) -> list[str]:
    """One section: what it is about, and its settings."""
    about = documentation.getdoc(struct.cls) or ""
    about = re.sub(r"^`\[\w+\]`: ", "", about.partition("\n\nExample")[0])
    about = about[:1].upper() + about[1:]
    rows = [_row(field) for field in struct.fields]
    head = ["", f"## `[{title}]`", "", about, "", "| setting | value | left out | |"]
    return [*head, "|---|---|---|---|", *rows]


def _row(field: inspect.Field) -> str:
    """One setting: its name, its values, its default, its meaning."""
    made = field.default_factory is not msgspec.NODEFAULT
    value = None if made else field.default
    default = "" if value is None else json.dumps(value, default=str)
    default = "required" if field.required else default and f"`{default}`"
    cells = (f"`{field.name}`", in_words(field.type), default, _meaning(field.type))
    return "| " + " | ".join(cells) + " |"


def _meaning(kind: Any) -> str:
    """What a setting's type says of it."""
    if not isinstance(kind, inspect.Metadata):
        return ""
    return str((kind.extra_json_schema or {}).get("description", ""))
