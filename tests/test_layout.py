"""The layout that imports, wheels and readers rely on."""

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A file of one folder may import from the folders named after it, and no others.
MAY_IMPORT = {
    "accountants": {"dpkit.accountants"},
    "mechanisms": {"dpkit.accountants", "dpkit.mechanisms"},
    "dpkit": {"dpkit"},
    "experiments": {"dpkit", "experiments"},
}
# Rooms from the ground up. A room imports from floors below its own, and never from a
# room on its own floor: so capabilities stand side by side, and each can be taken out.
FLOORS = {
    "accountants": [
        {"answers"},
        {"events", "storage", "rules"},
        {"pairs"},
        {"composition"},
        {"readings"},
        {"ledger"},
    ],
    "dpkit": [
        {"data"},
        {"models", "rewrite", "budget"},
        {"report"},
        {"jobs"},
        {"training", "federated", "density", "synthetic", "auditing", "analysis"},
        {"cli"},
    ],
}
# (room, the room it imports from all the same): why. An unused one is a failure.
EXCEPTIONS: dict[tuple[str, str], str] = {}
LINKS = {"dpkit/accountants": "accountants", "dpkit/mechanisms": "mechanisms"}


def source_files(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        relative = path.relative_to(ROOT).as_posix()
        if not relative.startswith(tuple(f"{link}/" for link in LINKS)):
            yield path


ALL = [(folder, path) for folder in MAY_IMPORT for path in source_files(folder)]


@functools.cache
def nodes_of(path):
    return list(ast.walk(ast.parse(path.read_text())))


def imported_modules(path):
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("folder", "path"), ALL, ids=[p.relative_to(ROOT).as_posix() for _, p in ALL]
)
def test_imports_point_up_the_list(folder, path):
    ours = {"accountants", "mechanisms", "dpkit", "experiments", "tests"}
    for name in imported_modules(path):
        top = name.split(".")[0]
        assert top not in {"accountants", "mechanisms", "tests"}, name
        assert not (folder == "accountants" and top in {"jax", "jaxlib"}), name
        if top in ours and name != "dpkit":
            allowed = MAY_IMPORT[folder]
            assert any(f"{name}.".startswith(f"{a}.") for a in allowed), name


def rooms_entered(house, path):
    """Rooms of the same house whose modules a file imports, anywhere in its text."""
    prefix = "dpkit." if house == "dpkit" else f"dpkit.{house}."
    names = {*imported_modules(path), *modules_in_texts(path)}
    rooms = {name.removeprefix(prefix).split(".")[0] for name in names}
    return rooms & set().union(*FLOORS[house])


def modules_in_texts(path):
    """Names of modules that are written as texts, for `import_module` and the like."""
    for node in nodes_of(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"dpkit(\.\w+)+", node.value):
                yield node.value


def floor_of(house, room):
    return next(n for n, rooms in enumerate(FLOORS[house]) if room in rooms)


IN_ROOMS = [
    (house, path.relative_to(ROOT).parts[1], path)
    for house, path in ALL
    if house in FLOORS and path.parent != ROOT / house
]


@pytest.mark.parametrize(
    ("house", "room", "path"),
    IN_ROOMS,
    ids=[p.relative_to(ROOT).as_posix() for *_, p in IN_ROOMS],
)
def test_rooms_import_from_below(house, room, path):
    for other in rooms_entered(house, path) - {room}:
        if (room, other) not in EXCEPTIONS:
            assert floor_of(house, other) < floor_of(house, room), other


@pytest.mark.parametrize(
    ("line", "entered"),
    [
        ("import dpkit.cli.app", {"cli"}),
        ("def f():\n    from dpkit.training import fit", {"training"}),
        ("from dpkit import rewrite", {"rewrite"}),
        ("import_module('dpkit.jobs.folder')", {"jobs"}),
        ("from dpkit.accountants import Ledger", set()),
    ],
)
def test_an_import_is_seen_wherever_it_stands(tmp_path, line, entered):
    path = tmp_path / "a.py"
    path.write_text(line)
    assert rooms_entered("dpkit", path) == entered


def test_no_room_goes_through_the_front_door():
    """The names of `import dpkit` come from every floor: no room takes them there."""
    rooms = {room for floor in FLOORS["dpkit"] for room in floor}
    for *_, path in IN_ROOMS:
        for node in nodes_of(path):
            if isinstance(node, ast.ImportFrom) and node.module == "dpkit":
                assert {alias.name for alias in node.names} <= rooms, path


def test_every_exception_is_needed():
    entered = {
        (room, other)
        for house, room, path in IN_ROOMS
        for other in rooms_entered(house, path)
    }
    assert set(EXCEPTIONS) <= entered


@pytest.mark.parametrize("house", FLOORS)
def test_every_room_has_a_floor_and_nothing_lies_about(house):
    links = {Path(link).name for link in LINKS}
    on_disk = {p.parent.name for p in (ROOT / house).glob("*/__init__.py")} - links
    assert on_disk <= set().union(*FLOORS[house])
    loose = {p.name for p in (ROOT / house).glob("*.py")}
    assert loose <= {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("link", LINKS)
def test_the_links_lead_to_the_folders(link):
    assert (ROOT / link).samefile(ROOT / LINKS[link])
    target = (ROOT / link).readlink()
    assert not target.is_absolute()


def test_pyproject_lists_exactly_the_packages_on_disk():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    mapped = {"dpkit.accountants": "accountants", "dpkit.mechanisms": "mechanisms"}
    assert table["package-dir"] == {"dpkit": "dpkit", **mapped}
    inits = (
        path
        for folder in ("dpkit", *mapped.values())
        for path in source_files(folder)
        if path.name == "__init__.py"
    )
    on_disk = set()
    for path in inits:
        parts = path.parent.relative_to(ROOT).parts
        on_disk.add(".".join(parts if parts[0] == "dpkit" else ("dpkit", *parts)))
    assert set(table["packages"]) == on_disk


def test_no_module_hides_a_standard_one():
    for _, path in ALL:
        assert path.stem not in sys.stdlib_module_names - {"__main__"}, path


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "from dpkit.accountants import Ledger, epsilon",
            ["jax", "tensorflow_datasets", "matplotlib"],
        ),
        ("import dpkit", ["jax", "dp_accounting", "tensorflow_datasets", "numpy"]),
        (
            "import dpkit.cli",
            ["jax", "dp_accounting", "tensorflow_datasets", "matplotlib"],
        ),
    ],
)
def test_imports_stay_light(statement, absent):
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert not set(absent) & set(json.loads(out.stdout))


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in pins if "==" in line}
    for requirement in wanted:
        name = re.split(r"[;<>=\[]", requirement)[0].strip().lower()
        assert name in pinned, f"{name}: run `make lock`"
    assert not any("://" in line for line in pins)


def test_files_are_short():
    for _, path in ALL:
        assert len(path.read_text().splitlines()) <= 600, path
