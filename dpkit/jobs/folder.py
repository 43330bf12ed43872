"""The folder of a run: what may be shown to others, and `private/`, which may not.

Everything outside `private/` is made of released values only. `private/` (mode 0700)
holds the roots and what is computed from un-noised data; it is deleted when the run
ends. A run is finished when `result.json` exists, which is written last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpkit.jobs.roots import Roots


class RunFolder:
    """Paths and durable writes of one run.

    Args:
      path: the folder; made by `prepare` if it doesn't exist.

    Example:
      >>> folder = RunFolder("runs/mine")
      >>> folder.report.name, folder.finished
      ('report.html', False)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.private = self.path / "private"
        self.checkpoints = self.private / "checkpoints"
        self.config = self.path / "config.toml"
        self.ledger = self.path / "ledger.db"
        self.result = self.path / "result.json"
        self.report = self.path / "report.html"
        self._state = self.private / "run.json"

    @property
    def config_sha256(self) -> str:
        """A digest of the configuration's file, comments and all."""
        return hashlib.sha256(self.config.read_bytes()).hexdigest()

    @property
    def finished(self) -> bool:
        """Whether the run in this folder has ended."""
        return self.result.exists()

    @property
    def started(self) -> bool:
        """Whether a run of this folder has roots and can be resumed."""
        return self._state.exists()

    def check(self) -> None:
        """Refuses a folder in which a run has no place; changes nothing.

        Raises:
          ValueError: it is a file, or holds files that are not a run's.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"out={str(self.path)!r} is a file: name a folder")
        if self.started:
            return
        known = {self.config.name, self.private.name, self.ledger.name}
        for entry in sorted(self.path.iterdir()):
            # SQLite keeps its journal beside the file.
            if entry.name in known or entry.name.startswith((self.ledger.name, ".")):
                continue
            raise ValueError(
                f"out={str(self.path)!r} holds {entry.name!r}, which is no part of an "
                "unfinished run: name a new folder"
            )

    def prepare(self) -> list[Path]:
        """Makes the folder and its private part.

        Returns:
          The folders that this call made, the innermost first, for `discard`.

        Raises:
          ValueError: as for `check`.
        """
        self.check()
        made = []
        for path in (*reversed(self.path.parents), self.path, self.private):
            if path.exists():
                continue
            # Another process may be making it at this moment.
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o700 if path == self.private else 0o777)
                made.insert(0, path)
        self.private.chmod(0o700)
        return made

    def discard(self, made: list[Path]) -> None:
        """Takes back what `prepare` made, for a run that never was charged.

        Folders in which something else lies by now stay. Hold the lock.
        """
        for path in made:
            # The refusal that led here is what the user must read, whatever stays.
            if path == self.private:
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process alone.

        Raises:
          ValueError: another process is running it.
        """
        busy = ValueError(
            f"out={str(self.path)!r} is in use by another process: wait for it, "
            "or name another folder"
        )
        path = self.private / "lock"
        with open(path, "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            # Whoever held it before may have discarded the folder with this file.
            try:
                current = path.stat()
            except FileNotFoundError:
                raise busy from None
            if not os.path.samestat(current, os.fstat(handle.fileno())):
                raise busy
            yield

    def save_state(self, roots: Roots, facts: dict[str, Any]) -> None:
        """Writes the roots and what must not change when the run is resumed."""
        secret = {"noise": roots.noise.hex(), "sampling": roots.sampling.hex()}
        text = json.dumps({"roots": secret, "facts": facts}, indent=1, sort_keys=True)
        write(self._state, text.encode(), mode=0o600)

    def load_state(self) -> tuple[Roots, dict[str, Any]]:
        """Reads what `save_state` wrote.

        Raises:
          ValueError: the file is damaged.
        """
        try:
            state = json.loads(self._state.read_bytes())
            roots = Roots(*(bytes.fromhex(state["roots"][k]) for k in _ROOT_NAMES))
            return roots, dict(state["facts"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self._state} is damaged ({error}): this run can't be resumed; start "
                "in a new folder, which is charged anew"
            ) from None

    def add_private_line(self, name: str, line: dict[str, Any]) -> None:
        """Appends a JSON line to a file of the private folder."""
        with open(self.private / name, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def delete_private(self) -> None:
        """Ends the run's secrets.

        Raises:
          OSError: they are still there, wholly or in part.
        """
        try:
            shutil.rmtree(self.private)
        except OSError as error:
            if not self.private.exists():
                return
            raise OSError(
                error.errno,
                "the run is finished, but its secrets could not be deleted "
                f"({error.strerror}): delete this folder before you show the run",
                str(self.private),
            ) from error


_ROOT_NAMES = ("noise", "sampling")


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes a file whole and durably, or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode
        )
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
