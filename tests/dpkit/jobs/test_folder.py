"""The run's folder: private means 0700, and writes are whole or absent."""

import os
import stat

import pytest

from dpkit.jobs.folder import RunFolder, write
from dpkit.jobs.roots import Roots


def test_private_is_for_the_owner_alone_whatever_the_umask(tmp_path):
    folder = RunFolder(tmp_path / "run")
    before = os.umask(0)
    try:
        folder.prepare()
        folder.save_state(Roots.insecure(1), {"a": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.private.stat().st_mode) == 0o700
    state = folder.private / "run.json"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600


def test_state_comes_back(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare()
    assert not folder.started
    folder.save_state(Roots.insecure(1), {"a": [1, 2]})
    assert folder.started
    assert RunFolder(tmp_path).load_state() == (Roots.insecure(1), {"a": [1, 2]})


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"roots": {"noise": "zz"}}'])
def test_damaged_state_is_an_error_of_one_line(tmp_path, damage):
    folder = RunFolder(tmp_path)
    folder.prepare()
    (folder.private / "run.json").write_text(damage)
    with pytest.raises(ValueError, match="damaged") as caught:
        folder.load_state()
    assert "\n" not in str(caught.value)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        RunFolder(tmp_path).prepare()
    assert not (tmp_path / "private").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "run").prepare()


def test_two_processes_cannot_hold_one_run(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare()
    with folder.locked(), pytest.raises(ValueError, match="another process"):
        with RunFolder(tmp_path).locked():
            pass
    with folder.locked():
        pass


def test_a_lock_of_a_folder_that_was_taken_back_is_no_lock(tmp_path, monkeypatch):
    """Between opening the file and locking it, its holder may have removed it."""
    import fcntl

    folder = RunFolder(tmp_path / "run")
    made = folder.prepare()
    real = fcntl.flock

    def flock(*args):
        folder.discard(made)
        RunFolder(tmp_path / "run").prepare()
        (tmp_path / "run" / "private" / "lock").touch()
        real(*args)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ValueError, match="another process"):
        with folder.locked():
            pass


def test_discard_takes_back_what_prepare_made_and_no_more(tmp_path):
    (tmp_path / "mine").mkdir()
    folder = RunFolder(tmp_path / "mine" / "runs" / "one")
    made = folder.prepare()
    assert made == [folder.private, folder.path, folder.path.parent]
    folder.save_state(Roots.insecure(1), {})
    folder.discard(made)
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    made = folder.prepare()
    (folder.path.parent / "two").touch()
    folder.discard(made)
    assert (folder.path.parent / "two").exists()
    assert not folder.path.exists()


def test_discard_leaves_what_was_there(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare()
    folder.save_state(Roots.insecure(1), {})
    again = RunFolder(tmp_path)
    again.discard(again.prepare())
    assert again.started


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_delete_private_removes_everything(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare()
    folder.add_private_line("scores.jsonl", {"score": 1})
    folder.delete_private()
    assert not folder.private.exists()


def test_secrets_that_cannot_be_deleted_are_an_error(tmp_path, monkeypatch):
    import shutil

    folder = RunFolder(tmp_path)
    folder.prepare()
    folder.save_state(Roots.insecure(1), {})

    def refuse(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path / "run.json"))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(OSError, match=r"could not be deleted.*Permission") as caught:
        folder.delete_private()
    assert caught.value.filename == str(folder.private)
    assert folder.started


def test_delete_private_where_there_is_none(tmp_path):
    RunFolder(tmp_path).delete_private()
