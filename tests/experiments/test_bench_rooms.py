"""The count of lines: every product file once, none twice through a link."""

from experiments.bench.rooms import ROOT, rooms, table


def test_every_file_is_counted_once(tmp_path):
    for name, lines in {
        "accountants/a/x.py": 3,
        "accountants/a/deep/y.py": 2,
        "mechanisms/z.py": 5,
        "dpkit/__init__.pyi": 1,
        "dpkit/cli/app.py": 4,
        "dpkit/cli/demo.toml": 9,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("line\n" * lines)
    (tmp_path / "dpkit" / "accountants").symlink_to("../accountants")
    found = rooms(tmp_path)
    assert found == {
        "accountants/a": [2, 3],
        "mechanisms": [5],
        "dpkit": [1],
        "dpkit/cli": [4],
    }
    assert "| **dpkit** | 2 | 5 |" in table(found)
    assert "| **all** | 5 | 15 |" in table(found)


def test_the_rooms_on_disk_are_in_it():
    inits = (ROOT / "dpkit").glob("*/__init__.py")
    names = {path.parent.name for path in inits if not path.parent.is_symlink()}
    assert {f"dpkit/{name}" for name in names} <= set(rooms())
