"""A PostgreSQL server of our own: a fresh data folder, one Unix socket, no network."""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HOW = "install the distribution's package: apt-get install postgresql"


def binaries() -> Path | None:
    """The folder with initdb and pg_ctl, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    config = shutil.which("pg_config")
    if config:
        done = subprocess.run([config, "--bindir"], capture_output=True, text=True)
        found.append(Path(done.stdout.strip()))
    return next((path for path in found if (path / "initdb").exists()), None)


def _as_user() -> tuple[list[str], int]:
    """How to run as somebody whom PostgreSQL accepts: it refuses to run as root."""
    if os.getuid() != 0:
        return [], os.getuid()
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        group = f"--regid={user.pw_gid}"
        return ["setpriv", f"--reuid={user.pw_uid}", group, "--clear-groups"], user[2]
    raise RuntimeError("root needs the user postgres or nobody to run PostgreSQL")


class Server:
    """A running server; the role dpkit may do all, guarded needs the password."""

    PASSWORD = "s3cret:/@"

    def __init__(self, folder: Path, *settings: str):
        self._prefix, uid = _as_user()
        self.folder = folder
        self._numbers = itertools.count()
        self._settings = settings
        os.chown(folder, uid, -1)
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--username=dpkit"]
        self._run("initdb", "-D", "data", *options)
        access = folder / "data" / "pg_hba.conf"
        rule = "local all guarded scram-sha-256\n"
        access.write_text(rule + access.read_text())
        self.start()
        self.sql(f"create role guarded superuser login password '{self.PASSWORD}'")

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = ["-c listen_addresses=", f"-k {self.folder}"]
        options += [f"-c {setting}" for setting in self._settings]
        self._run(
            "pg_ctl", "-D", "data", "-l", "log", "-w", "-o", " ".join(options), "start"
        )

    def stop(self, how: str = "fast") -> None:
        """Stops it; `immediate` is a crash."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", how, "stop")

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """The rows that a statement returns."""
        import psycopg

        target = f"host={self.folder} user=dpkit dbname=postgres"
        with psycopg.connect(target, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def url(self, ledger: str | None = None, user: str = "dpkit") -> str:
        """The URL of a ledger: a new name at each call, unless it is given."""
        name = ledger or f"ledger_{next(self._numbers)}"
        return f"postgresql://{user}@/postgres?host={self.folder}&ledger={name}"

    def _run(self, program: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs in the folder."""
        path = binaries()
        if path is None:
            raise RuntimeError(HOW)
        command = [*self._prefix, str(path / program), *arguments]
        # A log file, not a pipe: the server would keep a pipe open.
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            done = subprocess.run(command, cwd=self.folder, stdout=log, stderr=log)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {Path(log.name).read_text()}")


def new_folder() -> Path:
    """A folder for a server: short, since the path of a socket is limited."""
    return Path(tempfile.mkdtemp(prefix="dpkit-pg-", dir="/tmp"))


def remove(server: Server) -> None:
    """Stops a server and deletes what it stored."""
    try:
        server.stop("immediate")
    finally:
        shutil.rmtree(server.folder)
        server.folder.with_name(f"{server.folder.name}.log").unlink()
