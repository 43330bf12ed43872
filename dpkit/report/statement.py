"""The page of an account: what is protected, what was released, what it means.

Made of the facts of account.py alone; nothing is computed here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from dpkit.budget.curves import Curve
from dpkit.report import markup
from dpkit.report.figures import figure
from dpkit.report.words import (
    as_float,
    event_in_words,
    guarantee,
    headline,
    number,
    relation_in_short,
)

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
    result = summary(facts)
    title = headline(result)
    parts = [
        *_alarms(facts),
        _header(facts),
        markup.numbers(_numbers(facts, result)),
        markup.section("The guarantee", _guarantee(title, result)),
        markup.section("What an attacker can gain", _attack(facts)),
        markup.section("What was released", _charges(facts["charges"])),
    ]
    if facts["scopes"]:
        parts.append(markup.section("Blocks of the data", _scopes(facts["scopes"])))
    drawings = _curves(facts)
    if drawings:
        parts.append(markup.section("Curves", drawings))
    if facts["assumed"]:
        parts.append(markup.section("Assumptions", markup.listed(facts["assumed"])))
    parts.append(
        markup.section("What is not covered", markup.listed(facts["not_covered"]))
    )
    if facts["source"] == "ledger":
        parts.append(markup.section("Evidence", _evidence(facts)))
    return markup.document(_title(facts), "\n".join(parts))


def summary(facts: Facts) -> dict[str, Any]:
    """The facts in the form that the sentences of words.py take.

    Example:
      >>> summary({"bound": {"upper": 1.0, "estimate": None, "certified": True,
      ...   "delta": 0.0, "method_upper": "pure", "relation": "zero_out",
      ...   "unit": "user"}, "insecure": []})["epsilon"]
      1.0
    """
    bound = facts["bound"]
    known = bound["upper"] if bound["upper"] is not None else bound["estimate"]
    return {
        "epsilon": known,
        "certified": bound["certified"],
        "delta": bound["delta"],
        "relation": bound["relation"],
        "unit": bound["unit"] or "example",
        "accountant": bound["method_upper"] or bound["method_estimate"],
        "insecure_seed": bool(facts["insecure"]),
        "released": _RELEASED,
    }


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
    """Charges as cells: when, what, how often, what it cost, what became of it.

    Example:
      >>> charge_rows([{"label": "a", "count": 2, "state": "declared",
      ...               "event": {"kind": "pure", "v": 1, "epsilon": "0.5"}}])
      [('', '', 'a', '2', 'pure(epsilon 0.5)', '', 'declared')]
    """
    return [
        (
            str(charge.get("seq", "")),
            str(charge.get("time", ""))[:16].replace("T", " "),
            charge["label"],
            f"{charge['count']:,}",
            event_in_words(charge["event"]),
            _cost(charge),
            _state(charge),
        )
        for charge in charges
    ]


def _title(facts: Facts) -> str:
    """What the page is about."""
    if facts["source"] == "ledger":
        return f"Privacy account of {facts['dataset']}"
    return "Privacy account of a declared run"


def _alarms(facts: Facts) -> list[str]:
    """What must be read first."""
    found = []
    if facts["insecure"]:
        entries = ", ".join(str(seq) for seq in facts["insecure"])
        text = (
            f"The noise of entry {entries} came from a known seed, so whoever knows it"
            " can take the noise away. Every statement below is about the same"
            " releases with secret randomness."
        )
        found.append(markup.alarm("Insecure seed: no privacy", text))
    epsilon = as_float(facts["bound"]["upper"])
    if not facts["bound"]["certified"]:
        text = "No accountant has proven an upper bound: what is shown is an estimate."
        found.append(markup.alarm("Not certified", text))
    elif epsilon == float("inf"):
        found.append(markup.alarm("No guarantee", "The epsilon is infinite."))
    return found


def _header(facts: Facts) -> str:
    """Title and dates."""
    lines = []
    if facts["source"] == "ledger":
        lines = [f"begun {facts['created']}", f"last entry {facts['written']}"]
        if facts["closed"]:
            lines.append("closed")
    return (
        '<header>\n<p class="kicker">Privacy account</p>\n'
        f"<h1>{markup.escape(_title(facts))}</h1>\n"
        f'<p class="dateline">{markup.escape(" · ".join(lines))}</p>\n</header>'
    )


def _numbers(facts: Facts, result: Facts) -> list[tuple[str, str, str]]:
    """The numbers that people look for first."""
    epsilon = as_float(result["epsilon"])
    unit, relation = result["unit"], result["relation"]
    if epsilon is None or epsilon == float("inf"):
        shown, warrant = "infinite", "no guarantee"
    elif result["certified"]:
        shown = f"≤ {number(epsilon, side='up')}"
        warrant = f"certified upper bound ({result['accountant']})"
    else:
        shown, warrant = f"≈ {number(epsilon)}", "an estimate, not certified"
    delta = number(float(result["delta"]), side="up")
    rows = [
        ("epsilon", shown, warrant),
        ("delta", delta, "added to every probability"),
        ("relation", relation, relation_in_short(relation, unit)),
    ]
    if "budget" in facts:
        budget = facts["budget"]
        limit = as_float(budget["epsilon"]) or 0.0
        text = f"at delta {number(float(budget['delta']), side='down')}"
        rows.insert(1, ("budget", number(limit, side="down"), text))
    return rows


def _guarantee(title: str, result: Facts) -> str:
    """The guarantee in words, the headline first."""
    lead = f"{title[0].upper()}{title[1:]}."
    for sign in "=≤≈":
        lead = lead.replace(f" {sign} ", f"\N{NO-BREAK SPACE}{sign}\N{NO-BREAK SPACE}")
    text = f'<p class="lead">{markup.escape(lead)}</p>\n'
    return text + markup.paragraphs(guarantee(result))


def _attack(facts: Facts) -> str:
    """The attacker's gain, in both readings."""
    fixed = facts["if_fixed_in_advance"]
    adaptive = facts["bound"]["regime"] == "adaptive"
    heads = [
        "somebody who knows everything but one record, at most",
        "as certified" if adaptive else "by epsilon and delta",
        "if all had been fixed in advance" if adaptive else "by the whole profile",
    ]
    parts = [markup.grid(heads, attack_rows(facts))]
    texts = [_ADAPTIVE if adaptive else _STATIC]
    if "bound" in fixed and adaptive and fixed["bound"]["certified"]:
        upper = number(as_float(fixed["bound"]["upper"]) or 0.0, side="up")
        delta = number(fixed["bound"]["delta"], side="up")
        texts.append(
            f"If all parameters were fixed in advance: epsilon ≤ {upper} at delta ="
            f" {delta} ({fixed['bound']['method_upper']})."
        )
    if "reason" in fixed:
        texts.append(f"There is no reading of that kind: {fixed['reason']}.")
    return "\n".join([*parts, markup.paragraphs(texts)])


def _charges(charges: list[Facts]) -> str:
    """Everything that was charged."""
    if not charges:
        return "<p>Nothing was charged.</p>"
    heads = ["entry", "time", "label", "count", "event", "cost", "state"]
    rows = charge_rows(charges)
    used = [n for n in range(len(heads)) if any(row[n] for row in rows)]
    return markup.grid(
        [heads[n] for n in used], [[row[n] for n in used] for row in rows]
    )


def _scopes(scopes: list[Facts]) -> str:
    """The blocks with budgets of their own."""
    rows = [
        (
            scope["name"],
            f"epsilon {scope['budget']['epsilon']} at delta {scope['budget']['delta']}",
            number(as_float(scope["bound"]["upper"]) or 0.0, side="up"),
        )
        for scope in scopes
    ]
    text = "<p>What one person loses is the largest over the blocks that can hold"
    return f"{text} them.</p>\n{markup.grid(['block', 'budget', 'epsilon'], rows)}"


def _curves(facts: Facts) -> str:
    """The curves, labelled as what they are."""
    curves = facts["if_fixed_in_advance"].get("curves", [])
    drawn = "".join(figure(Curve(**curve)) for curve in curves)
    if not drawn:
        return ""
    text = ""
    if facts["bound"]["regime"] == "adaptive":
        text = (
            "<p>Conditional: what the accountants say of the same releases, if all"
            " parameters were fixed in advance.</p>\n"
        )
    return f'{text}<div class="curves">\n{drawn}</div>'


def _evidence(facts: Facts) -> str:
    """What ties the page to the ledger."""
    text = (
        "<p>The entries of the ledger are chained by hashes: <code>dpkit ledger"
        " verify</code> finds an entry that was edited or cut off, and a ledger that"
        " was rewritten as a whole has another head than this one.</p>\n"
    )
    rows = [
        ("ledger", facts["ledger"]),
        ("head", facts["head"]),
        ("data set", facts["dataset"]),
        ("regime", facts["regime"]),
        ("filter", facts["filter"]),
        *(("note", note) for note in facts["notes"]),
    ]
    return text + markup.table(rows)


def _percent(value: float | None) -> str:
    """A probability as a percentage, rounded up."""
    return "unknown" if value is None else f"{number(100 * value, side='up')} %"


def _cost(charge: Facts) -> str:
    """What a charge took, where that is an epsilon."""
    return ", ".join(
        f"{name} {number(float(charge[name]), side='up')}"
        for name in ("epsilon", "delta")
        if charge.get(name) is not None
    )


def _state(charge: Facts) -> str:
    """What became of a charge."""
    ran = charge.get("ran")
    told = charge["state"] if ran is None else f"{charge['state']}, {ran:,} ran"
    counted = charge.get("counted")
    return told if counted is None else f"{told}; counted as {counted}"
