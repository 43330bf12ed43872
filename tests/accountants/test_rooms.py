"""The floors of the accountants' rooms: arrows between them only point down."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FLOORS = [
    {"answers"},
    {"events", "storage", "rules"},
    {"pairs"},
    {"composition"},
    {"readings"},
    {"ledger"},
]
ROOMS = sorted(set().union(*FLOORS))
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
OURS = "dpkit.accountants."
# What a room needs from outside the house. Entries are kept, and charges are counted,
# by those who know no event: dp-accounting is not for them.
NO_EVENTS = {"answers", "storage", "rules"}


def _files(room):
    return sorted((ROOT / "accountants" / room).rglob("*.py"))


def _imported(path):
    """The full names of all that a file imports, also where a function does it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and node.level == 0, path
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_has_its_room():
    folder = ROOT / "accountants"
    found = {path.relative_to(folder).parts[0] for path in folder.rglob("*.py")}
    assert found == {*ROOMS, "__init__.py"}
    assert all(_files(room) for room in ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_from_lower_floors(room):
    for path in _files(room):
        for name in _imported(path):
            if name.startswith(OURS):
                other = name.removeprefix(OURS).split(".")[0]
                assert other in FLOOR, f"{path}: {name} is not a room"
                assert other == room or FLOOR[other] < FLOOR[room], f"{path}: {name}"
            else:
                assert not name.startswith(("dpkit", "accountants")), f"{path}: {name}"


@pytest.mark.parametrize("room", sorted(NO_EVENTS))
def test_these_rooms_know_no_events(room):
    for path in _files(room):
        assert not any(n.startswith("dp_accounting") for n in _imported(path)), path


def test_an_arrow_up_or_sideways_is_seen(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(
        "def f():\n    from dpkit.accountants import events\n"
        "    import dpkit.accountants.ledger.book\n"
    )
    found = {name.removeprefix(OURS).split(".")[0] for name in _imported(path)}
    assert found == {"events", "ledger"}
    assert FLOOR["ledger"] > FLOOR["events"] == FLOOR["rules"]
