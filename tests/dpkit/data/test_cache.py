"""Where the cache is, and that nothing half-made ever shows."""

import os
import time
from pathlib import Path

import platformdirs
import pytest

from dpkit.data.cache import Cache, open_cache, publish


def test_argument_before_environment_before_default(tmp_path, monkeypatch):
    monkeypatch.setenv("DPKIT_CACHE", str(tmp_path / "env"))
    assert open_cache(tmp_path / "arg").root == tmp_path / "arg"
    assert open_cache().root == tmp_path / "env"
    monkeypatch.delenv("DPKIT_CACHE")
    assert open_cache().root == Path(platformdirs.user_cache_dir("dpkit"))


def test_a_relative_or_home_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_cache("here").root == tmp_path / "here"
    assert open_cache("~/here").root == tmp_path / "home" / "here"


def test_opening_makes_no_folder(tmp_path):
    open_cache(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_workplace_is_removed_also_after_an_interrupt(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt), cache.workplace() as folder:
        (folder / "half").write_bytes(b"x")
        raise KeyboardInterrupt
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day(tmp_path):
    old, new = tmp_path / "tmp" / "old", tmp_path / "tmp" / "new"
    for folder in (old, new):
        (folder / "deep").mkdir(parents=True)
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    with Cache(tmp_path).workplace():
        assert not old.exists()
        assert new.exists()


def test_the_first_to_publish_wins(tmp_path):
    final = tmp_path / "a" / "b"
    for text in ("first", "second"):
        made = tmp_path / text
        made.mkdir()
        (made / "file").write_text(text)
        publish(made, final)
    assert (final / "file").read_text() == "first"


def test_publishing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "missing", tmp_path / "final")
