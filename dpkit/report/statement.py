"""The page of an account: what is protected, what was released, what it means.

Made of the facts of account.py alone; nothing is computed here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from dpkit.budget.curves import Curve
from dpkit.report.figures import figure
from dpkit.report.guarantee import Guarantee
from dpkit.report.sections import Part, Section, Table, Text, render
from dpkit.report.words import as_float, event_in_words, number

Facts = Mapping[str, Any]

_ADAPTIVE = (
    "The epsilon above is that of a filter: it holds also if later releases were chosen"
    " on the outputs of earlier ones. The same list of releases, had all of it been"
    " fixed before the first output was seen, is read by the accountants in the second"
    " column and in the curves below; those numbers are conditional on that."
)
_STATIC = (
    "The numbers hold for exactly these releases, fixed before the first output was"
    " seen. The second column reads the whole privacy profile, not one (epsilon, delta)"
    " alone, and is therefore sharper."
)
_RELEASED = (
    "It holds for everything that is listed below together: a reader may see all of"
    " it, and all that was computed from it. It does not hold for what was released"
    " from the same data and is not listed."
)

OWN = (
    "By itself: what a charge costs alone, had it been fixed in advance. Part of the"
    " spend: of the epsilon above, as the ledger counts it; all parts make 100 %."
)
CHARGE_HEADS = ("entry:", "time", "who", "label", "count:", "event", "by itself")
CHARGE_HEADS += ("part of the spend:", "state")


def render_account(facts: Facts) -> str:
    """The account as one self-contained HTML page.

    Args:
      facts: by `account.of_ledger` or `account.of_run`.

    Returns:
      The page. The same input gives the same text.

    Example:
      >>> from dpkit.budget.declaration import declare
      >>> from dpkit.report.account import of_run
      >>> run = declare({"relation": "zero_out", "events":
      ...                [{"kind": "pure", "epsilon": 0.5}]})
      >>> "What is not covered" in render_account(of_run(run, 1e-5))
      True
    """
    own = [
        Section("What an attacker can gain", *_attack(facts)),
        Section("What was released", *_charges(facts["charges"])),
    ]
    if facts["scopes"]:
        own.append(Section("Blocks of the data", *_scopes(facts["scopes"])))
    drawn = _curves(facts)
    if drawn:
        own.append(Section("Curves", *drawn))
    if facts["assumed"]:
        own.append(Section("Assumptions", Text(*facts["assumed"], points=True)))
    return render(
        _title(facts),
        guarantee(facts),
        own,
        kind="Privacy account",
        dates=_dates(facts),
        shown=_budget(facts),
        not_covered=facts["not_covered"],
        evidence=_evidence(facts) if facts["source"] == "ledger" else (),
    )


def guarantee(facts: Facts) -> Guarantee:
    """What an account guarantees.

    Example:
      >>> guarantee({"bound": {"upper": 1.0, "estimate": None, "certified": True,
      ...   "delta": 0.0, "method_upper": "pure", "relation": "zero_out",
      ...   "unit": "user"}, "insecure": []}).value
      '≤ 1'
    """
    seeds = ", ".join(str(seq) for seq in facts["insecure"])
    insecure = f"the noise of entry {seeds}" if seeds else ""
    return Guarantee.read(facts["bound"], insecure=insecure, released=_RELEASED)


def attack_rows(facts: Facts) -> list[tuple[str, str, str]]:
    """What an attacker can gain: a question, and the two readings of it.

    Example:
      >>> risk = {"advantage": 0.5, "posterior": 0.75, "recognised": []}
      >>> attack_rows({"attack": risk, "if_fixed_in_advance": {}})[0][1]
      '50 %'
    """
    readings = [facts["attack"], facts["if_fixed_in_advance"].get("attack")]
    rows = [
        ("largest advantage (true minus false positive rate)", "advantage"),
        ("most certain guess, where both were equally likely before", "posterior"),
    ]
    found = []
    for name, key in rows:
        first, second = (_percent(r and r[key]) for r in readings)
        found.append((name, first, second))
    known = next((r["recognised"] for r in readings if r), [])
    for place, pair in enumerate(known):
        name = f"recognised, at {100 * pair['false_positives']:g} % false alarms"
        first, second = (
            _percent(r and r["recognised"][place]["true_positives"]) for r in readings
        )
        found.append((name, first, second))
    return found


def charge_rows(charges: Iterable[Facts]) -> list[tuple[str, ...]]:
    """Charges as cells, named by `CHARGE_HEADS`.

    Example:
      >>> charge_rows([{"label": "a", "count": 2, "state": "declared",
      ...               "event": {"kind": "pure", "v": 1, "epsilon": "0.5"}}])
      [('', '', '', 'a', '2', 'pure(epsilon 0.5)', '', '', 'declared')]
    """
    return [
        (
            str(charge.get("seq", "")),
            str(charge.get("time", ""))[:16].replace("T", " "),
            charge.get("author", ""),
            charge["label"],
            f"{charge['count']:,}",
            (f"{charge['runs']} runs: " if charge.get("runs") else "")
            + event_in_words(charge["event"]),
            _own(charge.get("own")),
            "" if charge.get("part") is None else _percent(charge["part"]),
            _state(charge),
        )
        for charge in charges
    ]


def block_rows(scopes: Iterable[Facts]) -> list[tuple[str, str, str]]:
    """Blocks of the data: name, budget, and the epsilon that is spent.

    Example:
      >>> block_rows([])
      []
    """
    return [
        (
            scope["name"],
            f"epsilon {scope['budget']['epsilon']} at delta {scope['budget']['delta']}",
            Guarantee.read(scope["bound"]).value,
        )
        for scope in scopes
    ]


def _title(facts: Facts) -> str:
    """What the page is about."""
    if facts["source"] == "ledger":
        return f"Privacy account of {facts['dataset']}"
    return "Privacy account of a declared run"


def _dates(facts: Facts) -> list[str]:
    """When the ledger was begun and last written to."""
    if facts["source"] != "ledger":
        return []
    dates = [f"begun {facts['created']}", f"last entry {facts['written']}"]
    return [*dates, "closed"] if facts["closed"] else dates


def _budget(facts: Facts) -> list[tuple[str, str, str]]:
    """The most that may be spent, where there is a limit."""
    if "budget" not in facts:
        return []
    limit = as_float(facts["budget"]["epsilon"]) or 0.0
    text = f"at delta {number(float(facts['budget']['delta']), side='down')}"
    return [("budget", number(limit, side="down"), text)]


def _attack(facts: Facts) -> list[Part]:
    """The attacker's gain, in both readings."""
    fixed = facts["if_fixed_in_advance"]
    adaptive = facts["bound"]["regime"] == "adaptive"
    heads = [
        "somebody who knows everything but one record, at most",
        "as certified" if adaptive else "by epsilon and delta",
        "if all had been fixed in advance" if adaptive else "by the whole profile",
    ]
    texts = [_ADAPTIVE if adaptive else _STATIC]
    if "bound" in fixed and adaptive and fixed["bound"]["certified"]:
        read = Guarantee.read(fixed["bound"])
        delta = number(read.delta, side="up")
        texts.append(
            f"If all parameters were fixed in advance: epsilon {read.value} at delta ="
            f" {delta} ({read.method})."
        )
    if "reason" in fixed:
        texts.append(f"There is no reading of that kind: {fixed['reason']}.")
    return [Table(attack_rows(facts), heads), Text(*texts)]


def _charges(charges: list[Facts]) -> list[Part]:
    """Everything that was charged."""
    if not charges:
        return [Text("Nothing was charged.")]
    heads = [name.removesuffix(":") for name in CHARGE_HEADS]
    rows = charge_rows(charges)
    used = [n for n in range(len(heads)) if any(row[n] for row in rows)]
    table = Table([[row[n] for n in used] for row in rows], [heads[n] for n in used])
    return [Text(OWN), table] if any(row[6] for row in rows) else [table]


def _scopes(scopes: list[Facts]) -> list[Part]:
    """The blocks with budgets of their own."""
    text = "What one person loses is the largest over the blocks that can hold them."
    return [Text(text), Table(block_rows(scopes), ["block", "budget", "epsilon"])]


def _curves(facts: Facts) -> list[Part]:
    """The curves, labelled as what they are."""
    curves = facts["if_fixed_in_advance"].get("curves", [])
    drawn: list[Part] = [figure(Curve(**c)) for c in curves if c["points"]]
    if not drawn or facts["bound"]["regime"] != "adaptive":
        return drawn
    text = (
        "Conditional: what the accountants say of the same releases, if all parameters"
        " were fixed in advance."
    )
    return [Text(text), *drawn]


def _evidence(facts: Facts) -> list[Part]:
    """What ties the page to the ledger."""
    text = (
        "The entries of the ledger are chained by hashes: `dpkit ledger verify` finds"
        " an entry that was edited or cut off, and a ledger that was rewritten as a"
        " whole has another head than this one."
    )
    rows = [
        ("ledger", facts["ledger"]),
        ("head", facts["head"]),
        ("data set", facts["dataset"]),
        ("regime", facts["regime"]),
        ("filter", facts["filter"]),
        *(("note", note) for note in facts["notes"]),
    ]
    return [Text(text), Table(rows)]


def _percent(value: float | None) -> str:
    """A probability as a percentage, rounded up."""
    return "unknown" if value is None else f"{number(100 * value, side='up')} %"


def _own(bound: Facts | None) -> str:
    """What a charge costs by itself, as far as that is certified."""
    if not bound or not bound["certified"]:
        return ""
    read = Guarantee.read(bound)
    return f"epsilon {read.value} at delta {number(read.delta, side='up')}"


def _state(charge: Facts) -> str:
    """What became of a charge."""
    ran = charge.get("ran")
    told = charge["state"] if ran is None else f"{charge['state']}, {ran:,} ran"
    counted = charge.get("counted")
    return told if counted is None else f"{told}; counted as {counted}"
