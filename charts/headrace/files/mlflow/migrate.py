"""Waits for MLflow's database and brings its tables to this version of MLflow, before a server starts.

Several pods may start at once; a lock of the database lets one of them migrate and the others wait for it.
"""

from __future__ import annotations

import os
import sys
import time

import psycopg2

WAIT_SECONDS = 120
LOCK = 4_717_227_223  # any number, the same in all pods


def connect(uri: str) -> psycopg2.extensions.connection:
    """A connection, once the database takes one."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return psycopg2.connect(uri, connect_timeout=5)
        except psycopg2.OperationalError as error:
            said = str(error).strip().splitlines()
            if time.monotonic() > deadline:
                raise SystemExit(f"the database does not answer after {WAIT_SECONDS} s: {said[-1]}") from error
            print(f"waiting for the database: {said[-1]}", flush=True)
            time.sleep(2)


def main() -> int:
    """Migrate, if nobody else does; 0 once it is done."""
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    connection = connect(uri.replace("postgresql+psycopg2://", "postgresql://"))
    connection.autocommit = True  # the lock is the session's: no transaction stays open beside the migration
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        from mlflow.db import commands  # in this process: arguments of another one would show the password

        commands.main(["upgrade", uri], standalone_mode=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
