"""What is built and installed elsewhere works without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.guard]


def python(*words, **options):
    """Runs Python, and tells what it said if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package alone, by way of sdist and wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source, built, site = folder / "source", folder / "built", folder / "site"
    names = ("dpkit", "accountants", "mechanisms", "pyproject.toml")
    source.mkdir()
    for name in (*names, "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    # The wheel is made from the sdist, without asking any registry.
    python("-m", "build", "--no-isolation", "--outdir", built, source)
    (wheel,) = built.glob("*.whl")
    assert len(list(built.glob("*.tar.gz"))) == 1
    pip = ("-m", "pip", "install", "-q", "--no-deps", "--no-index")
    python(*pip, "--disable-pip-version-check", "--target", site, wheel)
    return wheel, site


def test_the_wheel_holds_every_module_once(installed):
    names = zipfile.ZipFile(installed[0]).namelist()
    assert len(names) == len(set(names))
    for folder in ("accountants", "mechanisms"):
        inside = {
            f"dpkit/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")
        }
        assert inside <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "dpkit",
        "dpkit_jax",
    }


def test_the_wheel_works_outside_of_the_checkout(installed, tmp_path):
    _, site = installed
    # -P: what is beside a script or in the current folder is not on the path.
    environment = {**os.environ, "PYTHONPATH": str(site)}
    code = "import dpkit.accountants.events as e, dpkit.training; print(e.__file__)"
    options = {"cwd": tmp_path, "env": environment}
    assert python("-P", "-c", code, **options).startswith(str(site))
    assert "Usage" in python("-P", "-m", "dpkit", "--help", **options)
