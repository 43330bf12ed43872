"""How every experiment runs: its files, its ledgers, its table and its plot.

An experiment is a module experiments/NAME.py that meets `Experiment`. A run writes
NAME.json (configuration, seeds, versions, device, wall time, ledgers, metrics), and
from that file alone NAME.md and NAME.png; ledgers stand beside them. A run that fails
leaves what an earlier one wrote.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import json
import os
import re
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dpkit.accountants import Ledger

FOLDER = Path(__file__).parent
_SEEDED = "an experiment: its noise is from fixed seeds and protects nobody"


class Preset(enum.StrEnum):
    """How long a run takes."""

    smoke = "smoke"
    quick = "quick"
    paper = "paper"


class Experiment(Protocol):
    """What a module gives; its docstring says the claim, the source, what is compared.

    Attributes:
      PRESETS: "smoke" (seconds), "quick" (minutes; the figures we quote) and "paper"
        (the source's setting), each a frozen dataclass; its seeds are a field `seeds`.
    """

    PRESETS: dict[str, Any]

    def run(self, config: Any, ledgers: Ledgers) -> dict[str, Any]:
        """Metrics as JSON values; what spends a budget opens it by `ledgers.open`."""
        ...

    def table(self, document: dict[str, Any]) -> str:
        """The source's claim beside ours in Markdown, from what NAME.json holds."""
        ...

    def plot(self, document: dict[str, Any], figure: Any) -> None:
        """Draws what NAME.json holds on a Matplotlib figure."""
        ...


class Ledgers:
    """The ledgers of one run, each a file beside its results."""

    def __init__(self, name: str, folder: Path):
        """Nothing is on disk before `open`."""
        self._name, self._folder = name, folder
        self._open: dict[str, Ledger] = {}

    def open(self, part: str = "", **terms: Any) -> Ledger:
        """A new ledger, NAME.ledger.db or NAME.PART.ledger.db.

        Args:
          part: of the experiment, where it has several budgets.
          terms: those of `Ledger.open`.
        """
        from dpkit.accountants import Ledger

        file = ".".join(filter(None, (self._name, part, "ledger.db")))
        ledger = self._open[file] = Ledger.open(self._folder / file, **terms)
        ledger.note(_SEEDED)
        return ledger

    def close(self) -> list[dict[str, Any]]:
        """Closes all; what each has spent."""
        told = []
        for file, ledger in self._open.items():
            terms = {"file": file, "unit": ledger.unit, "dataset": ledger.dataset}
            spent = {"head": ledger.head, "spent": ledger.spent().to_json()}
            told.append(terms | spent)
            ledger.close()
        return told


def names() -> dict[str, str]:
    """Every experiment with the first line of its docstring; none is imported.

    Example:
      >>> names()["edgeworth"]
      'How much noise the Edgeworth accountant saves, as published and with a proof.'
    """
    texts = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.py"))}
    return {
        name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        for name, text in texts.items()
        if re.search(r"^PRESETS\b.*\{", text, re.MULTILINE)
    }


def load(name: str) -> Any:
    """The module of an experiment."""
    return importlib.import_module(f"experiments.{name}")


def run(name: str, experiment: Experiment, preset: str, out: Path) -> str:
    """Runs an experiment and writes its files into the folder `out`.

    Returns:
      The page.
    """
    config = experiment.PRESETS[preset]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=out) as folder:
        fresh = Path(folder)
        document = {
            "schema_version": 1,
            "experiment": name,
            "preset": preset,
            "config": dataclasses.asdict(config),
            "seeds": getattr(config, "seeds", ()),
            **_machine(),
            **_measured(experiment, config, Ledgers(name, fresh)),
        }
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        (fresh / f"{name}.json").write_text(text)
        page = show(name, experiment, fresh)
        for stale in out.glob(f"{name}.*ledger.db"):
            stale.unlink()
        for path in fresh.iterdir():
            path.replace(out / path.name)
    return page


def _measured(experiment: Experiment, config: Any, ledgers: Ledgers) -> dict[str, Any]:
    """Metrics, wall time, and what the ledgers say."""
    begun = time.perf_counter()
    try:
        metrics = experiment.run(config, ledgers)
        seconds = round(time.perf_counter() - begun, 2)
    finally:
        spent = ledgers.close()
    return {"wall_seconds": seconds, "ledgers": spent, "metrics": metrics}


def _machine() -> dict[str, Any]:
    """What ran it."""
    import jax

    from dpkit.jobs.session import versions

    more = {name: metadata.version(name) for name in ("scipy", "dp-accounting")}
    kind = jax.devices()[0].device_kind
    return {
        "device": f"{jax.device_count()} x {kind}, {os.cpu_count()} cores",
        "versions": versions() | more,
    }


def show(name: str, experiment: Experiment, out: Path) -> str:
    """Writes the page and the plot again, from NAME.json alone.

    Returns:
      The page.
    """
    from matplotlib.figure import Figure

    document = json.loads((out / f"{name}.json").read_text())
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    experiment.plot(document, figure)
    figure.savefig(out / f"{name}.png", dpi=120, metadata={"Software": None})
    page = _page(document, experiment)
    (out / f"{name}.md").write_text(page)
    return page


def _page(document: dict[str, Any], experiment: Experiment) -> str:
    """The docstring, the table, the plot, and how they were made."""
    name, spent = document["experiment"], document["ledgers"]
    title, _, words = (experiment.__doc__ or name).partition("\n")
    versions = (f"{name} {number}" for name, number in document["versions"].items())
    budgets = (f"{x['file']}: epsilon {x['spent']['upper']}, " for x in spent)
    return f"""# {title.rstrip(".")}

{words.strip()}

{experiment.table(document)}

![{title}]({name}.png)

Made by

    python -m experiments run {name} --preset {document["preset"]}

in {document["wall_seconds"]:g} s on {document["device"]}; \
{"".join(budgets)}{", ".join(versions)}.
"""
