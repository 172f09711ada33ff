"""A PostgreSQL on loopback: MLflow's database and its backup are tried against a real one.

PostgreSQL refuses to run as root. So root runs it in a user namespace in which its own files belong to `nobody`, who is
whom PostgreSQL believes to be: nothing needs to be given away or opened to other users.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace_testbed.debian import debian_packages
from headrace_testbed.processes import Daemon, free_port

_START_SECONDS = 120
_USER = "testbed"
_NOBODY = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "setpriv", "--pdeathsig", "KILL", "--"]


def _binaries_below(root: Path) -> Path | None:
    found = sorted(root.glob("usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def postgres_binaries() -> Path:
    """The folder of `initdb`, `postgres`, `pg_dump` and the others: the machine's own, else unpacked."""
    unpacked = (
        None if (own := _binaries_below(Path("/"))) else _binaries_below(debian_packages("postgresql", "postgresql-15"))
    )
    found = own or unpacked
    assert found is not None, "Debian's postgresql-15 has no initdb"
    return found


class Postgres:
    """PostgreSQL with its data in FOLDER, a short path; a context manager.

    The user `testbed` with the password `testbed` owns the database of the same name, and may make others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.binaries = postgres_binaries()
        self.host, self.port = "127.0.0.1", free_port()
        self._data = folder / "data"
        options = {"listen_addresses": self.host, "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [*self._as_user(), str(self.binaries / "postgres"), "-D", str(self._data), *settings]
        self.daemon = Daemon("postgres", list(command), folder / "postgres.log", self._environment)

    @property
    def url(self) -> str:
        """The database's URL, as libpq takes it."""
        return self.url_of(_USER)

    @property
    def sqlalchemy_url(self) -> str:
        """The same for SQLAlchemy, which takes the driver from it: MLflow's server has psycopg2."""
        return self.url.replace("postgresql:", "postgresql+psycopg2:")

    def url_of(self, database: str) -> str:
        """The URL of another DATABASE."""
        return f"postgresql://{_USER}:{_USER}@{self.host}:{self.port}/{database}"

    def __enter__(self) -> Postgres:
        if not self._data.exists():
            self._init()
        self.daemon.start()
        try:
            self.daemon.wait_for(self._accepts, _START_SECONDS)
            if not self.run(
                "psql", "-tAc", f"SELECT 1 FROM pg_database WHERE datname = '{_USER}'", self.url_of("postgres")
            ):
                self.run("createdb", "--maintenance-db", self.url_of("postgres"), _USER)
        except BaseException:
            self.daemon.kill()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        self.daemon.stop(60, signal.SIGINT)  # at SIGTERM it waits for clients, some of whom keep their connections

    def run(self, program: str, *arguments: str) -> str:
        """What one of PostgreSQL's programs prints (`psql`, `pg_dump`, `createdb`, ...)."""
        command = [*self._as_user(), str(self.binaries / program), *arguments]
        done = subprocess.run(command, env=os.environ | self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)} failed ({done.returncode}): {done.stderr.strip()}")
        return done.stdout.strip()

    def _init(self) -> None:
        password = self.folder / "password"
        password.write_text(_USER)
        how = ["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={_USER}"]
        self.run("initdb", "-D", str(self._data), *how, f"--pwfile={password}")

    def _accepts(self) -> bool:
        command = [*self._as_user(), str(self.binaries / "pg_isready"), "-q", "-d", self.url_of("postgres")]
        return subprocess.run(command, env=os.environ | self._environment, check=False).returncode == 0

    @staticmethod
    def _as_user() -> Sequence[str]:
        return _NOBODY if os.geteuid() == 0 else ()

    @property
    def _environment(self) -> Mapping[str, str]:
        libraries = self.binaries.parents[2]  # …/usr/lib; Debian's libraries lie in a folder of the processor's below
        return (
            {"LD_LIBRARY_PATH": ":".join(map(str, libraries.glob("*-linux-gnu")))}
            if libraries != Path("/usr/lib")
            else {}
        )
